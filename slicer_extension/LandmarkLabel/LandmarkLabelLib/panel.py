"""The module panel: buttons, one row per landmark, and a timer that fetches what the background has done.

Written in the subset of Qt that PythonQt and PySide6 share: setters, ``signal.connect``, no ``exec``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from .logic import LandmarkLogic
from .markups import LandmarkNode
from .options import Options
from .tabs import OptionsTab, ReviewTab, TrainTab, message_of_transform
from .volumes import CaseVolume
from .wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point

POLL_MS = 50
COLOURS = {UNSET: "#8a94a0", PREDICTED: "#e8710a", PLACED: "#2f7bf6", ACCEPTED: "#1a9c4b", ABSENT: "#a855f7"}
GOOD, BAD = "#1a9c4b", "#d93636"  # readable on light and dark


class LandmarkPanel:
    """Fills a layout with the panel and drives the logic.

    Args:
        layout: of the module widget.
        folder: where options, sessions and unsent submissions are kept.
        translate: marks texts that people see, for translation.
        shortcut_parent: window in which the shortcuts work.
    """

    def __init__(self, layout, folder: Path, translate: Callable[[str], str] = str, shortcut_parent=None):
        self.layout, self.folder, self._ = layout, Path(folder), translate
        self.options = Options.load(self.folder / "options.json")
        self.scene = slicer.mrmlScene
        self.logic: LandmarkLogic | None = None
        self.node: LandmarkNode | None = None
        self.volume = CaseVolume(self.scene)
        self.states = {
            UNSET: self._("to do"),
            PREDICTED: self._("proposed"),
            PLACED: self._("placed"),
            ACCEPTED: self._("accepted"),
            ABSENT: self._("absent"),
        }
        self._listed: dict[str, list[str]] = {"models": [], "strategies": []}  # in the combo boxes
        self._due = False  # something to show has changed
        self._warned: list[str] = []  # what the last try to submit has warned of
        self._buttons: dict[str, object] = {}
        self._shortcuts: list = []
        self._build_server()
        self._build_case()
        self._build_table()
        self._build_actions(shortcut_parent)
        self.message = qt.QLabel("")
        self.message.setWordWrap(True)
        layout.addWidget(self.message)
        self._build_tabs()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.timeout.connect(self.tick)
        self.timer.start()
        self.refresh()

    def close(self) -> None:
        """Stop the timer, the background, the shortcuts and the observers; the state is on disk."""
        self.timer.stop()
        self.options.save(self.folder / "options.json")
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
        self.url = qt.QLineEdit(self.options.url)
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
        self.strategy.setToolTip(self._("How the next case is chosen"))
        row.addWidget(self.strategy)
        self._button("next_case", self._("Next case"), lambda: self.logic.next_case(self._strategy()), row)
        self._button("mine", self._("Keep mine"), lambda: self.logic.resolve(True), row)
        self._button("theirs", self._("Take theirs"), lambda: self.logic.resolve(False), row)
        self._add(row)
        self.case = qt.QLabel("")
        self.case.setWordWrap(True)
        self.layout.addWidget(self.case)

    def _build_table(self) -> None:
        columns = [self._("landmark"), self._("state"), self._("expected error"), self._("by")]
        self.table = qt.QTableWidget(0, len(columns))
        self.table.setHorizontalHeaderLabels(columns)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(24)
        self.table.setColumnHidden(3, True)
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
            ("unlock", self._("Unlock (U)"), "U", lambda: self._with_current(self.logic.unlock)),
            ("accept_all", self._("Accept all (Shift+A)"), "Shift+A", lambda: self.logic.accept_all()),
            ("undo", self._("Undo (Ctrl+Z)"), "Ctrl+Z", lambda: self.logic.undo()),
            ("submit", self._("Submit + next case (Ctrl+Enter)"), "Ctrl+Return", self.submit),
        )
        grid = qt.QGridLayout()
        for number, (key, text, shortcut, act) in enumerate(actions):
            button = self._button(key, text, act)
            last = key == "submit"
            grid.addWidget(button, number // 2, 0 if last else number % 2, 1, 2 if last else 1)
            self._shortcut(shortcut, button.click, parent)
        self._shortcut("Escape", self.stop_placing, parent)
        self._add(grid)

    def _build_tabs(self) -> None:
        def make_button(key: str, text: str, act: Callable[[LandmarkLogic], object], row=None):
            return self._button(key, text, lambda: act(self.logic), row)

        self.training = TrainTab(self._, make_button, self.options)
        self.review = ReviewTab(self._, make_button)
        self.choices = OptionsTab(self._, make_button, self.options, self.scene)
        self.tabs = qt.QTabWidget()
        self.tabs.addTab(self.training.widget, self._("Training"))
        self.tabs.addTab(self.review.widget, self._("Review"))
        self.tabs.addTab(self.choices.widget, self._("Options"))
        self.layout.addWidget(self.tabs)

    def _shortcut(self, keys: str, act: Callable[[], object], parent) -> None:
        if parent is not None:
            made = qt.QShortcut(qt.QKeySequence(keys), parent)
            made.activated.connect(act)
            self._shortcuts.append(made)

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
        self.options.url = str(self.url.property("text")).strip()
        self.options.save(self.folder / "options.json")
        token = str(self.choices.token.property("text"))
        self.use(LandmarkLogic(self.options, self.folder, self._mark_due, token, self._))
        self.logic.connect()

    def use(self, logic: LandmarkLogic) -> None:
        """Show and drive this logic from now on."""
        self.logic = logic
        logic.blocked = lambda: message_of_transform(self._, self.volume.moved_by)

    def next_uncertain(self) -> None:
        """Select the point that most needs a look: a flagged one, else the one whose place would tell most about the others."""
        session = self.logic.session
        left = session.doubtful()
        flagged = [n for n in left if session.point(n).flagged]
        name = next(iter(flagged or [n for n in left if n == session.next] or left), None)
        if name is None:
            self.logic.message = self._("every point has been looked at: submit the case")
        else:
            self.select(name)
        self._mark_due()

    def place_again(self) -> None:
        """The next click in a view places the selected landmark; Escape leaves it where it was."""
        name = self.current
        if name is not None and not self.logic.is_locked(name):
            self.logic.message = self._("click in a view to place {name}; Escape leaves it").format(name=name)
            self.node.start_placing(name)

    def stop_placing(self) -> None:
        """Leave place mode; the point is where it was."""
        if self.node is not None:
            self.node.stop_placing()

    def submit(self) -> None:
        """Submit, unless something looks wrong that nobody has confirmed by submitting again."""
        warnings = self.logic.warnings()
        if warnings and warnings != self._warned:
            self._warned = warnings
            self.logic.message = "; ".join(warnings) + ". " + self._("Submit again if it is right.")
            self._mark_due()
        elif self.logic.submit():
            self._warned = []
            self.logic.next_case(self._strategy())

    @property
    def current(self) -> str | None:
        """Name of the selected landmark."""
        rows = self.table.selectionModel().selectedRows() if self.logic and self.logic.task else []
        return self.logic.task.names[rows[0].row()] if len(rows) else None

    def select(self, name: str) -> None:
        """Select a row, which jumps to its point."""
        self.table.selectRow(self.logic.task.names.index(name))

    def _with_current(self, act: Callable[[str], object], forward: bool = False) -> None:
        name = self.current
        if name is None:
            return
        before = self.logic.session.points
        act(name)
        if forward and self.logic.session.points is not before and self.logic.session.doubtful():
            self.next_uncertain()

    def _press(self, act: Callable[[], object]) -> None:
        act()
        self.refresh()

    def _row_selected(self) -> None:
        if self.node is not None and self.current is not None:
            self.node.jump_to(self.current)

    def _model_chosen(self, index: int) -> None:
        if self.logic is not None and 0 <= index < len(self._listed["models"]):
            self.logic.model = self._listed["models"][index]

    def _strategy(self) -> str:
        index = self.strategy.property("currentIndex")
        return self._listed["strategies"][index] if 0 <= index < len(self._listed["strategies"]) else "first"

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
        self.server_status.setStyleSheet(f"color: {GOOD if online else BAD}")
        for key, button in self._buttons.items():
            alone = key in ("next_case", "train", "open_case", "upload")
            button.setEnabled(key == "connect" or bool(ready and (session is not None or alone)))
        for key in ("mine", "theirs"):
            self._buttons[key].setVisible(bool(logic is not None and logic.conflict is not None))
        if ready:
            self._list(self.models, "models", list(logic.models))
            self._list(self.strategy, "strategies", logic.strategies)
        for tab in (self.training, self.review, self.choices):
            tab.refresh(logic)
        self.message.setText(logic.message if logic else "")
        if session is None:
            return
        done = self._("{n}/{of} reviewed").format(n=session.reviewed, of=len(session.points))
        self.case.setText(f"{session.image_id}: {done}" + (f" ({session.reason})" if session.reason else ""))
        self._show_image()
        self._show_points(session.points)

    def _list(self, combo, key: str, names: list[str]) -> None:
        if self._listed[key] != names:
            self._listed[key] = names
            combo.clear()
            combo.addItems(names)

    def _show_image(self) -> None:
        session, image = self.logic.session, self.logic.image
        wanted = (session.image_id, image) if image is not None else None
        if wanted is not None and wanted != self.volume.shown and not self.volume.show(image, session.image_id):
            self.logic.message = self._("{file} cannot be read").format(file=image.name)
            self.message.setText(self.logic.message)

    def _show_points(self, points: list[Point]) -> None:
        self._ensure_node()
        self.node.show(points)
        if self.table.property("rowCount") != len(points):
            self.table.setRowCount(len(points))
            for row in range(len(points)):
                for column in range(4):
                    self.table.setItem(row, column, qt.QTableWidgetItem(""))
        authors = self.logic.review.authors
        self.table.setColumnHidden(3, not authors)
        for row, point in enumerate(points):
            error = "" if point.expected_error_mm is None else f"{point.expected_error_mm:.1f} {point.unit}"
            state = self.states[point.state] + (" ?" if point.flagged else "")
            for column, text in enumerate((point.name, state, error, authors.get(point.name, ""))):
                item = self.table.item(row, column)
                if item.text() != text:
                    item.setText(text)
                    if column == 1:
                        item.setForeground(qt.QBrush(qt.QColor(COLOURS[point.state])))

    def _ensure_node(self) -> None:
        """The list of points of this task: ours, or that of a scene somebody has loaded meanwhile."""
        if self.node is not None and self.node.is_in_scene and self.node.task == self.logic.task:
            return
        if self.node is not None:
            self.node.close()
        found = LandmarkNode.find(self.scene, self.logic.task)
        self.node = LandmarkNode(self.scene, self.logic.task, self._corrected, self._left_alone, found)

    def _corrected(self, name: str, position: tuple, final: bool) -> None:
        """A person moved or placed a point in a view."""
        if self.logic.session.point(name).state == ACCEPTED:
            self._mark_due()  # put back where it was accepted
            return
        if not final and self.node.is_dragging and self.options.follow_drag:
            self.node.jump_to(name)
        self.logic.correct(name, position, final)

    def _left_alone(self, name: str) -> None:
        """Place mode was left without a click."""
        self.logic.message = self._("{name} is where it was").format(name=name)
        self._mark_due()
