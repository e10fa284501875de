"""What the points measure, in a table; the measurement that is selected is drawn on the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import qt

from .markup_helpers import Drawn
from .measured import Measured, Measurement, places_of
from .options import Options
from .sections import Section
from .table import CELL_PX, NAME_PX

NAME, VALUE, INTERVAL, USUAL = range(4)  # columns
NO_VALUE = "–"


class MeasurementSection(Section):
    """Hidden where the task measures nothing, or the server does not tell it. As ``Section``, and the scene."""

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, scene):
        self.drawn = Drawn(scene)
        super().__init__(ui, translate, options, on)

    def _begin(self) -> None:
        self.table = table = self.ui.measurements
        self._headers = [self._(text) for text in ("measurement", "value", "95 % interval", "usual")]
        self._no_interval, self._press_again = self._("no interval: {why}"), self._("Select it to see it on the image.")
        self._measurements: Sequence[Measurement] = ()
        self.ui.measurementsSection.setVisible(False)
        self._shown: list[tuple] = []  # what each row shows
        self._cells: list[list] = []  # row by row
        self._measured: Sequence[Measured] = ()
        self._later = qt.QTimer(table)  # of the table, and gone with it: a call that came later would find none
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._fit_again)
        self._widths: dict[int, int] = {}  # the most that a column has needed: it does not shrink while a point is dragged
        self._widest_name, self._is_visible, self._just_selected = 0, False, False
        self._italic = qt.QFont(table.property("font"))
        self._italic.setItalic(True)
        table.setColumnCount(len(self._headers))
        table.setHorizontalHeaderLabels(self._headers)
        header = table.horizontalHeader()
        header.setStretchLastSection(False)
        header.setHighlightSections(False)  # bold letters are wider
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column in (VALUE, INTERVAL, USUAL):
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)  # to what ``_fit`` finds
        table.verticalHeader().setVisible(False)
        table.setTextElideMode(qt.Qt.ElideMiddle)  # of single words that no panel is wide enough for
        header.sectionResized.connect(self._resized)
        table.itemSelectionChanged.connect(self._selected)
        table.cellClicked.connect(self._clicked)

    def close(self) -> None:
        """Nothing is drawn any more, and nothing is due."""
        self._later.stop()
        self.drawn.show("", ())

    def _show(self) -> None:
        session = self.logic.session if self.logic is not None else None
        rows, is_current = self.logic.measuring.of(session) if self.logic is not None else ((), True)
        if bool(rows) != self._is_visible:
            self._is_visible = bool(rows)
            self.ui.measurementsSection.setVisible(self._is_visible)
            if self.logic is not None:
                self.logic.on_update()  # its width is known only once it is shown
        self._measured = rows
        measurements = session.task.measurements if rows else ()
        if measurements is not self._measurements:
            self._start(measurements)
        if not rows:
            self.drawn.show("", ())
            return
        self._fit(rows)
        for row, measured in enumerate(rows):
            if self._shown[row] != (measured, is_current):
                self._write(row, measured, is_current)
        self._draw()

    def _start(self, measurements: Sequence[Measurement]) -> None:
        self._measurements = measurements
        self.table.setRowCount(0)
        self.table.setRowCount(len(measurements))
        self._cells = [[qt.QTableWidgetItem("") for _ in self._headers] for _ in measurements]
        for row, measurement in enumerate(measurements):
            for column, cell in enumerate(self._cells[row]):
                self.table.setItem(row, column, cell)
            self._cells[row][NAME].setText(measurement.name)
        self._shown, self._widths = [()] * len(measurements), {}
        self.table.resizeRowsToContents()
        measure = self.table.fontMetrics()
        self._widest_name = max([measure.horizontalAdvance(m.name) for m in measurements], default=0)

    def _fit(self, rows: Sequence[Measured]) -> None:
        """Widths of the columns. Where names would be cut, first what is usual and then the interval are in the tooltip only;
        where that is not enough, names are broken into lines."""
        measure = self.table.fontMetrics()
        wide = lambda texts: max(measure.horizontalAdvance(text) for text in texts) + CELL_PX  # noqa: E731
        for column, text in ((VALUE, value_of), (INTERVAL, interval_of), (USUAL, usual_of)):
            longest = sorted({text(m) for m in rows}, key=len)[-2:]
            needed = wide([self._headers[column] + "  ", *longest])
            self._widths[column] = max(self._widths.get(column, 0), needed)
            if self.table.columnWidth(column) != self._widths[column]:
                self.table.setColumnWidth(column, self._widths[column])
        room = self.table.viewport().property("width") - self._widest_name - NAME_PX - self._widths[VALUE]
        with_interval = self._widths[INTERVAL] <= room
        with_usual = with_interval and self._widths[INTERVAL] + self._widths[USUAL] <= room and any(map(usual_of, rows))
        self.table.setColumnHidden(INTERVAL, not with_interval)
        self.table.setColumnHidden(USUAL, not with_usual)

    def _resized(self, column: int, *_) -> None:
        """There is other room for names: the panel, or a scroll bar that Qt adds after the rows, has changed."""
        if column == NAME:
            self._later.start(0)  # not now: Qt is in the middle of it

    def _fit_again(self) -> None:
        if self._measured:
            self._fit(self._measured)
            self.table.resizeRowsToContents()

    def _write(self, row: int, measured: Measured, is_current: bool) -> None:
        cells, before, self._shown[row] = self._cells[row], self._shown[row], (measured, is_current)
        if before[1:] != (is_current,):
            for cell in cells[VALUE:]:
                cell.setData(qt.Qt.ForegroundRole, None if is_current else self._grey())
                cell.setData(qt.Qt.FontRole, None if is_current else self._italic)  # in the selected row, grey is not seen
        if before[:1] == (measured,):
            return
        texts, hints = (value_of(measured), interval_of(measured), usual_of(measured)), self._hints(row, measured)
        for cell, text in zip(cells[VALUE:], texts):
            cell.setText(text)
        for cell, hint in zip(cells, hints):
            cell.setToolTip("".join(f"<p>{escape(line)}</p>" for line in hint if line))

    def _grey(self):
        return qt.QBrush(self.table.property("palette").color(qt.QPalette.Disabled, qt.QPalette.Text))

    def _hints(self, row: int, measured: Measured) -> tuple[list[str], ...]:
        """Lines for the tooltip of each column; that of the name has all that a narrow panel hides."""
        measurement, why = self._measurements[row], measured.reason
        interval, usual = interval_of(measured), usual_of(measured)
        if not why and measured.interval_reason:
            why = measured.interval_reason if interval else self._no_interval.format(why=measured.interval_reason)
        facts = [f"{self._headers[INTERVAL]}: {interval}" if interval else "", why]
        facts.append(f"{self._headers[USUAL]}: {usual} ({measured.source})" if usual else "")
        can_be_drawn = self._press_again if measurement.kind else ""
        return [measurement.name, measurement.definition, *facts, can_be_drawn], [why], [why], [measured.source]

    # --- the selected one --------------------------------------------------------------------------------------------

    @property
    def current(self) -> Measurement | None:
        """The measurement that is selected."""
        rows = self.table.selectionModel().selectedRows()
        return self._measurements[rows[0].row()] if len(rows) and self._measurements else None

    def _selected(self) -> None:
        self._just_selected = True
        self._draw()

    def _clicked(self, *_) -> None:
        """A click on the row that was selected before takes the selection away."""
        if not self._just_selected:
            self.table.clearSelection()
        self._just_selected = False

    def _draw(self) -> None:
        """On the image, where its points are now."""
        session, measurement = self.logic.session if self.logic is not None else None, self.current
        if session is None or measurement is None:
            self.drawn.show("", ())
        else:
            self.drawn.show(measurement.name, places_of(measurement, {p.name: p.position for p in session.points}))


def value_of(measured: Measured) -> str:
    """The value with its unit."""
    return NO_VALUE if measured.value is None else _number(measured.value, measured.unit) + _spaced(measured.unit)


def interval_of(measured: Measured) -> str:
    """Both ends; empty where there is none."""
    if measured.value is None or measured.low is None or measured.high is None:
        return ""
    return f"{_number(measured.low, measured.unit)} … {_number(measured.high, measured.unit)}"


def usual_of(measured: Measured) -> str:
    """What is usual, with its standard deviation; empty where nobody says."""
    if measured.usual is None:
        return ""
    return f"{measured.usual:g}" if measured.usual_sd is None else f"{measured.usual:g} ± {measured.usual_sd:g}"


def _number(value: float, unit: str) -> str:
    """A ratio has no unit, and is about 1."""
    return f"{value:.1f}" if unit else f"{value:.2f}"


def _spaced(unit: str) -> str:
    return unit if unit in ("°", "") else f" {unit}"
