"""``landmarklabel demo`` from the first to the last line, through its own servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from landmarklabel.cli.demo import PLANS
from landmarklabel.data.synthetic import phantom_task
from landmarklabel.io.markups import read_markups

DEADLINE_S = 540  # a deadline, not an expectation: a minute or so on two quiet cores


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process with the folder, or something in it, in its command line or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), process.environ().get("MONAI_LABEL_STUDIES", "")]
            if process.pid != os.getpid() and any(str(folder) in w for w in words) and not _gone(process):
                found.append(process)
    return found


def _gone(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_demo_ends_with_a_report_and_no_server(tmp_path):
    out = tmp_path / "demo"
    words = [sys.executable, "-m", "landmarklabel", "demo", "--out", str(out), "--minutes", "0.2"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        left = time.monotonic() + 20
        while processes_of(out) and time.monotonic() < left:
            time.sleep(0.2)
        assert not processes_of(out)
    finally:
        for process in processes_of(out):
            with suppress(psutil.Error):
                process.kill()
    report = (out / "report.html").read_text()
    assert report.count("data:image/png") >= 6
    assert "2D, model scn: 16 landmarks" in report and "3D, model global_local: 14 landmarks" in report
    assert f"report: {out / 'report.html'}" in done.stdout
    for plan in PLANS:
        study, task = out / f"study{plan.dims}d", phantom_task(plan.dims)
        labels = sorted((study / "labels" / "final").glob("*.mrk.json"))
        assert [p.name for p in labels] == [f"case{i:02d}.mrk.json" for i in range(max(plan.train_after))]
        for path in labels:
            assert read_markups(path, task).by_person.all()
        assert len(list(study.glob(f"test*{plan.suffix}"))) == plan.tests
        pointer = json.loads((study / ".landmarklabel" / "models" / plan.model / "live.json").read_text())
        assert pointer["version"] >= 1 and len(pointer["history"]) == len(plan.train_after)
