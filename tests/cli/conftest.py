"""Phantoms, their study, and two models of a few steps, all made by the program; and a study to back up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from program import IDS, NAMES, WRIST_MM, Material, ok, write_names, write_table
from tests.cli.backed_up import TASK, points

from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import Image, write_image
from landmarklabel.io.markups import write_markups
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import Tokens


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """Six small phantoms, their table, a task made by the program, and a study with all of them."""
    folder = tmp_path_factory.mktemp("cli")
    scale = ("--scale", NAMES[0], NAMES[1], WRIST_MM)
    ok("task", "new", "hand", "--names", write_names(folder), "--dims", 2, *scale, "--out", folder / "hand.json")
    task, truth = LandmarkTask.load(folder / "hand.json"), {}
    (folder / "images").mkdir()
    for seed, image_id in enumerate(IDS):
        phantom = draw_phantom(phantom_task(2, len(NAMES)), seed, size=(80, 96), absent_fraction=0)
        write_image(folder / "images" / f"{image_id}.png", Image(phantom.geometry, phantom.pixels))
        truth[image_id] = LandmarkSet.of_positions(task, phantom.landmarks.positions_mm)
    truth["p5"] = truth["p5"].with_landmark(NAMES[-1], None, Status.ABSENT)
    made = Material(folder, task, truth)
    write_table(made.table, truth)
    ok("import", made.study, *made.source, "--table", made.table)
    return made


@pytest.fixture(scope="module")
def model(material) -> Path:
    """A model of four steps, with validation images."""
    (material.folder / "valid.txt").write_text("p4\np5.png  # by its file name\n", encoding="utf-8")
    what = ("--task", material.task_file, "--model", "scn", "--valid", material.folder / "valid.txt")
    done = ok("train", material.study, *what, "--steps", 4, "--seed", 3, "--device", "cpu", "--out", material.model)
    assert "4 images, 2 for validation" in done.out and "MRE" in done.out
    return material.model


@pytest.fixture(scope="module")
def other_model(material) -> Path:
    folder = material.folder / "other"
    words = ("--model", "scn:single", "--steps", 2, "--device", "cpu", "--out", folder)
    ok("train", material.study, "--task", material.task_file, *words)
    return folder


@pytest.fixture
def study(tmp_path) -> Path:
    """Two images, three revisions, a proposal, notes, a model that is only a file, and a token."""
    place = tmp_path / "study"
    place.mkdir()
    for name in ("x", "y"):
        sitk.WriteImage(sitk.GetImageFromArray(np.arange(80, dtype=np.uint8).reshape(8, 10)), str(place / f"{name}.png"))
    with Study(place, TASK) as opened:
        for name, value in (("x", 1), ("x", 2), ("y", 3)):
            opened.save(name, points(value), author="ann")
    (place / "labels" / "original").mkdir()
    (place / "labels" / "original" / "x.mrk.json").write_text("a proposal", encoding="utf-8")
    live = place / ".landmarklabel" / "models" / "scn" / "versions" / "0001"
    live.mkdir(parents=True)
    (live / "model.json").write_text("{}", encoding="utf-8")
    Tokens(place).new("ann", "annotator")
    return place


@pytest.fixture
def predictions(material, tmp_path) -> Path:
    """The truth moved by (3, 4) pixels, with one landmark of p0 not found."""
    for image_id, landmarks in material.truth.items():
        moved = LandmarkSet.of_positions(material.task, landmarks.positions_mm + (3.0, 4.0), Status.PREDICTED)
        moved = moved.with_landmark(NAMES[3], None, Status.ABSENT) if image_id == "p0" else moved
        write_markups(tmp_path / "predictions" / f"{image_id}.mrk.json", moved)
    return tmp_path / "predictions"
