"""How many surfaces a server remembers, and what several threads that ask for them at once get."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tests.io.test_surface_volumes import egg

from landmarklabel.inference.suggestion import Suggestion
from landmarklabel.io.surface_volumes import write_surface_volume
from landmarklabel.io.surfaces import Surface, distance_volume, write_surface
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.services import surfaces
from landmarklabel.services.surfaces import Surfaces

TASK = LandmarkTask("egg", ("a", "b"), 3)


def suggestion(place: np.ndarray) -> Suggestion:
    landmarks = LandmarkSet(TASK, np.stack([place, place + 1]), (Status.PREDICTED, Status.PLACED))
    return Suggestion(landmarks, np.zeros(2, bool), np.full((2, 3), np.nan), None, None)


def test_only_so_many_are_kept_and_all_threads_get_their_own(tmp_path, monkeypatch):
    read, eggs = [], []
    for number in range(5):
        moved = Surface(egg().vertices + 100 * number, egg().faces)
        write_surface_volume(tmp_path / f"{number}.nrrd", distance_volume(moved))
        eggs.append(moved)
    known = surfaces.surface_at
    monkeypatch.setattr(surfaces, "surface_at", lambda path: read.append(path.name) or known(path))
    served = Surfaces(3)

    def ask(number: int) -> float:
        found, moved = served.put_on(tmp_path / f"{number}.nrrd", suggestion(eggs[number].vertices[7] + 1.0))
        assert list(moved) == ["a"] and np.array_equal(found.landmarks.positions_mm[1], eggs[number].vertices[7] + 2.0)
        return float(eggs[number].nearest(found.landmarks.positions_mm[:1])[1][0])

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(ask, [0, 1, 2] * 20)) < 0.02
    assert sorted(read) == ["0.nrrd", "1.nrrd", "2.nrrd"]  # once each, however many ask meanwhile
    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(ask, [0, 1, 2, 3, 4] * 8)) < 0.02
    for number in (2, 3, 4):
        ask(number)
    del read[:]
    for number in (2, 3, 4, 0, 4, 2):
        ask(number)
    assert read == ["0.nrrd", "2.nrrd"]  # three are kept: the one that nobody has asked for the longest goes


def test_the_surface_of_an_uploaded_file_is_not_kept(tmp_path):
    write_surface(tmp_path / "x.ply", egg())
    served = Surfaces(3)
    _, moved = served.put_on(tmp_path / "x.ply", suggestion(egg().vertices[7] + 1.0))
    assert moved["a"] > 0 and not served._found
