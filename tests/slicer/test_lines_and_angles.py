"""``measure --slicer``: what it writes measures the same in Slicer's own nodes as in our table."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from landmarklabel.cli import main
from landmarklabel.io.files import write_json
from landmarklabel.io.markups import write_markups
from landmarklabel.io.measurement_markups import write_lines_and_angles
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule
from landmarklabel.measurement_definitions import Measurement
from landmarklabel.services.descriptions import image_plane

MEASURED = (
    Measurement("a / b", "distance", (("a",), ("b",))),
    Measurement("a : b", "distance", (("a",), ("c",))),
    Measurement("opening", "angle", (("a",), ("b",), ("c", "d"))),
    Measurement("index", "ratio", of=("a / b", "a : b")),
)
NODES = {"length": "Line", "angle": "Angle"}


def read_by_slicer(scene, path, kind: str):
    node = scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node")
    storage = scene.AddNode(slicer.vtkMRMLMarkupsJsonStorageNode())
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


@pytest.mark.parametrize("dims", [2, 3])
def test_slicers_own_nodes_measure_what_the_table_says(scene, tmp_path, dims, capsys):
    task = LandmarkTask("four", tuple("abcd"), dims, measurements=MEASURED)
    write_json(tmp_path / "task.json", task.to_json())
    (tmp_path / "labels").mkdir()
    rng = np.random.default_rng(dims)
    for number in range(3):
        at = rng.normal(size=(4, dims)) * 40 + 100
        if number == 2:
            at[3] = np.nan
        write_markups(tmp_path / "labels" / f"case{number}.mrk.json", LandmarkSet.of_positions(task, at))
    words = ["measure", str(tmp_path / "labels"), "--task", str(tmp_path / "task.json"), "--slicer", str(tmp_path / "nodes")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "nodes: 8 lines and angles; Slicer has no node that measures the same as the other 1 of 4" in said.err
    rows = {(row["id"], row["measurement"]): row for row in csv.DictReader(said.out.splitlines())}
    files = {"a / b": "a _ b.mrk.json", "a : b": "a _ b 2.mrk.json", "opening": "opening.mrk.json"}
    for number in range(3):
        folder = tmp_path / "nodes" / f"case{number}"
        there = {name: file for name, file in files.items() if name != "opening" or number < 2}  # which needs d
        assert sorted(p.name for p in folder.iterdir()) == sorted(there.values())
        for name, file in there.items():
            kind = "angle" if name == "opening" else "length"
            node = read_by_slicer(scene, folder / file, NODES[kind])
            node.UpdateAllMeasurements()
            value = node.GetMeasurement(kind).GetValue()
            assert value == pytest.approx(float(rows[f"case{number}", name]["value"]), abs=1e-4)  # as the table is rounded
            assert node.GetNthControlPointLabel(0) == "a" and node.GetLocked()
    assert (
        read_by_slicer(scene, tmp_path / "nodes" / "case0" / "opening.mrk.json", "Angle").GetNthControlPointLabel(2)
        == "middle of c, d"
    )
    assert main(words) == 2 and "not empty: give another --slicer" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert main([*words, "--readers"]) == 2 and "leave --readers out" in capsys.readouterr().err


def test_lengths_of_a_scale_rule_are_left_out_as_slicer_would_measure_others(tmp_path, capsys):
    scale = ScaleRule("a", "b", 50.0)
    task = LandmarkTask("four", tuple("abcd"), 2, measurements=MEASURED, scale=scale)
    write_json(tmp_path / "task.json", task.to_json())
    (tmp_path / "labels").mkdir()
    at = np.array([[0, 0], [10, 0], [10, 10], [10, 20.0]])
    write_markups(tmp_path / "labels" / "case.mrk.json", LandmarkSet.of_positions(task, at))
    words = ["measure", str(tmp_path / "labels"), "--task", str(tmp_path / "task.json"), "--slicer", str(tmp_path / "nodes")]
    assert main(words) == 0 and "1 lines and angles; Slicer has no node" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "nodes" / "case").iterdir()] == ["opening.mrk.json"]


def test_on_a_slice_of_a_volume_they_lie_where_the_slice_does(scene, tmp_path):
    task = LandmarkTask("four", tuple("abcd"), 2, measurements=MEASURED)
    volume = sitk.Image([40, 30, 1], sitk.sitkUInt8)
    volume.SetOrigin((5, 6, 70))
    volume.SetSpacing((2, 2, 3))
    sitk.WriteImage(volume, str(tmp_path / "slice.nii.gz"))
    plane = image_plane(tmp_path / "slice.nii.gz", 2)
    found = LandmarkSet.of_positions(task, np.array([[10, 10], [40, 10], [40, 50], [20, 20.0]]))
    write_lines_and_angles(tmp_path / "case", found, plane)
    node = read_by_slicer(scene, tmp_path / "case" / "a _ b.mrk.json", "Line")
    ends = [node.GetNthControlPointPosition(k) for k in range(2)]
    assert np.allclose([[-x, -y, z] for x, y, z in ends], plane.lift(found.positions_mm[:2])) and ends[0][2] == pytest.approx(70)


@pytest.mark.parametrize(("name", "file"), [("角" * 60, "角" * 33), ("con", "_con"), ("..", "measurement"), ("a/../b", "a_.._b")])
def test_names_of_files_are_what_every_system_takes(tmp_path, name, file):
    task = LandmarkTask("two", ("a", "b"), 2, measurements=(Measurement(name, "distance", (("a",), ("b",))),))
    found = LandmarkSet.of_positions(task, np.array([[0, 0], [1, 1.0]]))
    assert write_lines_and_angles(tmp_path / "case", found) == [f"{file}.mrk.json"]
    assert [p.name for p in (tmp_path / "case").iterdir()] == [f"{file}.mrk.json"]
