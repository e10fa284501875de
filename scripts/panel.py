"""How quick the extension's panel is, on PySide6 and real MRML, with a real server on loopback.

Between two turns of Qt's loop Python's lock is held, as an idle Slicer does, and translating a text takes as long as by Slicer's
own ``tr``, which looks through the stack of calls.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from experiment import few_hands

TR_S, CASES = 150e-6, 3000
TESTS = Path(__file__).resolve().parents[1] / "tests"


def panel_latency(data: Path, runs: Path) -> dict:
    """150 rows refreshed beside 3000 cases, a jump, a correction until the others moved, the longest pause of drawing."""
    sys.path[:0] = [str(TESTS / "slicer"), str(TESTS / "server")]
    import qt_harness

    qt = qt_harness.install()
    shutil.rmtree(runs, ignore_errors=True)
    return {"refresh_150_rows_ms": _refresh(qt_harness, runs), **_corrections(qt, qt_harness, data, runs)}


def _refresh(qt_harness, runs: Path, times: int = 100) -> dict:
    from LandmarkLabelLib.wire import PREDICTED, Point, Task

    panel, window = qt_harness.example(runs / "rows", translate=_slow_translation)
    names = tuple(f"p{i:03d}" for i in range(150))
    panel.logic.task = Task("many", names, 3, {}, ())
    points = [Point(n, PREDICTED, (float(i), 0.0, 0.0), 1.0) for i, n in enumerate(names)]
    panel.logic.session = type(panel.logic.session)(panel.logic.task, "case", points)
    rows = [{"image": f"case{i}", "revision": 1, "labelled": True, "author": "ann"} for i in range(CASES)]
    panel.logic.review.cases = rows
    panel.refresh()
    spent = []
    for shift in range(times):
        panel.logic.session.points = [Point(p.name, p.state, (p.position[0], float(shift), 0.0), 1.0 + shift) for p in points]
        started = time.perf_counter()
        panel.refresh()
        spent.append(time.perf_counter() - started)
    panel.close()
    window.close()
    return quantiles(spent)


def _slow_translation(text: str) -> str:
    end = time.perf_counter() + TR_S
    while time.perf_counter() < end:
        pass
    return text


def _corrections(qt, qt_harness, data: Path, runs: Path) -> dict:
    """Ten labelled hands, no model: corrections of five others until the panel shows the rest moved."""
    from LandmarkLabelLib.markups import flipped

    from landmarklabel.cli.client import running_server
    from landmarklabel.io.tables import read_table
    from landmarklabel.tasks import SHIPPED, resolve_task

    task = resolve_task("hand_xray")
    truth, (study, ids) = read_table(data / "hand_xray" / "landmarks.csv", task), few_hands(data, runs)
    follow, jump, pauses, hold = [], [], [], ctypes.PyDLL(None).usleep  # which keeps Python's lock
    with running_server(study, SHIPPED / "hand_xray.json", runs / "server.log") as url:
        panel, window = qt_harness.open_panel(runs / "panel")
        panel.ui.url.setText(url)
        qt_harness.press(panel, "connectButton")
        qt_harness.idle(panel)
        for image_id in ids[10:]:
            panel.logic.open_case(image_id)
            qt_harness.idle(panel)
            qt_harness.press(panel, "predictButton")
            qt_harness.idle(panel)
            for _ in range(10):
                qt_harness.press(panel, "nextDoubtfulButton")
                name, node = panel.current, panel.node.node
                started = time.perf_counter()
                panel.node.jump_to(name)
                jump.append(time.perf_counter() - started)
                number = panel.node.index(name)
                node.SetNthControlPointPositionWorld(number, *flipped((*truth[image_id].positions_mm[task.index(name)], 0.0)))
                started = last = time.perf_counter()
                node.InvokeEvent(node.PointEndInteractionEvent)
                while panel.logic.worker.busy or panel._due:
                    qt.application.processEvents()
                    pauses.append(time.perf_counter() - last)
                    hold(5000)
                    last = time.perf_counter()
                follow.append(time.perf_counter() - started)
        panel.close()
        window.close()
    return {"correction_ms": quantiles(follow), "jump_ms": quantiles(jump), "pause_ms": quantiles(pauses)}


def quantiles(seconds: list[float]) -> dict:
    """Median, 95th percentile and most, in ms."""
    values = np.percentile(1000 * np.array(seconds), [50, 95, 100]).round(2).tolist()
    return {"n": len(seconds), **dict(zip(("p50", "p95", "max"), values, strict=True))}


EXPERIMENTS = (panel_latency,)
