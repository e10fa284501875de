"""Annotators without a panel: the module's logic at a real server, and the waiting for its background."""

from __future__ import annotations

import time
from pathlib import Path

from LandmarkLabelLib.logic import LandmarkLogic
from LandmarkLabelLib.options import Options
from serving import Material

DEADLINE_S = 60


def settle(logic: LandmarkLogic) -> None:
    """What the panel's timer does, until the background is idle."""
    end = time.monotonic() + DEADLINE_S
    while logic.worker.busy:
        assert time.monotonic() < end, "the background did not come to rest"
        logic.poll()
        time.sleep(0.005)


def connected(server, tmp_path: Path, image_id: str = "") -> LandmarkLogic:
    """One annotator, with a case that is open where one is named."""
    logic = LandmarkLogic(Options(server.url, "ann"), tmp_path / "work")
    logic.connect()
    settle(logic)
    if image_id:
        logic.open_case(image_id)
        settle(logic)
    return logic


def truth_of(material: Material, image_id: str) -> dict:
    rows = material.truth[image_id].positions_mm
    return {n: (float(x), float(y), 0.0) for n, (x, y) in zip(material.task.names, rows, strict=True)}
