"""What importing and training really load: no PyTorch below learning, no servers, no readers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.architecture.levels import SERVER_PACKAGES, TORCH_FREE
from tests.architecture.sources import LIB, ROOT, module_name

TRAINING_PATH = ("configuration", "data", "networks", "inference", "training")
READS_FILES = ("inference.export",)  # tries what it wrote on an image file
NOT_NEEDED_TO_TRAIN = ("SimpleITK", "sqlalchemy", "nibabel", "pydicom", *SERVER_PACKAGES)


@pytest.mark.parametrize(
    "modules, absent",
    [
        (TORCH_FREE, ("torch", "monai", "monailabel", "fastapi")),
        (("networks.presets", "tasks"), ("torch", "monailabel", "fastapi")),
        (("training.fit", "inference.model_folder"), ("monailabel", "fastapi", "sqlalchemy.dialects.postgresql")),
    ],
)
def test_importing_really_loads_no_more_than_that(modules, absent):
    """Also through others, which the walk over single files cannot see."""
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("landmarklabel." + name)
print([name for name in {absent!r} if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, encoding="utf-8")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def without_readers_and_servers(code, *arguments):
    """What a program prints in a process where ``import`` of the packages in NOT_NEEDED_TO_TRAIN fails."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({NOT_NEEDED_TO_TRAIN!r}))\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, timeout=300, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_training_path_imports_without_image_readers_databases_and_servers():
    names = sorted(module_name(p) for p in LIB if module_name(p).split(".")[0] in TRAINING_PATH)
    names = [name for name in names if name not in READS_FILES]
    code = f"import importlib\nfor name in {names!r}: print(importlib.import_module('landmarklabel.' + name).__name__)"
    assert without_readers_and_servers(code) == [f"landmarklabel.{name}" for name in names]
    for name in READS_FILES:
        with pytest.raises(AssertionError, match="SimpleITK"):
            without_readers_and_servers(f"import landmarklabel.{name}")


def test_a_model_trains_is_judged_and_predicts_without_image_readers_databases_and_servers(tmp_path):
    code = """
from landmarklabel.data.cases import Case
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.image_array import Image
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import decide

task = phantom_task(2, 4)
cases = [Case(str(seed), Image(p.geometry, p.pixels), p.landmarks)
         for seed in range(5) for p in [draw_phantom(task, seed, size=64, absent_fraction=0)]]
fit(task, cases[:4], cases[4:], FitConfig(find_preset("scn:default", 2), Budget(steps=3)), sys.argv[1])
model = load_model(sys.argv[1])
decision = decide(model, None, cases[4:])
print(len(model.predict(cases[4].image).positions_mm), decision.publish, decision.candidate_score > 0)
"""
    assert without_readers_and_servers(code, str(tmp_path / "model")) == ["4", "True", "True"]
