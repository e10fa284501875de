"""The list of landmarks: one row each, what is known of it, and below it the definition of the one that is selected."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import qt

from .widgets import state_icon
from .wire import ABSENT, ACCEPTED, PLACED, PREDICTED, STATES, UNSET, Point, Task

NAME, STATE, ERROR, THEIRS, WHO = range(5)  # columns
ALL, TO_DO, DOUBTFUL = range(3)  # filters
PICTURE_PX = 96
ICON_PX, CELL_PX, NAME_PX = 28, 14, 18  # of an icon with its distance, of a cell around its text, of one with a name


class LandmarkTable:
    """The table, its filter, and the definition below.

    Args:
        ui: the panel's widgets by name.
        translate: for texts that people see.
        selected: called when a person selects a row.
    """

    def __init__(self, ui, translate: Callable[[str], str], selected: Callable[[], None]):
        self.ui, self.table, self._ = ui, ui.table, translate
        self.words = {
            UNSET: translate("to do"),
            PREDICTED: translate("proposed"),
            PLACED: translate("placed"),
            ACCEPTED: translate("accepted"),
            ABSENT: translate("absent"),
        }
        self._icons = {state: state_icon(state) for state in STATES}
        self._headers = [translate(text) for text in ("landmark", "state", "error", "theirs", "by")]
        self._expected, self._of_person = translate("expected error {error}"), translate("placed by {who}")
        self._doubt, self._other = translate("the others contradict it"), translate("the other version: {apart}")
        self.task: Task | None = None
        self._shown: list[tuple] = []  # what each row shows
        self._cells: list[list] = []  # row by row
        self._widest_name, self._is_narrow, self._is_tight = 0, False, False
        self._selected = selected
        self._quiet = False
        self.table.setColumnCount(len(self._headers))
        self.table.setHorizontalHeaderLabels(self._headers)
        header = self.table.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column in (STATE, ERROR, THEIRS, WHO):
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)  # to what ``_fit`` finds: Qt would measure every cell
        self.table.verticalHeader().setVisible(False)
        self.table.setTextElideMode(qt.Qt.ElideMiddle)  # of names that no panel is wide enough for
        self.table.itemSelectionChanged.connect(self._row_selected)
        ui.filter.addItems([translate(text) for text in ("all landmarks", "to do", "doubtful")])
        ui.filter.currentIndexChanged.connect(lambda *_: self._filter())
        self._points: Sequence[Point] = ()

    def show(self, task: Task, points: Sequence[Point], authors: Mapping[str, str], theirs: Mapping[str, Point]) -> None:
        """Bring the rows to this state; only what differs is written."""
        if task is not self.task:
            self._start(task)
        self._points = points
        self._fit(points, authors, theirs)
        self.table.setColumnHidden(WHO, not authors or self._is_narrow)
        self.table.setColumnHidden(THEIRS, not theirs or self._is_tight)
        self.table.setColumnHidden(ERROR, bool(theirs) or self._is_tight)
        for row, point in enumerate(points):
            wanted = (point, authors.get(point.name, ""), theirs.get(point.name))
            if wanted != self._shown[row]:
                self._shown[row] = wanted
                self._write(row, *wanted)
        self._filter()
        self._define()

    def clear(self) -> None:
        """No case is open: of the one before nothing is shown."""
        if self.task is not None:
            self.task, self._points, self._shown, self._cells = None, (), [], []
            self._quiet = True
            self.table.setRowCount(0)
            self._quiet = False
        self.ui.definitionFrame.setVisible(False)

    def _start(self, task: Task) -> None:
        self.task = task
        self._quiet = True
        self.table.setRowCount(0)
        self.table.setRowCount(len(task.names))
        self._cells = [[qt.QTableWidgetItem("") for _ in self._headers] for _ in task.names]
        for row, name in enumerate(task.names):
            for column, cell in enumerate(self._cells[row]):
                self.table.setItem(row, column, cell)
            self._cells[row][NAME].setText(name)
        self._shown = [()] * len(task.names)
        measure = self.table.fontMetrics()
        self._widest_name = max(measure.horizontalAdvance(name) for name in task.names)
        self._quiet = False

    def _fit(self, points: Sequence[Point], authors: Mapping[str, str], theirs: Mapping[str, Point]) -> None:
        """Widths of the columns. Where names would be cut, the state is told by its icon alone; its word, and who placed the
        point, are in the tooltip and below the table."""
        measure = self.table.fontMetrics()
        wide = lambda texts: max(measure.horizontalAdvance(text) for text in ("", *texts)) + CELL_PX  # noqa: E731
        apart = [self._apart(p, theirs[p.name]) for p in points if p.name in theirs]
        texts = {
            ERROR: sorted({error_of(p) for p in points}, key=len)[-2:],
            THEIRS: sorted(apart, key=len)[-2:],
            WHO: sorted(set(authors.values()), key=len)[-2:],
        }
        widths = {column: wide([self._headers[column] + "  ", *found]) for column, found in texts.items()}
        in_words = ICON_PX + wide([f"{word} ?" for word in self.words.values()])
        shown = (widths[THEIRS] if theirs else widths[ERROR]) + widths[WHO] * bool(authors)
        room = self.table.viewport().property("width") - self._widest_name - NAME_PX
        narrow = in_words + shown > room
        widths[STATE] = ICON_PX + wide([" ?"]) if narrow else in_words
        value = THEIRS if theirs else ERROR
        self._is_tight = widths[STATE] + widths[value] > room  # then the name alone stays, and the tooltip has the rest
        for column, width in widths.items():
            if self.table.columnWidth(column) != width:
                self.table.setColumnWidth(column, width)
        if narrow != self._is_narrow:
            self._is_narrow = narrow
            self._shown = [()] * len(self._shown)
            self.table.horizontalHeaderItem(STATE).setText("" if narrow else self._headers[STATE])

    def _write(self, row: int, point: Point, who: str, theirs: Point | None) -> None:
        cells, hint = self._cells[row], self._hint(point, who, theirs)
        cells[STATE].setIcon(self._icons[point.state])
        cells[STATE].setText(("" if self._is_narrow else self.words[point.state]) + (" ?" if point.flagged else ""))
        cells[ERROR].setText(error_of(point))
        cells[WHO].setText(who)
        cells[THEIRS].setText("" if theirs is None else self._apart(point, theirs))
        for column in (NAME, STATE):
            cells[column].setToolTip(hint)

    def _apart(self, mine: Point, theirs: Point) -> str:
        """How far the other version is from this one."""
        if mine.position is None or theirs.position is None:
            return self.words[theirs.state]
        return f"{rounded(math.dist(mine.position, theirs.position))} {mine.unit}"

    def _hint(self, point: Point, who: str, theirs: Point | None) -> str:
        """What is known of a landmark, as the tooltip of its row."""
        facts = [self.words[point.state]]
        if error := error_of(point):
            facts.append(self._expected.format(error=error))
        if who:
            facts.append(self._of_person.format(who=who))
        if point.flagged:
            facts.append(self._doubt)
        if theirs is not None:
            facts.append(self._other.format(apart=self._apart(point, theirs)))
        text = f"<p><b>{escape(point.name)}</b>: {escape(', '.join(facts))}</p>"
        if definition := self.task.definitions.get(point.name):
            text += f"<p>{escape(definition)}</p>"
        if picture := self.task.pictures.get(point.name):
            content = base64.b64encode(picture[1]).decode()
            text += f'<p><img src="data:{picture[0]};base64,{content}" width="{2 * PICTURE_PX}"></p>'
        return text

    # --- selecting ---------------------------------------------------------------------------------------------------

    @property
    def current(self) -> str | None:
        """Name of the selected landmark."""
        rows = self.table.selectionModel().selectedRows()
        return self.task.names[rows[0].row()] if self.task is not None and len(rows) else None

    def select(self, name: str) -> None:
        """Select a landmark, also one that the filter hides, and bring its row into sight."""
        row = self.task.names.index(name)
        self.table.setRowHidden(row, False)
        self.table.selectRow(row)
        self.table.scrollToItem(self.table.item(row, NAME))

    def _row_selected(self) -> None:
        if not self._quiet:
            self._define()
            self._filter()
            self._selected()

    def _filter(self) -> None:
        which, current = self.ui.filter.property("currentIndex"), self.current
        for row, point in enumerate(self._points):
            hide = point.name != current and not wanted(point, which)
            if self.table.isRowHidden(row) != hide:
                self.table.setRowHidden(row, hide)

    def _define(self) -> None:
        """The selected landmark's definition and picture."""
        name = self.current
        point = next((p for p in self._points if p.name == name), None)
        if point is None:
            self.ui.definitionFrame.setVisible(False)
            return
        facts = [self.words[point.state], error_of(point)]
        if who := self._shown[self.task.names.index(name)][1]:
            facts.append(self._of_person.format(who=who))
        words = f"{name}: " + ", ".join(fact for fact in facts if fact)
        definition = self.task.definitions.get(name, "")
        self.ui.definition.setText(f"{words}. {definition}" if definition else f"{words}.")
        picture = self.task.pictures.get(name)
        self.ui.picture.setVisible(picture is not None)
        if picture is not None:
            drawn = qt.QPixmap()
            drawn.loadFromData(qt.QByteArray(picture[1]))
            self.ui.picture.setPixmap(drawn.scaledToWidth(PICTURE_PX, qt.Qt.SmoothTransformation))
        self.ui.definitionFrame.setVisible(True)


def wanted(point: Point, which: int) -> bool:
    """Whether a filter lists a landmark."""
    if which == TO_DO:
        return not point.by_person
    return which != DOUBTFUL or is_doubtful(point)


def is_doubtful(point: Point) -> bool:
    """Contradicted by the others, or nobody and nothing knows where it is."""
    return point.flagged or point.state == UNSET


def error_of(point: Point) -> str:
    """The expected error with its unit; empty where none is stated."""
    return "" if point.expected_error_mm is None else f"{rounded(point.expected_error_mm)} {point.unit}"


def rounded(distance: float) -> str:
    """To a tenth, and to a whole where a tenth says nothing."""
    return f"{distance:.1f}" if distance < 100 else f"{distance:.0f}"
