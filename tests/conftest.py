"""Where the real images are, and which cores a worker uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.tiers import markers_of

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program does it, before numpy is loaded


def pytest_configure():
    """Of several workers each keeps to its own share of the cores, and so do the servers it starts."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % len(cores) :: count])


def pytest_collection_modifyitems(items):
    """Give the tests the markers of their tier."""
    for item in items:
        for marker in markers_of(item.nodeid):
            item.add_marker(marker)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with ``hand_xray`` and ``mouse_ct``; skips where it is absent."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("LANDMARKLABEL_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist; set LANDMARKLABEL_DATA to the folder with hand_xray")
    return folder
