"""A model that nobody trained, pictures in folders, and the command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from cohort_command import COUNT, command
from PIL import Image as Picture
from tests.inference.saved_models import untrained

from landmarklabel.inference.model_folder import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "model"
    save_model(folder, untrained(), {"seed": 0, "metrics": {}, "minutes": 9.0, "valid_ids": []})
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Forty pictures in folders of ten, and a file that is none."""
    top = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        place = top / f"patient{number // 10}" / f"scan{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        Picture.fromarray(rng.integers(0, 255, (96, 64)).astype(np.uint8)).save(place)
    (top / "patient0" / "broken.png").write_bytes(b"no picture")
    (top / "patient0" / "notes.txt").write_text("a note")
    return top


@pytest.fixture(scope="session")
def cohort():
    """Run ``landmarklabel cohort WORDS`` as people do; what it prints."""

    def run(*words: object, code: int = 0, **more) -> str:
        done = subprocess.run(command(*words), capture_output=True, encoding="utf-8", timeout=300, check=False, **more)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
