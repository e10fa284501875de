"""A server on this computer, in a section of the panel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from .options import Options
from .sections import Section
from .widgets import put_text, takes_folders
from .worker import Worker

LANE = "local"  # of the worker of the server on this computer


class LocalSection(Section):
    """A server on this computer: installed into an environment of its own, started, and stopped with Slicer.

    Args:
        panel: connects to the server that was started.
        make: makes the server, given what shows a line of an installation.
    """

    def __init__(self, ui, translate: Callable[[str], str], options: Options, on: Callable, panel, make: Callable):
        self.panel, self.worker, self.server = panel, Worker(), make(lambda line: setattr(self, "_line", line))
        self._line, self._said = "", ""  # of the installation, told in its thread; what is shown
        self._asked = ""  # folder that a second press makes
        self._study, self._served = "", False  # folder that is served; whether the server ran when that was last looked at
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

        study, task = self.options.study.strip(), self.options.task or None
        if not Path(study).expanduser().is_dir() and self._asked != study:
            self._asked = study
            self._say(self._("there is no folder {study}: press Start again to make it").format(study=study))
            return
        self._asked = ""
        self._study = study  # what the field says later is another matter
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
        return f"study {self._study}" if running is not None and running.url == url.rstrip("/") else ""

    def poll(self) -> None:
        """Deliver what has ended, and show the last line of an installation; called by the panel's timer."""
        ended = self._served and not self.server.is_running and not self.worker.busy
        self._served = self.server.running is not None
        if ended:
            self._say(self._("the server has ended by itself; {log} has what it said last").format(log=self.server.log))
        if self.worker.busy or ended:
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
