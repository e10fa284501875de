"""Where the real images are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with ``hand_xray`` and ``mouse_ct``; skips where it is absent."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("LANDMARKLABEL_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist; set LANDMARKLABEL_DATA to the folder with hand_xray")
    return folder
