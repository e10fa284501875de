"""``measure --slicer``: what it writes measures the same in Slicer's own nodes as in our table."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import slicer

from landmarklabel.cli import main
from landmarklabel.io.files import write_json
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.measurement_definitions import Measurement

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
    assert "nodes: 8 lines and angles; 1 of the 4 measurements are neither distances nor angles between points" in said.err
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
    assert main([*words, "--readers"]) == 2 and "leave --readers out" in capsys.readouterr().err
