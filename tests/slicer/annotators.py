"""Annotators without a panel: the module's logic at a real server, and the waiting for its background."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from serving import Material

DEADLINE_S = 60


def token_of(material: Material, name: str) -> str:
    """A new annotator's."""
    words = ("token", "new", str(material.study), "--name", name, "--role", "annotator")
    made = subprocess.run([sys.executable, "-m", "landmarklabel", *words], capture_output=True, encoding="utf-8", check=True)
    return re.search(r"\S{20,}", made.stdout)[0]


def settle(logic: LandmarkLogic) -> None:
    """What the panel's timer does, until the background is idle."""
    end = time.monotonic() + DEADLINE_S
    while logic.worker.busy:
        assert time.monotonic() < end, "the background did not come to rest"
        logic.poll()
        time.sleep(0.005)


def at(url: str, folder: Path, token: str = "") -> LandmarkLogic:
    """Somebody at a server, connected."""
    logic = LandmarkLogic(Options(url, "somebody"), folder, token=token)
    logic.connect()
    settle(logic)
    return logic


def until_compared(logic: LandmarkLogic) -> None:
    """Until the server is found again and has said whether the image that is shown is its own."""
    _until(logic, lambda: logic.is_compared and logic.online)


def until_back(logic: LandmarkLogic) -> None:
    """Until the server is found again."""
    _until(logic, lambda: logic.online)


def _until(logic: LandmarkLogic, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end, (logic.state, logic.message)
        logic.poll()
        time.sleep(0.01)
    settle(logic)


def opened(logic: LandmarkLogic, image_id: str) -> None:
    """Open a case, and wait until it is there."""
    logic.open_case(image_id)
    settle(logic)


def submitted(logic: LandmarkLogic) -> bool:
    """Submit, and wait until the server has answered; whether anything was sent."""
    sent = logic.submit()
    settle(logic)
    return sent


def connected(server, tmp_path: Path, image_id: str = "") -> LandmarkLogic:
    """One annotator, with a case that is open where one is named."""
    logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
    logic.connect()
    settle(logic)
    if image_id:
        opened(logic, image_id)
    return logic


def truth_of(material: Material, image_id: str) -> dict:
    rows = material.truth[image_id].positions_mm
    return {n: (float(x), float(y), 0.0) for n, (x, y) in zip(material.task.names, rows, strict=True)}
