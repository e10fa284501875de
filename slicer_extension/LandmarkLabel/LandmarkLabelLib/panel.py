"""The module panel: what its buttons and keys do, and a timer that fetches what the background has done.

The widgets are in ``Resources/UI/LandmarkLabel.ui``. Written in the subset of Qt that PythonQt and PySide6 share: setters,
``property``, ``signal.connect``, no ``exec``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import qt
import slicer

from .batch_section import BatchSection
from .confirming import Confirming
from .local_section import LocalSection
from .local_server import LocalServer
from .logic import LandmarkLogic
from .markup_helpers import OtherVersion, Ring
from .markups import LandmarkNode
from .measurement_section import MeasurementSection
from .options import Options, address_of
from .outbox import Entry
from .panel_view import PanelView, why_blocked
from .placing import LET_GO_S, POLL_BUSY_MS, Placing
from .sections import OptionsSection, ReviewSection, TrainSection
from .session import Session
from .table import LandmarkTable
from .unsent_list import UnsentList
from .volumes import CaseVolume
from .widgets import TEXTS, TYPED, is_typing, load_ui, put_text, slicer_python, startup_environment, text_of
from .wire import ACCEPTED

POLL_MS = 50


class LandmarkPanel(PanelView, UnsentList, Confirming, Placing):
    """Fills a layout with the panel and drives the logic.

    Args:
        layout: of the module widget.
        folder: where options, sessions and unsent submissions are kept.
        translate: marks texts that people see, for translation.
        shortcut_parent: window in which the shortcuts work.
    """

    def __init__(self, layout, folder: Path, translate: Callable[[str], str] = str, shortcut_parent=None):
        self.folder, self._ = Path(folder), translate
        self.options = Options.load(self.folder / "options.json")
        self.scene = slicer.mrmlScene
        self.logic: LandmarkLogic | None = None
        self.node: LandmarkNode | None = None
        self.volume, self.theirs, self.ring = CaseVolume(self.scene), OtherVersion(self.scene), Ring(self.scene)
        self.widget, self.ui = load_ui()
        layout.addWidget(self.widget)
        self._texts = self._said_of_server()
        self._listed: dict[str, list[str]] = {"models": [], "strategies": []}  # in the combo boxes
        self._due = True  # something to show has changed
        self._session: Session | None = None  # that is shown
        self._asked = ""  # what a second press confirms
        self._doubted = ("", "")  # image and landmark where the last "next doubtful" has led
        self._fault = ""  # why there is no logic
        self._busy: bool | None = None  # whether the busy sign is shown; None before it was set
        self._hides = False  # whether the landmarks but the selected one are hidden
        self._rows: list[Entry | Session] = []  # in the list of what is unsent
        self._shortcuts: list = []
        self._connections: list = []  # signals and what they call, to be taken apart again
        self.table = LandmarkTable(self.ui, translate, self._row_selected)
        self._connect_widgets()
        self._make_shortcuts(shortcut_parent)
        parts = self.ui, translate, self.options, self._on
        self.training, self.review = TrainSection(*parts), ReviewSection(*parts)
        self.batch, self.local = BatchSection(*parts, self.scene), LocalSection(*parts, self, self._local_server)
        self.choices, self.measurements = OptionsSection(*parts, self.scene), MeasurementSection(*parts, self.scene)
        self.timer = qt.QTimer(self.widget)  # of the panel's widget: a panel that is gone asks for nothing more
        self.timer.setInterval(POLL_MS)
        self._connect(self.timer.timeout, self.tick)
        self.timer.start()
        self.refresh()

    def close(self) -> None:
        """Stop the timer, the background, the shortcuts and the observers; the state is on disk."""
        self.timer.stop()
        self._read_lines()
        self._save_options()
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
        for signal, call in self._connections:  # else they would keep this panel after the module is loaded again
            signal.disconnect(call)
        self._connections = []
        self._take_points_away()
        self.ring.show(None)
        self.theirs.show((), "")
        self.local.close()
        self.batch.close()
        self.choices.close()
        self.measurements.close()
        if self.logic is not None:
            self.logic.close()

    def _save_options(self) -> None:
        with suppress(OSError):  # what is lost is told where a click would be
            self.options.save(self.folder / "options.json")

    def set_shortcuts_enabled(self, enabled: bool) -> None:
        """Shortcuts work only while the module is shown."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(bool(enabled))

    def _local_server(self, say: Callable[[str], None]) -> LocalServer:
        return LocalServer(self.folder / "server", startup_environment(), say, slicer_python())

    # --- widgets -----------------------------------------------------------------------------------------------------

    def _connect_widgets(self) -> None:
        ui = self.ui
        put_text(ui.url, self.options.url)
        self._connect(ui.url.returnPressed, lambda: self._press(self.connect_server))
        self._connect(ui.token.returnPressed, lambda: self._press(self.connect_server))
        self._connect(ui.models.currentIndexChanged, self._model_chosen)
        presses = {
            ui.connectButton: self.connect_server,
            ui.trustButton: self._believe,
            ui.takeOverButton: self._take_over,
            ui.nextButton: lambda: self.logic.next_case(self._strategy()),
            ui.takePointButton: lambda: self._with_current(self.logic.take_theirs),
            ui.takeAllButton: lambda: self.logic.take_theirs(),
            ui.submitMineButton: self.submit_mine,
            ui.sendAgainButton: lambda: self._with_unsent(self.logic.send_again),
            ui.openUnsentButton: lambda: self._with_unsent(self.logic.open_unsent),
            ui.discardButton: self._discard,
            ui.predictButton: lambda: self.logic.predict(),
            ui.nextDoubtfulButton: self.next_doubtful,
            ui.acceptButton: self.accept,
            ui.replaceButton: self.place_again,
            ui.absentButton: lambda: self._with_current(self.logic.mark_absent, forward=True),
            ui.unlockButton: lambda: self._with_current(self.logic.unlock),
            ui.undoButton: lambda: self.logic.undo(),
            ui.redoButton: lambda: self.logic.redo(),
            ui.acceptAllButton: lambda: self._waits_for_click() or self.logic.accept_all(),
            ui.submitButton: self.submit,
            ui.cancelButton: self._cancel,
        }
        for button, act in presses.items():
            self._on(button, act)
        self._connect(ui.hideButton.toggled, self._hide)
        self._of_case = [
            *(ui.takePointButton, ui.takeAllButton, ui.submitMineButton, ui.predictButton, ui.nextDoubtfulButton),
            *(ui.acceptButton, ui.replaceButton, ui.absentButton, ui.unlockButton, ui.undoButton, ui.redoButton),
            *(ui.acceptAllButton, ui.submitButton, ui.hideButton, ui.filter),
        ]

    def _hide(self, down: bool) -> None:
        self._hides = bool(down)
        if down and self.current is None and self.logic is not None:
            self.logic.message = self._("select a landmark first")
        self._mark_due()

    def _on(self, button, act: Callable[[], object]) -> None:
        self._connect(button.clicked, lambda *_: self._press(act))

    def _connect(self, signal, call: Callable) -> None:
        signal.connect(call)
        self._connections.append((signal, call))

    def _make_shortcuts(self, parent) -> None:
        """For the whole case. Slicer's views have keys of their own: b, f, g, r, t, v."""
        ui = self.ui
        keys = {
            "P": ui.predictButton,
            "N": ui.nextDoubtfulButton,
            "A": ui.acceptButton,
            "L": ui.replaceButton,
            "X": ui.absentButton,
            "U": ui.unlockButton,
            "H": ui.hideButton,
            "Shift+A": ui.acceptAllButton,
            "Ctrl+Z": ui.undoButton,
            "Ctrl+Y": ui.redoButton,
            "Ctrl+Shift+Z": ui.redoButton,
            "Ctrl+Return": ui.submitButton,
            "Ctrl+Enter": ui.submitButton,  # of the keypad
        }
        if parent is None:
            return
        for text, button in keys.items():
            kinds = TEXTS if "Ctrl" in text else TYPED
            self._shortcut(text, lambda button=button, kinds=kinds: None if is_typing(kinds) else button.click(), parent)
        self._shortcut("Escape", self.stop_placing, parent)

    def _shortcut(self, keys: str, act: Callable[[], object], parent) -> None:
        made = qt.QShortcut(qt.QKeySequence(keys), parent)
        made.setAutoRepeat(keys in ("Ctrl+Z", "Ctrl+Y", "Ctrl+Shift+Z"))
        self._connect(made.activated, act)
        self._shortcuts.append(made)

    # --- what people do ----------------------------------------------------------------------------------------------

    def connect_server(self) -> None:
        """Start over with the server whose address is in the field, unless points would be lost that cannot be kept.

        While it does not answer, the case that is open stays.
        """
        if self.logic is not None and self.logic.keeps_case(address_of(text_of(self.ui.url)), text_of(self.ui.token)):
            self.logic.try_again(self._start_over)
        else:
            self._start_over()

    def _start_over(self) -> None:
        self._due = True
        if self.logic is not None:
            if not self.logic.leave():
                return
            self.logic.close()
        self.options.url = address_of(text_of(self.ui.url))
        self._save_options()
        place = self.local.place_of(self.options.url)
        try:
            logic = LandmarkLogic(self.options, self.folder, self._mark_due, text_of(self.ui.token), self._, place)
        except OSError as error:
            self.logic, why = None, error.strerror
            self._fault = self._("{folder} cannot be written ({why}): nothing could be kept").format(folder=self.folder, why=why)
            return
        self._fault = ""
        self.use(logic)
        self.logic.connect()

    def use(self, logic: LandmarkLogic) -> None:
        """Show and drive this logic from now on."""
        logic.model = self.logic.model if self.logic is not None else logic.model  # as chosen, if this server has it
        self.logic, self._asked = logic, ""
        logic.blocked = lambda: why_blocked(self._, logic, self.volume)
        logic.is_inside, logic.on_surface = self.volume.has, self.volume.surface.nearest

    def _cancel(self) -> None:
        self.batch.stop()
        self.logic.cancel()

    def next_doubtful(self) -> None:
        """Select the point that most needs a look: a flagged one, else the one whose place would tell most about the others.

        Pressed again, the one after it.
        """
        session = self.logic.session
        left = session.doubtful()
        flagged = [p.name for p in session.points if p.flagged and p.state != ACCEPTED]
        in_order = [*dict.fromkeys([*flagged, *(n for n in left if n == session.next), *left])]
        if not in_order:
            self.logic.message = self._("every point has been looked at: submit the case")
        else:
            here = self._doubted == (session.image_id, self.current) and self.current in in_order
            name = in_order[(in_order.index(self.current) + 1) % len(in_order) if here else 0]
            self._doubted = (session.image_id, name)
            self.select(name)
        self._mark_due()

    def accept(self) -> None:
        """The person agrees with the selected point; not with one that waits for a click."""
        if not self._waits_for_click():
            self._with_current(self.logic.accept, forward=True)

    @property
    def current(self) -> str | None:
        """Name of the selected landmark."""
        return self.table.current if self.logic is not None and self.logic.task is not None else None

    def select(self, name: str) -> None:
        """Select a landmark, which jumps to its point."""
        self.table.select(name)

    def _with_current(self, act: Callable[[str], object], forward: bool = False) -> None:
        name = self.current
        if name is None:
            self.logic.message = self._("select a landmark first")
            return
        before = self.logic.session.points
        act(name)
        if forward and self.logic.session.points is not before and self.logic.session.doubtful():
            self.next_doubtful()

    def _press(self, act: Callable[[], object]) -> None:
        self._read_lines()
        asked = self._asked
        try:
            act()
            if self._asked == asked:
                self._asked = ""  # whatever else is pressed withdraws the question
        except OSError as error:  # of a path that no file system takes, say
            text = ": ".join(filter(None, (str(error.filename or "")[:200], error.strerror or str(error))))
            self._fault = text if self.logic is None else ""
            if self.logic is not None:
                self.logic.message = text
        self.refresh()

    def _read_lines(self) -> None:
        self.choices.read()
        self.local.read()

    def _row_selected(self) -> None:
        if self.node is not None and self.current is not None:
            if self.node.placing not in (None, self.current):
                self.node.stop_placing()  # a click is meant for what is selected
            self.node.jump_to(self.current)
        self._mark_due()

    def _model_chosen(self, index: int) -> None:
        if self.logic is not None and 0 <= index < len(self._listed["models"]):
            self.logic.model = self._listed["models"][index]

    def _strategy(self) -> str:
        index = self.ui.strategy.property("currentIndex")
        return self._listed["strategies"][index] if 0 <= index < len(self._listed["strategies"]) else "first"

    # --- what is shown ------------------------------------------------------------------------------------------

    def _mark_due(self) -> None:
        self._due = True

    def tick(self) -> None:
        """Fetch answers and show what has changed; called by the timer, so a drag refreshes at its pace and no faster."""
        busy = False
        if self.logic is not None:
            self.logic.poll()
            if self.logic.worker.at_work:
                time.sleep(LET_GO_S)
                self.logic.poll()
            busy = self.logic.worker.at_work
        self.local.poll()
        self.batch.poll()
        interval = POLL_BUSY_MS if busy else POLL_MS
        if self.timer.property("interval") != interval:
            self.timer.setInterval(interval)
        if self.volume.is_gone or (self.node is not None and not self.node.is_in_scene):
            self._due = True  # somebody has closed the scene
        if self._due:
            self.refresh()
        else:
            self._show_busy()

    def refresh(self) -> None:
        """Show the state."""
        self._due = False
        logic = self.logic
        session = logic.session if logic is not None else None
        if session is not self._session:
            self._session, self._asked = session, ""
            if self.node is not None:
                self.node.forget()
        if session is not None:
            self._ensure_node()
            if said := self.node.mend():
                logic.message = said
            self._show_image()
        self._show_server()
        self._show_case()
        for section in (self.training, self.review, self.batch, self.local, self.choices, self.measurements):
            section.refresh(logic)
        if session is not None:
            self._show_points()
        else:
            self._show_no_case()
        self._show_words()
