"""``reproduce.py gpu`` in its smallest form on a CPU, where no image reader, database or server is installed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.io.image_array import Image
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.configuration import SamplingConfig
from landmarklabel.training.planning import untrained_model
from landmarklabel.training.stages import CoarseStage

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "scripts" / "results" / "gpu.json"  # of a GPU
sys.path.insert(0, str(ROOT / "scripts"))

import gpu_data  # noqa: E402
import gpu_measure  # noqa: E402

ABSENT = ("SimpleITK", "sqlalchemy", "nibabel", "pydicom", "monailabel", "fastapi", "psutil", "requests", "matplotlib")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs ``reproduce.py gpu`` as on a bare machine, with the arrays of two phantoms."""
    folder = tmp_path_factory.mktemp("gpu")
    gpu_data.prepare(folder / "arrays", folder / "no real images", phantoms=2)
    (folder / "arrays" / "phantom3d.npz").unlink()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'lib'}"}

    def start(*words, out="out"):
        places = ["--arrays", folder / "arrays", "--out", folder / out, "--work", folder / "work"]
        # With fewer steps maps are flat, and a processor that computes in bf16 finds other points than in fp32.
        small = ["--steps", "150", "--images", "1", "--methods", "scn", "--tiny"]
        command = [sys.executable, ROOT / "scripts" / "reproduce.py", "gpu", *places, *small, *words]
        return subprocess.Popen(
            [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )

    start.folder = folder
    return start


def ended(process):
    output, errors = process.communicate(timeout=500)
    return process.returncode, output, errors


def test_a_killed_run_goes_on_where_it_was_and_the_cpu_agrees_with_itself(bare):
    before = RESULT.read_bytes()
    first = bare("--device", "cpu")
    for line in first.stdout:
        if "train_device" in line:
            break
    workers = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate(timeout=60)
    assert workers and psutil.wait_procs(workers, timeout=120)[1] == [], "a worker would go on writing the training state"
    done = json.loads((bare.folder / "out" / "phantom2d.json").read_text(encoding="utf-8"))["scn"]
    assert list(done) == ["train_reference"]

    code, output, errors = ended(bare("--device", "cpu"))
    assert code == 0, output + errors
    assert "train_reference …" not in output and "train_device …" in output
    assert (
        json.loads((bare.folder / "out" / "phantom2d.json").read_text(encoding="utf-8"))["scn"]["train_reference"]
        == done["train_reference"]
    )
    result = json.loads((bare.folder / "out" / "gpu.json").read_text(encoding="utf-8"))
    assert result["agrees"] and result["device"] == "cpu" and torch.__version__ in result["hardware"]
    found = result["sets"]["phantom2d"]["scn"]
    assert all(found["checks"].values()) and found["predictions"]["device"]["product"]["points"] == 16
    assert found["predictions"]["reference"]["fp32"]["predictions_a_second"] > 0
    assert found["training"]["device"]["peak_gib"]["host"] > 0.1
    assert RESULT.read_bytes() == before, "the CPU against itself is no result"

    code, output, _ = ended(bare("--device", "cpu"))  # all is done: nothing runs again
    assert code == 0 and "…" not in output
    code, _, errors = ended(bare("--device", "cpu", "--steps", "3", "--methods", "scn", "global_local"))
    assert code == 2 and "figures with other steps; give another --out" in errors

    disagreeing_points_are_noticed(json.loads((bare.folder / "out" / "phantom2d.json").read_text(encoding="utf-8"))["scn"])


def disagreeing_points_are_noticed(parts):
    assert gpu_measure.compare(parts)["agrees"]
    moved = copy.deepcopy(parts)
    for image in moved["predict_device"]["fp32"]["positions_mm"]:
        image[:] = [p and [p[0] + 0.2, *p[1:]] for p in image]
    assert {k for k, ok in gpu_measure.compare(moved)["checks"].items() if not ok} == {"positions_fp32"}
    lost = copy.deepcopy(parts)
    lost["predict_device"]["product"]["positions_mm"][0][3:5] = [None, None]
    assert {k for k, ok in gpu_measure.compare(lost)["checks"].items() if not ok} == {"positions_product"}
    worse = copy.deepcopy(parts)
    worse["train_device"]["validation_error_mm"] *= 1.3
    worse["step"]["refine_device_fp32"]["gradient_difference"] = 0.02
    assert {k for k, ok in gpu_measure.compare(worse)["checks"].items() if not ok} == {"training", "gradient_fp32"}


def test_without_time_it_says_call_again(bare):
    code, output, _ = ended(bare("--device", "cpu", "--minutes", "0.001", out="no time"))
    assert code == 3 and "5 parts are left: call again" in output


def test_without_arrays_it_says_how_to_make_them(bare, tmp_path):
    code, _, errors = ended(bare("--arrays", tmp_path))
    assert code == 2 and f"no arrays in {tmp_path}; make them with --prepare" in errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line(bare):
    code, _, errors = ended(bare(out="none"))
    assert code == 2 and errors.count("\n") == 1 and "no GPU that torch can use; --device cpu compares" in errors


def test_what_travels_is_read_back_as_it_was(bare):
    task, train, valid = gpu_data.read_set(bare.folder / "arrays" / "phantom2d.npz")
    made = list(gpu_data._phantoms(2, 2))
    for case, original in zip([*train, *valid], made, strict=True):
        assert case.landmarks.status == original.landmarks.status and case.landmarks.task == task
        assert (case.image.pixels == original.image.pixels).all() and case.image.geometry.size == original.image.geometry.size
        np.testing.assert_array_equal(case.landmarks.positions_mm, original.landmarks.positions_mm)


def test_a_step_is_measured_with_the_batches_of_the_training(monkeypatch):
    monkeypatch.setattr(gpu_measure, "REPEATS", 1)
    task = phantom_task(3, 5)
    cases = [Case(str(s), Image(p.geometry, p.pixels), p.landmarks) for s, p in ((s, draw_phantom(task, s)) for s in range(2))]
    preset = replace(find_preset("scn:single", 3), grid_size={3: 16**3}, batch={3: 1})
    model = untrained_model(task, preset, cases, None, None, SamplingConfig(), InferenceConfig())
    stage = CoarseStage(model.networks.coarse_net, preset, model.networks.grid, cases, 0)
    loss, gradient, seconds = gpu_measure._gradient(stage, torch.device("cpu"), "fp32")
    assert np.isfinite(loss) and torch.isfinite(gradient).all() and gradient.abs().max() > 0 and seconds > 0
