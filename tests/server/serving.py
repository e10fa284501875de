"""The real server as a subprocess, and studies to serve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient

import landmarklabel
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.images import read_geometry
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.training.publishing import ModelRegistry

LIB = Path(landmarklabel.__file__).resolve().parents[1]  # the server under test is this checkout's
APP = Path(__file__).resolve().parents[2] / "apps" / "landmarks"
MODELS = "scn,global_local"
START_S, TRAIN_S = 120, 300  # deadlines, not expectations: a busy machine is slow
LIVE: list[Server] = []  # whose logs a failing test shows


@dataclass(frozen=True)
class Material:
    """A study folder with images only, and the truth about them."""

    study: Path
    task_file: Path
    task: LandmarkTask
    truth: dict[str, LandmarkSet]

    def image(self, image_id: str) -> Path:
        return next(p for p in self.study.iterdir() if p.name.split(".")[0] == image_id)

    def geometry(self, image_id: str) -> ImageGeometry:
        return read_geometry(self.image(image_id), self.task.dims)

    def label_file(self, image_id: str, place: Path) -> Path:
        """The truth as a file to submit."""
        path = place / f"{image_id}.mrk.json"
        write_markups(path, self.truth[image_id])
        return path

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.study / ".landmarklabel" / "models" / "scn")


def phantoms(folder: Path, count: int, size: Sequence[int] = (96, 128), n_landmarks: int = 8) -> Material:
    """A study of small synthetic hands, all landmarks visible."""
    task, study = phantom_task(2, n_landmarks), folder / "study"
    study.mkdir(parents=True)
    write_json(folder / "task.json", task.to_json())
    truth = {}
    for seed in range(count):
        phantom = draw_phantom(task, seed, size=size, absent_fraction=0.0, noise=0.5)
        truth[f"phantom{seed:02d}"] = phantom.landmarks
        sitk.WriteImage(sitk.GetImageFromArray(phantom.pixels), str(study / f"phantom{seed:02d}.png"))
    return Material(study, folder / "task.json", task, truth)


@dataclass
class Server:
    """A running server; ``client`` is MONAI Label's own, unmodified."""

    process: subprocess.Popen
    url: str
    log: Path
    client: MONAILabelClient
    started_s: float

    def http(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, self.url + path, timeout=120, **options)

    def get(self, path: str, **options) -> dict:
        answer = self.http("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stats(self, model: str = "scn") -> dict:
        return self.client.info()["train_stats"][model]

    def train(self, params: dict, model: str = "scn") -> dict:
        """Train to the end; returns the statistics."""
        self.client.train_start(model, params)
        self.wait_for_end("/train/")
        return self.stats(model)

    def wait_for_end(self, path: str) -> None:
        """Of a background task: just after its start MONAI Label lists it, but not yet as running."""

        def ended() -> bool:
            if self.http("GET", f"{path}?check_if_running=true").status_code == 200:
                return False
            return self.get(path)["status"] not in ("SUBMITTED", "RUNNING")

        wait_until(ended, TRAIN_S, f"the task of {path} to end", 0.2)

    def wait_for_training(self) -> list[psutil.Process]:
        """Wait until steps are being made; returns the processes that make them."""

        def steps() -> bool:
            stats = self.stats()
            return stats.get("state") == "running" and stats["current_iteration"] > 0

        wait_until(steps, TRAIN_S, "a training to make steps", 0.3)
        return psutil.Process(self.process.pid).children(recursive=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.1) -> float:
    """Seconds until the condition held; AssertionError after the deadline."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited {seconds} s for {what}"
        time.sleep(every)
    return time.monotonic() - started


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(study: Path) -> list[psutil.Process]:
    """Every process that serves or trains the study: named in its command line or its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            known = str(study) in process.cmdline() or process.environ().get("MONAI_LABEL_STUDIES") == str(study)
        except psutil.Error:
            continue
        if known and process.pid != os.getpid() and is_alive(process):
            found.append(process)
    return found


@contextmanager
def serving(
    material: Material,
    *conf: str,
    host: str = "127.0.0.1",
    extra: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    ready: int = 200,
    entrance: str = "serve",
    port: int = 0,
) -> Iterator[Server]:
    """A server on a free port, or on this one; the whole process group is gone afterwards.

    ``conf``: a further setting, its name and value; ``extra``: further arguments; ``more``: environment variables;
    ``ready``: what a server that is ready says to a stranger, beside 401; ``entrance``: ``serve``, or ``monailabel`` for plain
    ``monailabel start_server``, which also takes what is not for this computer alone, or has arguments of its own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = port or probe.getsockname()[1]
    place = material.study.parent
    results = place / "client"
    results.mkdir(exist_ok=True)
    scripts = Path(sys.executable).parent
    own = entrance == "serve" and host == "127.0.0.1" and not extra and ready == 200 and conf[:1] != ("insecure",)
    if own:
        given = [f"--{conf[0].replace('_', '-')}", *conf[1:]] if conf else []
        command = [
            sys.executable, "-m", "landmarklabel", "serve", "--studies", str(material.study), "--task", str(material.task_file),
            "--models", MODELS, "--port", str(port), *given,
        ]  # fmt: skip
    else:
        command = [
            str(scripts / "monailabel"), "start_server", "--app", str(APP),
            "--studies", str(material.study), "--conf", "task", str(material.task_file), "--conf", "models", MODELS,
            "--host", host, "--port", str(port), *(("--conf", *conf) if conf else ()), *extra,
        ]  # fmt: skip
    log, started = place / f"server-{port}.log", time.monotonic()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MONAI_LABEL_", "PYTHONPATH"))}
    environment |= {"MONAI_LABEL_TRACKING_ENABLED": "false", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "", **(more or {})}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(LIB), environment.get("PYTHONPATH"))))
    environment["PATH"] = f"{scripts}{os.pathsep}{environment['PATH']}"  # the script runs whatever is called python
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=place, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    server = Server(process, url, log, MONAILabelClient(url, str(results)), 0.0)
    LIVE.append(server)
    try:
        wait_until(lambda: _answers(server, ready), START_S, "the server to answer /info")
        server.started_s = time.monotonic() - started
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children are in the group, even when it is gone itself
        process.wait(20)
        LIVE.remove(server)
        wait_until(lambda: not processes_of(material.study), 20, "the server and its children to end")


@contextmanager
def serving_labelled(material: Material, count: int, place: Path) -> Iterator[Server]:
    """A server on whose study the first cases are labelled as they are; the label files are written to ``place``."""
    with serving(material) as server:
        for image_id in sorted(material.truth)[:count]:
            server.client.save_label(image_id, str(material.label_file(image_id, place)), tag="final")
        yield server


def _answers(server: Server, ready: int) -> bool:
    code = server.process.poll()
    assert code is None, f"the server ended with {code}:\n{tail(server)}"
    try:
        return requests.get(f"{server.url}/info/", timeout=5).status_code in (ready, 401)
    except requests.RequestException:
        return False


def tail(server: Server, characters: int = 6000) -> str:
    return server.log.read_text(errors="replace", encoding="utf-8")[-characters:]
