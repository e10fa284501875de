"""What is needed now and then, in sections below the landmarks: training, finished cases, options."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .logic import LandmarkLogic
from .options import Options, file_name
from .scene_nodes import HELPER
from .volumes import suffix_of, write
from .widgets import put_text, takes_folders, text_of, when_changed

MOST_CHARACTERS = 100  # of a case's name that is made of a node's


class Section:
    """Args:
    ui: the panel's widgets by name.
    translate: for texts that people see.
    options: what is kept.
    on: connects a button: (button, what it does).
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable):
        self.ui, self._, self.options, self.on = ui, translate, options, on
        self.logic: LandmarkLogic | None = None
        self._lines: list[tuple] = []  # widgets and the options that they show
        self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    def refresh(self, logic: LandmarkLogic | None) -> None:
        """Show the state."""
        self.logic = logic
        self._show()

    def _show(self) -> None:
        raise NotImplementedError

    def _keep(self, widget, name: str) -> None:
        """A line that shows an option and changes it."""
        put_text(widget, getattr(self.options, name))
        when_changed(widget, lambda text: setattr(self.options, name, text))
        self._lines.append((widget, name))

    def read(self) -> None:
        """Take the options as the lines have them: one for paths does not tell that it was emptied."""
        for widget, name in self._lines:
            setattr(self.options, name, text_of(widget))


class TrainSection(Section):
    """Start, stop and follow a training."""

    def _begin(self) -> None:
        ui = self.ui
        ui.minutes.setValue(self.options.minutes)
        ui.minutes.valueChanged.connect(lambda value: setattr(self.options, "minutes", float(value)))
        self.on(ui.trainButton, lambda: self.logic.train())
        self.on(ui.stopTrainingButton, lambda: self.logic.training.stop())
        self._texts = {
            "role": self._("training needs the role admin"),
            "none": self._("nothing was trained from here yet"),
            "published": self._("published"),
            "not": self._("not published"),
        }

    def _show(self) -> None:
        ui, logic = self.ui, self.logic
        training = logic.training if logic is not None else None
        running = bool(training is not None and training.is_running)
        may = bool(logic is not None and logic.task is not None and logic.may_train)
        ui.trainButton.setEnabled(may and not running)
        ui.stopTrainingButton.setEnabled(may and running)
        ui.trainingBar.setVisible(running)
        stats = training.stats if training is not None else {}
        if running:
            ui.trainingBar.setValue(training.percent)
            text = self._("{model} is being trained").format(model=training.model)
            text = ", ".join(x for x in (text, training.left()) if x)
        elif logic is not None and logic.task is not None and not logic.may_train:
            text = self._texts["role"]
        else:
            text = self._outcome(stats) if stats else self._texts["none"]
        if ui.trainingText.property("text") != text:
            ui.trainingText.setText(text)

    def _outcome(self, stats: dict) -> str:
        measured = stats.get("eval") or {}
        mre, unit = measured.get("mre_mm"), "px" if measured.get("unit") == "px" else "mm"
        how = self._("mean error {mre:.2f} {unit}").format(mre=mre, unit=unit) if isinstance(mre, float) else ""
        kept = self._texts["published" if stats.get("published") else "not"]
        return "; ".join(x for x in (kept, how, str(stats.get("reason", ""))) if x)


