"""The measurements of the shipped tasks give the values and signs that are usual."""

from __future__ import annotations

import numpy as np
import pytest
from tests.measurements.formulae import between
from tests.measurements.measuring_tasks import predicted, spread

from landmarklabel.landmarks import LandmarkSet
from landmarklabel.measurement_definitions import Norm
from landmarklabel.measurements import Measured, measure
from landmarklabel.tasks import resolve_task

FACE = {  # mm from porion, to the right and down; a face that looks to the right, with a straight profile
    "sella": (18, -22), "nasion": (88, -30), "orbitale": (74, 0), "porion": (0, 0), "A point": (88, 28), "B point": (83, 68),
    "pogonion": (84, 82), "menton": (77, 90), "gnathion": (82, 88), "gonion": (10, 60), "lower incisor": (88, 48),
    "upper incisor": (91, 50), "upper lip": (105, 42), "lower lip": (102, 56), "subnasale": (101, 28),
    "soft tissue pogonion": (96, 83), "posterior nasal spine": (40, 24), "anterior nasal spine": (92, 25), "articulare": (6, 10),
}  # fmt: skip


@pytest.mark.parametrize("facing", [1, -1])
def test_a_cephalogram_is_measured_the_same_from_either_side(facing):
    task = resolve_task("cephalogram")
    landmarks = LandmarkSet.of_positions(task, [(facing * FACE[n][0] + 100, FACE[n][1] + 60) for n in task.names])
    found = {m.name: m for m in measure(landmarks)}
    assert all(m.available for m in found.values())
    v = {name: m.value for name, m in found.items()}
    for name, mean, most_off in [
        ("SNA", 82, 6), ("SNB", 80, 6), ("ANB", 2, 3), ("FMA", 25, 6), ("SN-GoGn", 32, 8), ("facial angle", 87.8, 4),
        ("Y axis", 59.4, 6), ("gonial angle", 125, 12), ("palatal plane angle", 1, 3), ("A-B plane angle", -4.6, 3),
        ("ODI", 74.5, 8), ("APDI", 81.4, 6), ("facial height index", 65, 6), ("lower face height share", 55, 4),
        ("overjet along Frankfort", 3, 1e-9), ("A-B along Frankfort", 5, 1e-9), ("upper lip to Sn-Pog'", 5, 4),
        ("lower lip to Sn-Pog'", 4, 4),
    ]:  # fmt: skip
        assert v[name] == pytest.approx(mean, abs=most_off), name
    assert v["ANB"] == pytest.approx(v["SNA"] - v["SNB"])
    palatal_and_ab = ("anterior nasal spine", "posterior nasal spine", "A point", "B point")
    assert v["APDI"] == pytest.approx(between(*(np.array(FACE[n]) for n in palatal_and_ab)))
    assert found["ODI"].norm == Norm(74.5, "Kim 1974", 6.07) and found["SNA"].norm.sd is None


def test_signs_of_a_cephalogram():
    """Class III: the lower jaw ahead; an open bite; lips behind the line."""
    task = resolve_task("cephalogram")
    moved = {**FACE, "B point": (98, 68), "pogonion": (100, 82), "lower incisor": (96, 48), "anterior nasal spine": (92, 20),
             "lower lip": (95, 56)}  # fmt: skip
    v = {m.name: m.value for m in measure(LandmarkSet.of_positions(task, [moved[n] for n in task.names]))}
    assert v["ANB"] < 0 and v["facial angle"] > 90 and v["A-B plane angle"] > -3 and v["palatal plane angle"] < 0
    assert v["overjet along Frankfort"] == pytest.approx(-5) and v["A-B along Frankfort"] == pytest.approx(-10)
    assert v["lower lip to Sn-Pog'"] < 0 < v["upper lip to Sn-Pog'"] and v["APDI"] > 85 and v["ODI"] < 66


HASHES = {"cephalogram": "a8c10337d153fda2", "hand_xray": "bd369c88b4a826f5", "mouse_skull": "27477f8cfd648202"}


@pytest.mark.parametrize("name", HASHES)
def test_shipped_measurements_can_be_made_and_their_landmarks_keep_the_hash(name):
    task = resolve_task(name)
    rng = np.random.default_rng(0)
    landmarks = predicted(task, rng.uniform(0, 100, (len(task), task.dims)), spread(task))
    found = measure(landmarks)
    assert found and all(isinstance(m, Measured) and m.available and not m.interval_reason for m in found)
    assert task.hash == HASHES[name]
