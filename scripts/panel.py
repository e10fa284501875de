"""How quick the extension's panel is, on PySide6 and real MRML, with a real server on loopback."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
from experiment import hand_split, landmarklabel

TESTS = Path(__file__).resolve().parents[1] / "tests"


def panel_latency(data: Path, runs: Path) -> dict:
    """150 rows refreshed, a jump, a correction until the others have moved, and the longest pause of the drawing thread."""
    sys.path[:0] = [str(TESTS / "slicer"), str(TESTS / "server")]
    import qt_harness

    qt = qt_harness.install()
    shutil.rmtree(runs, ignore_errors=True)
    return {"refresh_150_rows_ms": _refresh(qt_harness, runs), **_corrections(qt, qt_harness, data, runs)}


def _refresh(qt_harness, runs: Path, times: int = 100) -> dict:
    from LandmarkLabelLib.wire import PREDICTED, Point, Task

    panel, window = qt_harness.example(runs / "rows")
    names = tuple(f"p{i:03d}" for i in range(150))
    panel.logic.task = Task("many", names, 3, {}, ())
    points = [Point(n, PREDICTED, (float(i), 0.0, 0.0), 1.0) for i, n in enumerate(names)]
    panel.logic.session = type(panel.logic.session)(panel.logic.task, "case", points)
    panel.refresh()
    spent = []
    for shift in range(times):
        panel.logic.session.points = [Point(p.name, p.state, (p.position[0], float(shift), 0.0), 1.0 + shift) for p in points]
        started = time.perf_counter()
        panel.refresh()
        spent.append(time.perf_counter() - started)
    panel.close()
    window.close()
    return _quantiles(spent)


def _corrections(qt, qt_harness, data: Path, runs: Path) -> dict:
    """Ten labelled hands, no model: corrections of five others until the panel shows the rest moved."""
    from LandmarkLabelLib.markups import flipped

    from landmarklabel.cli.client import running_server
    from landmarklabel.io.tables import read_table
    from landmarklabel.tasks import SHIPPED, resolve_task

    task, source = resolve_task("hand_xray"), data / "hand_xray"
    ids, truth = hand_split(data, "train")[:15], read_table(source / "landmarks.csv", task)
    (runs / "images").mkdir(parents=True)
    for image_id in ids:
        shutil.copy(next((source / "images").glob(f"{image_id}.*")), runs / "images")
    listed = runs / "labelled.txt"
    listed.write_text("\n".join(ids[:10]) + "\n", encoding="utf-8")
    words = ("--task", "hand_xray", "--images", runs / "images", "--table", source / "landmarks.csv")
    landmarklabel("import", runs / "study", *words, "--only", listed)
    for path in (runs / "images").iterdir():
        shutil.copy(path, runs / "study")
    follow, jump, pauses = [], [], []
    with running_server(runs / "study", SHIPPED / "hand_xray.json", runs / "server.log") as url:
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
                number = task.index(name)
                node.SetNthControlPointPositionWorld(number, *flipped((*truth[image_id].positions_mm[number], 0.0)))
                started = last = time.perf_counter()
                node.InvokeEvent(node.PointEndInteractionEvent)
                while panel.logic.worker.busy or panel._due:
                    qt.application.processEvents()
                    pauses.append(time.perf_counter() - last)
                    last = time.perf_counter()
                    time.sleep(0.0005)
                follow.append(time.perf_counter() - started)
        panel.close()
        window.close()
    return {"correction_ms": _quantiles(follow), "jump_ms": _quantiles(jump), "pause_ms": _quantiles(pauses)}


def _quantiles(seconds: list[float]) -> dict:
    values = np.percentile(1000 * np.array(seconds), [50, 95, 100]).round(2).tolist()
    return {"n": len(seconds), **dict(zip(("p50", "p95", "max"), values, strict=True))}


EXPERIMENTS = (panel_latency,)
