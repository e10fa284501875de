"""What is needed now and then, in tabs below the landmarks: training, finished cases, options."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import qt

from .logic import LandmarkLogic
from .options import Options
from .volumes import open_volumes, write


class TrainTab:
    """Start, stop and follow a training."""

    def __init__(self, translate: Callable[[str], str], make_button: Callable, options: Options):
        self._, self.options, self.widget = translate, options, qt.QWidget()
        column, row = qt.QVBoxLayout(self.widget), qt.QHBoxLayout()
        self.minutes = qt.QDoubleSpinBox()
        self.minutes.setRange(0.1, 10000.0)
        self.minutes.setValue(options.minutes)
        self.minutes.setSuffix(" " + self._("minutes"))
        self.minutes.setToolTip(self._("How long the server trains on everything that was submitted"))
        self.minutes.valueChanged.connect(self._minutes_chosen)
        row.addWidget(self.minutes)
        self.start = make_button("train", self._("Train"), lambda logic: logic.train(), row)
        self.stop = make_button("stop_training", self._("Stop"), lambda logic: logic.training.stop(), row)
        column.addLayout(row)
        self.bar = qt.QProgressBar()
        self.bar.setRange(0, 100)
        column.addWidget(self.bar)
        self.text = qt.QLabel("")
        self.text.setWordWrap(True)
        column.addWidget(self.text)

    def _minutes_chosen(self, value: float) -> None:
        self.options.minutes = float(value)

    def refresh(self, logic: LandmarkLogic | None) -> None:
        training = logic.training if logic is not None else None
        running = bool(training is not None and training.is_running)
        self.start.setEnabled(bool(logic is not None and logic.task is not None and not running))
        self.stop.setEnabled(running)
        self.bar.setVisible(running)
        stats = training.stats if training is not None else {}
        if running:
            self.bar.setValue(training.percent)
            self.text.setText(self._("{model} is being trained").format(model=training.model))
        elif stats:
            measured = stats.get("eval") or {}
            mre, unit = measured.get("mre_mm"), "px" if measured.get("unit") == "px" else "mm"
            how = self._("mean error {mre:.2f} {unit}").format(mre=mre, unit=unit) if isinstance(mre, float) else ""
            kept = self._("published") if stats.get("published") else self._("not published")
            self.text.setText("; ".join(x for x in (kept, how, str(stats.get("reason", ""))) if x))
        else:
            self.text.setText(self._("nothing was trained from here yet"))


class ReviewTab:
    """Open a finished case, see its revisions, bring one back."""

    def __init__(self, translate: Callable[[str], str], make_button: Callable):
        self._, self.widget = translate, qt.QWidget()
        grid = qt.QGridLayout(self.widget)
        self.cases, self.revisions = qt.QComboBox(), qt.QComboBox()
        self.cases.setToolTip(self._("Cases of the study"))
        self.revisions.setToolTip(self._("Revisions of the open case; the table says who placed what"))
        grid.addWidget(self.cases, 0, 0)
        grid.addWidget(make_button("open_case", self._("Open"), self._open), 0, 1)
        grid.addWidget(self.revisions, 1, 0)
        grid.addWidget(make_button("restore", self._("Restore"), self._restore), 1, 1)
        grid.setColumnStretch(0, 1)
        self._listed: list[str] = []
        self._rows: list[int] = []

    def _open(self, logic: LandmarkLogic) -> None:
        index = self.cases.property("currentIndex")
        if 0 <= index < len(self._listed):
            logic.open_case(self._listed[index])

    def _restore(self, logic: LandmarkLogic) -> None:
        index = self.revisions.property("currentIndex")
        if 0 <= index < len(self._rows):
            logic.restore(self._rows[index])

    def refresh(self, logic: LandmarkLogic | None) -> None:
        if logic is None:
            return
        names = [str(row.get("image", "")) for row in logic.review.cases]
        texts = [f"{row.get('image')}: {self._state(row)}" for row in logic.review.cases]
        if names != self._listed:
            self._listed = names
            self.cases.clear()
            self.cases.addItems(texts)
        for index, text in enumerate(texts):
            self.cases.setItemText(index, text)
        numbers = [number for number, *_ in logic.review.revisions]
        if numbers != self._rows:
            self._rows = numbers
            self.revisions.clear()
            for number, author, points in logic.review.revisions:
                placed = sum(p.position is not None for p in points)
                text = self._("{n}: {who}, {k} points")
                self.revisions.addItem(text.format(n=number, who=author or self._("somebody"), k=placed))
            self.revisions.setCurrentIndex(len(numbers) - 1)

    def _state(self, row: dict) -> str:
        if not row.get("revision"):
            return self._("to do")
        state = self._("labelled") if row.get("labelled") else self._("in work")
        return f"{state} ({row.get('author') or self._('somebody')})"


class OptionsTab:
    """Who annotates, where images are read, what happens by itself; and a new case from an open volume."""

    def __init__(self, translate: Callable[[str], str], make_button: Callable, options: Options, scene):
        self._, self.options, self.scene, self.widget = translate, options, scene, qt.QWidget()
        form = qt.QFormLayout(self.widget)
        self.author = self._line(form, self._("Your name"), self._("Kept with every submission"), "author")
        hint = self._("Where the study's images lie on this computer, so that they need not be sent; empty: they are sent")
        self.folder = self._line(form, self._("Image folder"), hint, "local_folder")
        self.token = qt.QLineEdit("")
        self.token.setEchoMode(qt.QLineEdit.Password)
        self.token.setToolTip(self._("For a server that asks for one; not kept"))
        form.addRow(self._("Token"), self.token)
        self.follow = self._box(form, self._("Slices follow a dragged point"), "follow_drag")
        self.at_once = self._box(form, self._("Predict when a case opens"), "predict_at_once")
        row = qt.QHBoxLayout()
        self.volumes = qt.QComboBox()
        self.volumes.setToolTip(self._("Volumes that are open in Slicer"))
        row.addWidget(self.volumes, 1)
        make_button("upload", self._("Add as a case"), self._upload, row)
        form.addRow(row)
        self._nodes: list = []

    def _line(self, form, label: str, hint: str, name: str):
        line = qt.QLineEdit(getattr(self.options, name))
        line.setToolTip(hint)
        line.textChanged.connect(lambda text: setattr(self.options, name, str(text)))
        form.addRow(label, line)
        return line

    def _box(self, form, label: str, name: str):
        box = qt.QCheckBox(label)
        box.setChecked(bool(getattr(self.options, name)))
        box.toggled.connect(lambda on: setattr(self.options, name, bool(on)))
        form.addRow(box)
        return box

    def refresh(self, logic: LandmarkLogic | None) -> None:
        nodes = open_volumes(self.scene)
        if [n.GetID() for n in nodes] != [n.GetID() for n in self._nodes]:
            self._nodes = nodes
            self.volumes.clear()
            self.volumes.addItems([n.GetName() for n in nodes])

    def _upload(self, logic: LandmarkLogic) -> None:
        """The server gets the volume as it lies in the file: one that a transform moves would come out elsewhere."""
        index = self.volumes.property("currentIndex")
        if not 0 <= index < len(self._nodes):
            return
        node = self._nodes[index]
        if node.GetParentTransformNode() is not None:
            logic.message = self._("{name} is moved by a transform: harden or remove it first").format(name=node.GetName())
            return
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in node.GetName()).strip("_") or "case"
        path = Path(tempfile.mkdtemp(prefix="landmarklabel-")) / f"{name}.nrrd"
        if write(node, path):
            logic.upload(name, path)
        else:
            logic.message = self._("{name} cannot be written").format(name=node.GetName())


def message_of_transform(translate: Callable[[str], str], transform: str) -> str:
    """Why nothing can be predicted or submitted while the case's image is moved."""
    text = translate("the image is moved by {transform}, so points would be elsewhere on the server: harden or remove it")
    return text.format(transform=transform) if transform else ""
