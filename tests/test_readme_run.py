"""README's commands, as they stand there, from a folder of images to a server that answers from the trained model."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import SimpleITK as sitk

from landmarklabel.data.synthetic import draw_phantom, phantom_task

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = next(b for b in re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) if "landmarklabel task new" in b)
DEADLINE_S = 580  # not an expectation: a minute or so on two quiet cores


@pytest.fixture
def folder(tmp_path):
    """What the block begins with: names, scans with a table of points, and new scans whose truth is known."""
    task = phantom_task(2, 8)
    (tmp_path / "names.txt").write_text("\n".join(task.names), encoding="utf-8")
    rows = ["id," + ",".join(f"x{i},y{i}" for i in range(len(task)))]
    truth = rows[:]
    for seed in range(16):
        phantom = draw_phantom(task, seed, size=(64, 64), absent_fraction=0.0)
        place, name = ("scans", f"s{seed}") if seed < 13 else ("new_scans", f"n{seed}")
        (tmp_path / place).mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(phantom.pixels), str(tmp_path / place / f"{name}.png"))
        if seed < 13:
            rows.append(f"s{seed}," + ",".join(f"{x:.3f}" for x in phantom.landmarks.positions_mm.ravel()))
        else:
            truth.append(f"{name}," + ",".join(f"{x:.3f}" for x in phantom.landmarks.positions_mm.ravel()))
    (tmp_path / "points.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "truth.csv").write_text("\n".join(truth), encoding="utf-8")
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_the_block_runs_and_ends_in_answers_of_the_trained_model(folder):
    """Only the length of the training and the port are others than in the README."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    commands = [line for line in BLOCK.splitlines() if line.startswith("landmarklabel ")]
    assert "--minutes 30" in BLOCK and commands[-1].split()[1] == "serve"
    for line in commands[:-1]:
        line = line.replace("--minutes 30", "--steps 120 --seed 1")
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, timeout=DEADLINE_S, encoding="utf-8"
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        if " train " in line:
            assert "published in STUDY as scn version 1: first model, better than the template on" in done.stdout
    assert (folder / "report.html").is_file() and (folder / "clicks.html").is_file()
    port = free_port()
    serve = f"exec {commands[-1].split('#')[0]} --port {port}"
    with (folder / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(serve, shell=True, cwd=folder, env=environment, stderr=log, stdout=log, start_new_session=True)
    try:
        answer = infer(server, port, folder)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert (answer["origin"], answer["model_version"]) == ("model", 1)
    assert len([x for x in answer["landmarks"] if x["position"]]) >= 6
    said = (folder / "log").read_text(encoding="utf-8")
    assert f"open http://127.0.0.1:{port}/landmarks/" in said and "scn version 1 answers" in said


def infer(server: subprocess.Popen, port: int, folder: Path) -> dict:
    """The landmarks of a scan, as soon as the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            asked = requests.post(f"http://127.0.0.1:{port}/infer/scn?image=s3&output=json", timeout=60)
            assert asked.status_code == 200, asked.text
            return asked.json()
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not answer: {(folder / 'log').read_text(encoding='utf-8')[-1500:]}")
