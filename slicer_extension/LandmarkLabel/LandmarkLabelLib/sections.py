"""What is needed now and then, in sections below the landmarks: training, finished cases, many images, a server, options."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from .batch import export_gpa, images_in, predict_files
from .logic import LandmarkLogic
from .options import Options, file_name
from .volumes import open_volumes, write
from .widgets import put_text, takes_folders, text_of, when_changed
from .worker import BATCH, Worker

LANE = "local"  # of the worker of the server on this computer


class _Section:
    """Args:
    ui: the panel's widgets by name.
    translate: for texts that people see.
    options: what is kept.
    on: connects a button: (button, what it does).
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable):
        self.ui, self._, self.options, self.on = ui, translate, options, on
        self.logic: LandmarkLogic | None = None
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


class TrainSection(_Section):
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


class ReviewSection(_Section):
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
            self._names = names
            cases.clear()
            cases.addItems(texts)
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


class OptionsSection(_Section):
    """Who annotates, where images are read, what happens by itself; and a new case from an open volume."""

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, scene):
        self.scene = scene
        super().__init__(ui, translate, options, on)

    def _begin(self) -> None:
        ui = self.ui
        takes_folders(ui.localFolder)
        self._keep(ui.author, "author")
        self._keep(ui.localFolder, "local_folder")
        self._keep(ui.certificate, "certificate")
        for box, name in ((ui.followDrag, "follow_drag"), (ui.predictAtOnce, "predict_at_once")):
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
        """The server gets the volume as it lies in the file: one that a transform moves would come out elsewhere."""
        node, logic = self.ui.volumes.currentNode(), self.logic
        if node is None:
            logic.message = self._("choose a volume first")
            return
        if node.GetParentTransformNode() is not None:
            logic.message = self._("{name} is moved by a transform: harden or remove it first").format(name=node.GetName())
            return
        name = file_name(node.GetName())
        path = Path(tempfile.mkdtemp(prefix="landmarklabel-")) / f"{name}.nrrd"
        if write(node, path):
            logic.upload(name, path)
        else:
            logic.message = self._("{name} cannot be written").format(name=node.GetName())


class LocalSection(_Section):
    """A server on this computer: installed into an environment of its own, started, and stopped with Slicer.

    Args:
        panel: connects to the server that was started.
        make: makes the server, given what shows a line of an installation.
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, panel, make: Callable):
        self.panel, self.worker, self.server = panel, Worker(), make(lambda line: setattr(self, "_line", line))
        self._line, self._said = "", ""  # of the installation, told in its thread; what is shown
        super().__init__(ui, translate, options, on)

    def _begin(self) -> None:
        ui = self.ui
        takes_folders(ui.study)
        for widget, name in ((ui.study, "study"), (ui.task, "task"), (ui.source, "source")):
            self._keep(widget, name)
        self.on(ui.installButton, self._install)
        self.on(ui.startButton, self._start)
        self.on(ui.haltButton, self._halt)
        version = self.server.installed
        text = self._("LandmarkLabel {version} is installed") if version else self._("nothing is installed yet")
        self._said = text.format(version=version)

    def _install(self) -> None:
        def done(_: object) -> None:
            self._say(self._("LandmarkLabel {version} is installed").format(version=self.server.installed))

        self._do(lambda: self.server.install(self.options.source), done, self._("installing; this may take many minutes"))

    def _start(self) -> None:
        def done(running) -> None:
            self._say(self._("serves at {url}; who else uses this study now needs a token").format(url=running.url))
            put_text(self.ui.url, running.url)
            put_text(self.ui.token, running.token)
            self.panel.connect_server()

        study, task = self.options.study, self.options.task or None
        self._do(lambda: self.server.start(study, task), done, self._("starting"))

    def _halt(self) -> None:
        self.server.cancel()
        self.worker.give_up(LANE)
        self._do(self.server.stop, lambda _: self._say(self._("stopped")), self._("stopping"))

    def _do(self, job: Callable[[], object], done: Callable, what: str) -> None:
        self._line = ""
        self._say(what)
        failed = self._("{why} (more in {log})")
        self.worker.submit(job, done, lambda error: self._say(failed.format(why=error, log=self.server.log)), LANE)

    def _say(self, text: str) -> None:
        self._said = text

    def place_of(self, url: str) -> str:
        """The study behind the address of the server that runs here; its port is another one at every start."""
        running = self.server.running
        return f"study {self.options.study}" if running is not None and running.url == url.rstrip("/") else ""

    def poll(self) -> None:
        """Deliver what has ended, and show the last line of an installation; called by the panel's timer."""
        if self.worker.busy:
            self.worker.drain()
            self._show()

    def close(self) -> None:
        """The server ends; that may take seconds, for which nobody waits."""
        self.worker.stop()
        threading.Thread(target=self.server.stop, name="LandmarkLabel server stops", daemon=True).start()

    def _show(self) -> None:
        ui, busy, runs = self.ui, self.worker.busy, self.server.is_running
        ui.installButton.setEnabled(bool(self.options.source) and not busy and not runs)
        ui.startButton.setEnabled(bool(self.options.study) and bool(self.server.installed) and not busy and not runs)
        ui.haltButton.setEnabled(busy or runs)
        text = f"{self._said}: {self._line}" if busy and self._line else self._said
        if ui.localStatus.property("text") != text:
            ui.localStatus.setText(text)


