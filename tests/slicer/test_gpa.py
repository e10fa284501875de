"""Folders for SlicerMorph's GPA, read as it reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from batch_material import NAMES, TASK, in_slicer, ras
from LandmarkLabelLib.batch import export_gpa
from LandmarkLabelLib.wire import ABSENT, ACCEPTED, PLACED, PREDICTED, UNSET, Point


def specimen(seed: int, *states: str) -> list[Point]:
    places = np.random.default_rng(seed).uniform(-50, 50, (len(NAMES), 3))
    states = states or (PLACED,) * len(NAMES)
    rows = zip(NAMES, states, places.tolist(), strict=True)
    return [Point(n, s, tuple(p) if s not in (UNSET, ABSENT) else None) for n, s, p in rows]


def as_gpa_reads(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names and (landmarks, 3, specimens): files by name, only numbers of points compared, coordinates as they stand there."""
    paths = sorted(folder.glob("*.mrk.json"))
    tables = [pandas.DataFrame.from_dict(pandas.read_json(p)["markups"][0]["controlPoints"]) for p in paths]
    assert len({len(t) for t in tables}) == 1 and all((t["positionStatus"] == "defined").all() for t in tables)
    assert all((t["description"] != "Semi").all() for t in tables)
    return [p.name for p in paths], np.stack([np.array(t["position"].tolist()) for t in tables], axis=2)


def test_gpa_gets_complete_specimens_in_one_order(tmp_path, scene):
    cases = [
        ("mouse 1", specimen(1)[::-1]),
        ("mouse 2", specimen(2, PLACED, ACCEPTED, PLACED, ACCEPTED)),
        ("mouse 3", specimen(3, PLACED, ABSENT, UNSET, PLACED)),
        ("mouse 4", specimen(4, PLACED, PLACED, PREDICTED, PLACED)),
        ("mouse 5", specimen(5)[:3]),
        ("../mouse 1", specimen(6)),
        ("mouse 1", specimen(7)),
    ]
    lacking = export_gpa(cases, TASK, tmp_path / "gpa")
    assert lacking == [
        "mouse 3: sella is absent, menton is unset",
        "mouse 4: menton is only predicted",
        f"mouse 5: {NAMES[3]} is unset",
    ]
    names, read = as_gpa_reads(tmp_path / "gpa")
    assert names == sorted(["mouse 1.mrk.json", "mouse 1_2.mrk.json", "mouse 2.mrk.json", "__mouse 1.mrk.json"])
    seeds = {"mouse 1.mrk.json": 1, "mouse 1_2.mrk.json": 7, "mouse 2.mrk.json": 2, "__mouse 1.mrk.json": 6}
    for i, name in enumerate(names):
        expected = np.array([p.position for p in specimen(seeds[name])])
        np.testing.assert_allclose(read[:, :, i], expected, atol=1e-6)
        node = in_slicer(scene, tmp_path / "gpa" / name)
        assert [node.GetNthControlPointLabel(k) for k in range(4)] == list(NAMES)
        np.testing.assert_allclose([ras(node, k) for k in range(4)], expected * (-1, -1, 1), atol=1e-9)


def test_gpa_without_some_landmarks_and_with_predictions(tmp_path):
    cases = [("a", specimen(1, PREDICTED, ABSENT, ACCEPTED, PLACED)), ("b", specimen(2, PLACED, PLACED, UNSET, PLACED))]
    assert export_gpa(cases, TASK, tmp_path / "one", ["sella", "menton"]) == ["a: nasion is only predicted"]
    assert export_gpa(cases, TASK, tmp_path / "two", ["sella", "menton"], predicted=True) == []
    assert as_gpa_reads(tmp_path / "two")[1].shape == (2, 3, 2)
    assert export_gpa(cases, TASK, tmp_path / "three", ["menton"], predicted=True) == ["a: sella is absent"]


def test_gpa_is_refused_what_it_would_mix_up(tmp_path):
    with pytest.raises(ValueError, match=r"^the task 'head' has no landmark 'Sella' to leave out$"):
        export_gpa([], TASK, tmp_path / "gpa", ["Sella"])
    with pytest.raises(ValueError, match=r"^all landmarks are left out: nothing to compare is left$"):
        export_gpa([], TASK, tmp_path / "gpa", NAMES)
    assert not (tmp_path / "gpa").exists()
    assert export_gpa([("a", specimen(1))], TASK, tmp_path / "gpa") == []
    with pytest.raises(ValueError, match=r"gpa has a.mrk.json, which GPA would take for a specimen: choose an empty folder$"):
        export_gpa([("b", specimen(2))], TASK, tmp_path / "gpa")
