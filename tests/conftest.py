"""Where the real images are, which cores a worker uses, and the tier of a test."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.durations import Recorder, longest_first
from tests.tiers import TIERS, markers_of

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program does it, before numpy is loaded


def pytest_addoption(parser):
    parser.addoption("--record-durations", action="store_true", help="write what the files take to tests/durations.json")


def keep_to_a_share_of_the_cores() -> None:
    """Of several workers each keeps to its own, and so do the servers it starts.

    This is the first thing a worker does: PyTorch, once it is loaded, has a thread for every core it saw, and on the share they
    would wait for each other (a test of 2 s took 75).
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % len(cores) :: count])


keep_to_a_share_of_the_cores()


def pytest_configure(config):
    if config.getoption("--record-durations") and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Recorder())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Give the tests the markers of their tier; of several workers, the first begin with what takes longest."""
    for item in items:
        own = {marker.name for marker in item.iter_markers()}
        for marker in markers_of(item.nodeid, own):
            item.add_marker(marker)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        longest_first(items, ("fast",) if config.getoption("-m") == "fast" else TIERS[:2])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test of the fast tier connects to no server."""
    if item.get_closest_marker("fast") is None:
        return (yield)

    def refuse(self, address):
        raise AssertionError(f"a test of the fast tier connects to {address}; list it as slow in tests/tiers.py")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return (yield)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with ``hand_xray`` and ``mouse_ct``; skips where it is absent."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("LANDMARKLABEL_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist; set LANDMARKLABEL_DATA to the folder with hand_xray")
    return folder
