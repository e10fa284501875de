"""Phantoms, their study, and two models of a few steps, all made by the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import IDS, NAMES, WRIST_MM, Material, ok, write_names, write_table

from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status


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
