"""A small 2D task, a study of real image files, and fresh databases: SQLite and a real PostgreSQL."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import SimpleITK as sitk
from tests.store.pg_server import PostgresServer, find_programs

from landmarklabel.landmarks import LandmarkTask
from landmarklabel.store.revisions import RevisionStore
from landmarklabel.store.study import Study


@pytest.fixture(scope="session")
def postgres():
    """The one server of all tests; skips where PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed, so this runs on SQLite only; Debian: apt-get install postgresql")
    pytest.importorskip("psycopg")
    server = PostgresServer(programs)
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request, tmp_path):
    """Makes URLs of fresh, empty databases. Whatever uses it is tested on both."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").new_database
    numbers = count()
    return lambda: f"sqlite:///{tmp_path}/revisions{next(numbers) or ''}.sqlite"


@pytest.fixture
def url(new_url):
    return new_url()


@pytest.fixture
def store(url):
    store = RevisionStore(url)
    yield store
    store.close()


@pytest.fixture
def task():
    return LandmarkTask("hand", ("thumb", "index", "wrist"), dims=2)


@pytest.fixture
def write_image(tmp_path):
    """Writes a small image whose content depends on ``seed``; returns its path."""

    def write(path, seed=0, size=(12, 10)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
        return path

    return write


@pytest.fixture
def study(tmp_path, task, write_image, url):
    folder = tmp_path / "study"
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(folder / name, seed)
    study = Study(folder, task, url)
    yield study
    study.close()