class BatchSection(_Section):
    """The landmarks of many images at once, and the labels of all cases for other programs.

    Args:
        scene: whose volumes.
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, scene):
        self.scene, self._share, self._stop, self._text = scene, 0.0, threading.Event(), ""
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._takes_volumes = False
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
        out, logic = text_of(self.ui.batchOut), self.logic
        self._text = ""
        files = self._files() if out else []
        if not files:
            self._text = self._text or self._("choose images, and where the results go")
            return
        self._stop, self._share = threading.Event(), 0.0  # its own: one that was stopped before stays so
        stop = self._stop

        def told(done: int, of: int, name: str) -> None:
            self._share, self._text = done / max(of, 1), f"{done}/{of} {name}"

        def job() -> object:
            return predict_files(logic.client, logic.model, logic.task, files, out, told, stop.is_set)

        logic.run(job, self._done, self._failed, BATCH, self._("predicting many images"))

    def _files(self) -> list[tuple[str, Path]]:
        """Of the folder that is named, and of the open volumes, which are written to temporary files."""
        found: list[tuple[str, Path]] = []
        if folder := text_of(self.ui.batchFolder):
            try:
                found += images_in(folder)
            except ValueError as error:
                self._text = str(error)
        if self._takes_volumes:
            self._clean()
            self._temporary = tempfile.TemporaryDirectory(prefix="landmarklabel-")
            for number, node in enumerate(open_volumes(self.scene)):
                path = Path(self._temporary.name) / f"{number}.nrrd"
                if node.GetParentTransformNode() is None and write(node, path):
                    found.append((node.GetName(), path))
        return found

    def _done(self, summary) -> None:
        text = self._("{n} predicted, {k} there before, {f} failed, {left} left; see {out}")
        counts = {"n": len(summary.predicted), "k": len(summary.kept), "f": len(summary.failed), "left": len(summary.left)}
        more = [summary.ended_by, *summary.trouble, *(f"{name}: {why}" for name, why in summary.failed[:3])]
        self._text = "; ".join(x for x in (text.format(out=summary.folder, **counts), *more) if x)
        self._clean()

    def _failed(self, error: Exception) -> None:
        self._text = str(error)
        self._clean()

    def _clean(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _export(self) -> None:
        """The newest revisions of all labelled cases, for SlicerMorph's GPA."""
        logic, out = self.logic, text_of(self.ui.batchOut)
        if not out:
            self._text = self._("choose where the results go")
            return
        ids = [str(row["image"]) for row in logic.review.cases if row.get("labelled")]
        leave_out = [name.strip() for name in self.options.leave_out.split(",") if name.strip()]

        def job() -> object:
            cases = [(image_id, logic.client.newest(image_id, logic.task)[2]) for image_id in ids]
            return export_gpa(cases, logic.task, Path(out), leave_out)

        def done(missing: list[str]) -> None:
            text = self._("{n} specimens written to {out}").format(n=len(ids) - len(missing), out=out)
            self._text = "; ".join([text, *missing[:3]]) + (" …" if len(missing) > 3 else "")

        logic.run(job, done, self._failed, BATCH, self._("exporting"))

    def poll(self) -> None:
        """Show how far it is; called by the panel's timer."""
        if self.logic is not None and self.logic.worker.waits(BATCH):
            self._show()

    def refresh(self, logic: LandmarkLogic | None) -> None:
        """Show the state; another server's batch ends."""
        if logic is not self.logic:
            self.stop()
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
        ui.batchButton.setEnabled(bool(ready and not runs))
        ui.exportButton.setEnabled(bool(ready and not runs))
        ui.stopBatchButton.setEnabled(bool(runs))
        ui.batchBar.setVisible(bool(runs))
        ui.batchBar.setValue(int(100 * self._share))
        if ui.batchText.property("text") != self._text:
            ui.batchText.setText(self._text)