class ReviewSection(Section):
    """Open a finished case, see its revisions, bring one back."""

    def _begin(self) -> None:
        self._names: list[str] = []
        self._numbers: list[int] = []
        self._of: tuple = (None, None)  # the lists that are shown
        self._texts = {name: self._(name) for name in ("to do", "labelled", "in work", "somebody")}
        self._text_of_revision = self._("{n}: {who}, {k} points")
        self.on(self.ui.openCaseButton, self._open)
        self.on(self.ui.restoreButton, self._restore)

    def _open(self) -> None:
        index = self.ui.cases.property("currentIndex")
        if 0 <= index < len(self._names):
            self.logic.open_case(self._names[index])

    def _restore(self) -> None:
        index = self.ui.revisions.property("currentIndex")
        if 0 <= index < len(self._numbers):
            self.logic.restore(self._numbers[index])

    def _show(self) -> None:
        ui, logic = self.ui, self.logic
        ui.openCaseButton.setEnabled(logic is not None and logic.task is not None)
        ui.restoreButton.setEnabled(logic is not None and logic.session is not None and bool(logic.review.revisions))
        if logic is None:
            return
        before, self._of = self._of, (logic.review.cases, logic.review.revisions)
        if before[0] is not logic.review.cases:
            self._list_cases(logic.review.cases)
        if before[1] is not logic.review.revisions:
            self._list_revisions(logic.review.revisions)

    def _list_cases(self, rows: list[dict]) -> None:
        texts, cases = [self._text(row) for row in rows], self.ui.cases
        names = [str(row.get("image", "")) for row in rows]
        if names != self._names:
            index = cases.property("currentIndex")
            chosen = self._names[index] if 0 <= index < len(self._names) else None
            self._names = names
            cases.clear()
            cases.addItems(texts)
            if chosen in names:
                cases.setCurrentIndex(names.index(chosen))
            return
        for index, text in enumerate(texts):
            if cases.itemText(index) != text:
                cases.setItemText(index, text)

    def _list_revisions(self, revisions: list) -> None:
        self._numbers = [number for number, *_ in revisions]
        self.ui.revisions.clear()
        for number, author, points in revisions:
            placed = sum(p.position is not None for p in points)
            who = author or self._texts["somebody"]
            self.ui.revisions.addItem(self._text_of_revision.format(n=number, who=who, k=placed))
        self.ui.revisions.setCurrentIndex(len(self._numbers) - 1)

    def _text(self, row: dict) -> str:
        state = self._texts["labelled" if row.get("labelled") else "in work"] if row.get("revision") else self._texts["to do"]
        who = f" ({row.get('author') or self._texts['somebody']})" if row.get("revision") else ""
        return f"{row.get('image')}: {state}{who}"


class OptionsSection(Section):
    """Who annotates, where images are read, what happens by itself; and a new case from an open volume or model."""

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, scene):
        self.scene = scene
        super().__init__(ui, translate, options, on)

    def _begin(self) -> None:
        ui = self.ui
        takes_folders(ui.localFolder)
        self._keep(ui.author, "author")
        self._keep(ui.localFolder, "local_folder")
        self._keep(ui.certificate, "certificate")
        boxes = {ui.followDrag: "follow_drag", ui.keepOnSurface: "keep_on_surface", ui.predictAtOnce: "predict_at_once"}
        for box, name in boxes.items():
            box.setChecked(bool(getattr(self.options, name)))
            box.toggled.connect(lambda on, name=name: setattr(self.options, name, bool(on)))
        ui.volumes.setMRMLScene(self.scene)
        self.on(ui.uploadButton, self._upload)

    def close(self) -> None:
        """Listen to the scene no longer."""
        self.ui.volumes.setMRMLScene(None)

    def _show(self) -> None:
        self.ui.uploadButton.setEnabled(self.logic is not None and self.logic.task is not None)

    def _upload(self) -> None:
        """The server gets the volume or model as it lies in the file: one that a transform moves would come out elsewhere."""
        node, logic = self.ui.volumes.currentNode(), self.logic
        if node is None:
            logic.message = self._("choose a volume or model first")
            return
        if node.GetParentTransformNode() is not None:
            logic.message = self._("{name} is moved by a transform: harden or remove it first").format(name=node.GetName())
            return
        if node.GetAttribute(HELPER):
            logic.message = self._("{name} is made of the open case: choose another model").format(name=node.GetName())
            return
        name = file_name(node.GetName() or "")[:MOST_CHARACTERS]
        path = Path(tempfile.mkdtemp(prefix="landmarklabel-")) / f"{name}{suffix_of(node)}"
        if write(node, path):
            logic.upload(name, path)
            return
        shutil.rmtree(path.parent, ignore_errors=True)
        logic.message = self._("{name} cannot be written; a model needs triangles").format(name=name)
