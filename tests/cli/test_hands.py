"""The hand radiographs: all of them import, and the wrist rule gives the published scale."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from landmarklabel.cli import main
from landmarklabel.store.study import Study
from landmarklabel.tasks import resolve_task

pytestmark = pytest.mark.real_data


def test_import_of_the_hand_set(data_dir, tmp_path, capsys):
    source, folder = data_dir / "hand_xray", tmp_path / "study"
    words = ["--task", "hand_xray", "--images", str(source / "images"), "--table", str(source / "landmarks.csv")]
    assert main(["import", str(folder), *words]) == 0
    printed = capsys.readouterr()
    assert "112 images, 112 labelled (112 new or changed)" in printed.out and "landmarklabel:" not in printed.err
    study = Study(folder, resolve_task("hand_xray"))
    labels, numbers = study.labelled(), study.revisions.numbers()
    study.close()
    with (source / "landmarks.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert sorted(labels) == sorted(rows) and len(rows) == 112 and set(numbers.values()) == {1}
    for image_id, row in rows.items():
        stated = [[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(37)]
        np.testing.assert_array_equal(labels[image_id].positions_mm, stated)
        assert labels[image_id].scaled_to_mm() == pytest.approx(float(row["wrist_mm_per_px"]), rel=1e-4)
        assert (folder / "labels" / "final" / f"{image_id}.mrk.json").exists()
