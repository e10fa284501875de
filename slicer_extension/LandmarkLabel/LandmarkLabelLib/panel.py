"""The module panel: buttons, one row a landmark, and a timer that fetches what the background has done.

Written in the subset of Qt that PythonQt and PySide6 share: setters, ``signal.connect``, no ``exec``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from .logic import LandmarkLogic
from .markups import LandmarkNode
from .wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point

POLL_MS = 50
STATES = {UNSET: "to do", PREDICTED: "proposed", PLACED: "placed", ACCEPTED: "accepted", ABSENT: "absent"}
COLOURS = {UNSET: "#8a94a0", PREDICTED: "#e8710a", PLACED: "#2563eb", ACCEPTED: "#15803d", ABSENT: "#6b21a8"}
COLUMNS = ("landmark", "state", "expected error")
STRATEGIES = ("first", "random")


class LandmarkPanel:
    """Fills a layout with the panel and drives the logic.

    Args:
        layout: of the module widget.
        folder: where sessions and unsent submissions are kept.
        translate: marks texts that people see, for translation.
        shortcut_parent: window in which the shortcuts work.
    """

    def __init__(self, layout, folder: Path, translate: Callable[[str], str] = str, shortcut_parent=None):
        self.layout, self.folder, self._ = layout, folder, translate
        self.logic: LandmarkLogic | None = None
        self.node: LandmarkNode | None = None
        self._listed: list[str] = []  # models in the combo box
        self._due = False  # something to show has changed
        self._buttons: dict[str, object] = {}
        self._shortcuts: list = []
        self._build_server()
        self._build_case()
        self._build_table()
        self._build_actions(shortcut_parent)
        self.message = qt.QLabel("")
        self.message.setWordWrap(True)
        layout.addWidget(self.message)
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.timeout.connect(self.tick)
        self.timer.start()
        self.refresh()

    def close(self) -> None:
        """Stop the timer, the background, the shortcuts and the observers; the state is on disk."""
        self.timer.stop()
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
        if self.node is not None:
            self.node.close()
        if self.logic is not None:
            self.logic.close()

    def set_shortcuts_enabled(self, enabled: bool) -> None:
        """Shortcuts work only while the module is shown."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(bool(enabled))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _build_server(self) -> None:
        row = qt.QHBoxLayout()
        self.url = qt.QLineEdit("http://127.0.0.1:8000")
        self.url.setToolTip(self._("Address of the LandmarkLabel server"))
        row.addWidget(self.url)
        self._button("connect", self._("Connect"), self.connect_server, row)
        self.models = qt.QComboBox()
        self.models.setToolTip(self._("Model that proposes the landmarks"))
        self.models.currentIndexChanged.connect(self._model_chosen)
        row.addWidget(self.models)
        self._add(row)
        self.server_status = qt.QLabel("")
        self.layout.addWidget(self.server_status)

    def _build_case(self) -> None:
        row = qt.QHBoxLayout()
        self.strategy = qt.QComboBox()
        for name in STRATEGIES:
            self.strategy.addItem(name)
        self.strategy.setToolTip(self._("How the next case is chosen"))
        row.addWidget(self.strategy)
        self._button("next_case", self._("Next case"), lambda: self.logic.next_case(STRATEGIES[self._strategy_index]), row)
        self._strategy_index = 0
        self.strategy.currentIndexChanged.connect(self._strategy_chosen)
        self._button("mine", self._("Keep mine"), lambda: self.logic.resolve(True), row)
        self._button("theirs", self._("Take theirs"), lambda: self.logic.resolve(False), row)
        self._button("train", self._("Train"), lambda: self.logic.train(10.0), row)
        self._add(row)
        self.case = qt.QLabel("")
        self.case.setWordWrap(True)
        self.layout.addWidget(self.case)

    def _build_table(self) -> None:
        self.table = qt.QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels([self._(c) for c in COLUMNS])
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.verticalHeader().setVisible(False)
        self.table.setMinimumHeight(240)
        self.table.itemSelectionChanged.connect(self._row_selected)
        self.layout.addWidget(self.table)

    def _build_actions(self, parent) -> None:
        actions = (
            ("predict", self._("Predict (P)"), "P", lambda: self.logic.predict()),
            ("uncertain", self._("Next uncertain (N)"), "N", self.next_uncertain),
            ("accept", self._("Accept (A)"), "A", lambda: self._with_current(self.logic.accept, forward=True)),
            ("replace", self._("Re-place (R)"), "R", self.place_again),
            ("absent", self._("Absent (X)"), "X", lambda: self._with_current(self.logic.mark_absent, forward=True)),
            ("undo", self._("Undo (Ctrl+Z)"), "Ctrl+Z", lambda: self.logic.undo()),
            ("submit", self._("Submit + next case (Ctrl+Enter)"), "Ctrl+Return", self.submit),
        )
        grid = qt.QGridLayout()
        for number, (key, text, shortcut, act) in enumerate(actions):
            button = self._button(key, text, act)
            last = key == "submit"
            grid.addWidget(button, number // 2 + (1 if last else 0), 0 if last else number % 2, 1, 2 if last else 1)
            if parent is not None:
                made = qt.QShortcut(qt.QKeySequence(shortcut), parent)
                made.activated.connect(button.click)
                self._shortcuts.append(made)
        self._add(grid)

    def _button(self, key: str, text: str, act: Callable[[], object], row=None):
        button = qt.QPushButton(text)
        button.clicked.connect(lambda *_: self._press(act))
        self._buttons[key] = button
        if row is not None:
            row.addWidget(button)
        return button

    def _add(self, layout) -> None:
        holder = qt.QWidget()
        layout.setContentsMargins(0, 0, 0, 0)
        holder.setLayout(layout)
        self.layout.addWidget(holder)

    # --- what people do ----------------------------------------------------------------------------------------------

    def connect_server(self) -> None:
        """Start over with the server whose address is in the field."""
        if self.logic is not None:
            self.logic.close()
        address = self.url.property("text")
        self.logic = LandmarkLogic(address, self.folder, self._author(), self._mark_due)
        self.logic.connect()

    def next_uncertain(self) -> None:
        """Select the point that most needs a look: what the server says tells most, else the most doubtful one."""
        session = self.logic.session
        left = session.doubtful()
        unset = [n for n in left if session.point(n).state == UNSET]
        name = session.next if unset and session.next in left else (left[0] if left else None)
        if name is None:
            self.logic.message = self._("every point has been looked at: submit the case")
        else:
            self.select(name)
        self._mark_due()

    def place_again(self) -> None:
        """The next click in a view places the selected landmark."""
        name = self.current
        if name is not None:
            self.logic.message = self._("click in a view to place") + f" {name}"
            self.node.start_placing(name)

    def submit(self) -> None:
        """Submit, unless something looks wrong that nobody has confirmed by submitting again."""
        warnings = self.logic.warnings()
        if warnings and warnings != getattr(self, "_warned", None):
            self._warned = warnings
            self.logic.message = "; ".join(warnings) + ". " + self._("Submit again if it is right.")
            self._mark_due()
        elif self.logic.submit():
            self._warned = None
            self.logic.next_case(STRATEGIES[self._strategy_index])

    @property
    def current(self) -> str | None:
        """Name of the selected landmark."""
        rows = self.table.selectionModel().selectedRows() if self.logic and self.logic.task else []
        return self.logic.task.names[rows[0].row()] if len(rows) else None

    def select(self, name: str) -> None:
        """Select a row, which jumps to its point."""
        self.table.selectRow(self.logic.task.names.index(name))

    def _with_current(self, act: Callable[[str], object], forward: bool) -> None:
        name = self.current
        if name is None:
            return
        act(name)
        if forward and self.logic.session.doubtful():
            self.next_uncertain()

    def _press(self, act: Callable[[], object]) -> None:
        act()
        self.refresh()

    def _row_selected(self) -> None:
        if self.node is not None and self.current is not None:
            self.node.jump_to(self.current)

    def _model_chosen(self, index: int) -> None:
        if self.logic is not None and 0 <= index < len(self._listed):
            self.logic.model = self._listed[index]

    def _strategy_chosen(self, index: int) -> None:
        self._strategy_index = max(int(index), 0)

    def _author(self) -> str:
        import getpass

        return getpass.getuser()

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _mark_due(self) -> None:
        self._due = True

    def tick(self) -> None:
        """Fetch answers and show what has changed; called by the timer, so a drag refreshes at its pace and no faster."""
        if self.logic is not None:
            self.logic.poll()
        if self._due:
            self.refresh()

    def refresh(self) -> None:
        """Show the state."""
        self._due = False
        logic, session = self.logic, self.logic.session if self.logic else None
        ready = bool(logic is not None and logic.task is not None)
        online = bool(logic is not None and logic.online)
        self.server_status.setText(self._("connected") if online else self._("not connected"))
        self.server_status.setStyleSheet(f"color: {'#15803d' if online else '#b91c1c'}")
        for key, button in self._buttons.items():
            button.setEnabled(key == "connect" or bool(ready and (session is not None or key in ("next_case", "train"))))
        for key in ("mine", "theirs"):
            self._buttons[key].setVisible(bool(logic is not None and logic.conflict is not None))
        if ready and self._listed != list(logic.models):
            self._listed = list(logic.models)
            self.models.clear()
            for name in logic.models:
                self.models.addItem(name)
        self.message.setText(logic.message if logic else "")
        if session is None:
            return
        done = f"{session.reviewed}/{len(session.points)} " + self._("reviewed")
        self.case.setText(f"{session.image_id}: {done}" + (f" ({session.reason})" if session.reason else ""))
        self._show_points(session.points)

    def _show_points(self, points: list[Point]) -> None:
        if self.node is None or self.node.task != self.logic.task:
            self.node = LandmarkNode(slicer.mrmlScene, self.logic.task, self._corrected)
        self.node.show(points)
        if self.table.property("rowCount") != len(points):
            self.table.setRowCount(len(points))
            for row in range(len(points)):
                for column in range(len(COLUMNS)):
                    self.table.setItem(row, column, qt.QTableWidgetItem(""))
        for row, point in enumerate(points):
            error = "" if point.expected_error_mm is None else f"{point.expected_error_mm:.1f} mm"
            texts = point.name, self._(STATES[point.state]) + (" ?" if point.flagged else ""), error
            for column, text in enumerate(texts):
                item = self.table.item(row, column)
                if item.text() != text:
                    item.setText(text)
                    if column == 1:
                        item.setForeground(qt.QBrush(qt.QColor(COLOURS[point.state])))

    def _corrected(self, name: str, position: tuple, final: bool) -> None:
        """A person moved or placed a point in a view."""
        if self.logic.session.point(name).state == ACCEPTED:
            self._mark_due()  # put back where it was accepted
            return
        self.logic.correct(name, position, final)
