"""Many images at once, in a section of the panel."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from .batch import export_gpa, images_in, predict_files
from .logic import LandmarkLogic
from .options import Options
from .sections import Section
from .volumes import open_images, suffix_of, write
from .widgets import takes_folders, text_of
from .worker import BATCH


class BatchSection(Section):
    """The landmarks of many images at once, and the labels of all cases for other programs.

    Args:
        scene: whose volumes and models.
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, scene):
        self.scene, self._share, self._stop, self._text = scene, 0.0, threading.Event(), ""
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._takes_volumes = self._runs = self._shows_run = False
        self._left_out: list[str] = []  # volumes and models, and why
        super().__init__(ui, translate, options, on)

    def _begin(self) -> None:
        ui = self.ui
        takes_folders(ui.batchFolder, ui.batchOut)
        self._keep(ui.leaveOut, "leave_out")
        ui.batchVolumes.toggled.connect(lambda down: setattr(self, "_takes_volumes", bool(down)))
        self.on(ui.batchButton, self._predict)
        self.on(ui.stopBatchButton, self.stop)
        self.on(ui.exportButton, self._export)

    def _predict(self) -> None:
        out, logic = _folder(self.ui.batchOut), self.logic
        self._text, self._left_out = "", []
        files = self._files() if out else []
        if not files:
            self._text = "; ".join(self._left_out) or self._text or self._("choose images, and where the results go")
            return
        self._stop, self._share, self._runs = threading.Event(), 0.0, True  # its own: one that was stopped before stays so
        stop = self._stop

        def told(done: int, of: int, name: str) -> None:
            if stop.is_set():  # what is shown by now may be of another batch
                return
            self._share, self._text = done / max(of, 1), f"{done}/{of} {name}"

        def job() -> object:
            return predict_files(logic.client, logic.model, logic.task, files, out, told, stop.is_set)

        logic.run(job, self._done, self._failed, BATCH, self._("predicting many images"))

    def _files(self) -> list[tuple[str, Path]]:
        """Of the folder that is named, and the open volumes and models, which are written to temporary files."""
        found: list[tuple[str, Path]] = []
        if folder := _folder(self.ui.batchFolder):
            try:
                found += images_in(folder)
            except ValueError as error:
                self._text = str(error)
        if self._takes_volumes:
            self._clean()
            self._temporary = tempfile.TemporaryDirectory(prefix="landmarklabel-")
            for number, node in enumerate(open_images(self.scene)):
                path = Path(self._temporary.name) / f"{number}{suffix_of(node)}"
                if node.GetParentTransformNode() is not None:
                    self._left_out.append(self._("{name} is left out: a transform moves it").format(name=node.GetName()))
                elif write(node, path):
                    found.append((node.GetName(), path))
                else:
                    self._left_out.append(self._("{name} cannot be written").format(name=node.GetName()))
        return found

    def _done(self, summary) -> None:
        text = self._("{n} predicted, {k} there before, {f} failed, {left} left; see {out}")
        counts = {"n": len(summary.predicted), "k": len(summary.kept), "f": len(summary.failed), "left": len(summary.left)}
        more = [summary.ended_by, *summary.trouble, *self._left_out, *(f"{name}: {why}" for name, why in summary.failed[:3])]
        self._text, self._runs = "; ".join(x for x in (text.format(out=summary.folder, **counts), *more) if x), False
        self._clean()

    def _failed(self, error: Exception) -> None:
        self._text, self._runs = str(error), False
        if isinstance(error, OSError) and error.filename:
            self._text = self._("{file} cannot be written ({why})").format(file=error.filename, why=error.strerror)
        self._clean()

    def _clean(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _export(self) -> None:
        """The newest revisions of all labelled cases, for SlicerMorph's GPA."""
        logic, out = self.logic, _folder(self.ui.batchOut)
        if not out:
            self._text = self._("choose where the results go")
            return
        leave_out = [name.strip() for name in self.options.leave_out.split(",") if name.strip()]

        def job() -> tuple[int, list[str]]:
            ids = [str(row["image"]) for row in logic.client.cases() if row.get("labelled")]
            cases = [(image_id, logic.client.newest(image_id, logic.task)[2]) for image_id in ids]
            return len(ids), export_gpa(cases, logic.task, Path(out), leave_out)

        def done(found: tuple[int, list[str]]) -> None:
            count, missing = found
            text = self._("{n} specimens written to {out}").format(n=count - len(missing), out=out)
            self._text = "; ".join([text, *missing[:3]]) + (" …" if len(missing) > 3 else "")

        logic.run(job, done, self._failed, BATCH, self._("exporting"))

    def poll(self) -> None:
        """Show how far it is, and its end; called by the panel's timer."""
        runs = self.logic is not None and self.logic.worker.waits(BATCH)
        if runs or self._shows_run:
            self._show()

    def refresh(self, logic: LandmarkLogic | None) -> None:
        """Show the state; another server's batch ends."""
        if logic is not self.logic:
            self.stop()
            if self._runs:  # its end is told to nobody any more
                self._text, self._runs = self._("stopped by another connection; the same again goes on"), False
                self._clean()
        super().refresh(logic)

    def stop(self) -> None:
        """What runs ends after the image it is at."""
        self._stop.set()

    def close(self) -> None:
        """What is there stays; a later call goes on."""
        self._stop.set()
        self._clean()

    def _show(self) -> None:
        ui, logic = self.ui, self.logic
        ready, runs = logic is not None and logic.task is not None, logic is not None and logic.worker.waits(BATCH)
        self._shows_run = bool(runs)
        ui.batchButton.setEnabled(bool(ready and not runs))
        ui.exportButton.setEnabled(bool(ready and not runs))
        ui.stopBatchButton.setEnabled(bool(runs))
        ui.batchBar.setVisible(bool(runs))
        ui.batchBar.setValue(int(100 * self._share))
        if ui.batchText.property("text") != self._text:
            ui.batchText.setText(self._text)


def _folder(field) -> str:
    return os.path.expanduser(text_of(field))
