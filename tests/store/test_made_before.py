"""A study and a model made by an earlier version open unchanged, and answer the same."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from landmarklabel.inference.model import load_model
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.store import study_task
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "made_by_77eac5a.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    place = tmp_path_factory.mktemp("made_before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    return place / "made_by_77eac5a"


@pytest.fixture
def made(unpacked, tmp_path):
    """A copy of its own for every test."""
    return Path(shutil.copytree(unpacked, tmp_path / "made"))


def label_files(made):
    files = sorted((made / "study" / "labels").rglob("*"))
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in files if p.is_file()}


def test_the_study_opens_with_its_labels_and_no_label_file_is_rewritten(made):
    before, task = label_files(made), LandmarkTask.load(made / "task.json")
    for _ in range(2):
        study = Study(made / "study", task)
        assert study.notices == [] and study.sync() == []
        assert list(study.images()) == [f"c{i}" for i in range(6)] and list(study.labelled()) == [f"c{i}" for i in range(5)]
        assert [len(study.history(f"c{i}")) for i in range(6)] == [1, 2, 1, 1, 1, 0]
        assert study.history("c1")[1].author == "bob" and list(study.repeats()) == ["c2"]
        assert study.revisions.verify() == []
        study.close()
    assert label_files(made) == before and len(before) >= 5
    assert study_task.read_record(made / "study").task == task


def test_it_goes_on_from_there(made):
    study = Study(made / "study", LandmarkTask.load(made / "task.json"))
    moved = study.labels("c0").with_landmark(study.task.names[4], (11.0, 12.0), Status.PLACED)
    assert study.save("c0", moved, author="ann", base_revision=1).number == 2
    assert study.restore("c1", 1, author="ann").number == 3
    assert study.sync() == [] and study.revisions.verify() == []


def test_the_model_answers_the_same(made):
    study = Study(made / "study", LandmarkTask.load(made / "task.json"))
    model = load_model(ModelRegistry(study.models_dir / "scn").live(), study.task)
    kept = json.loads((made / "answers.json").read_text(encoding="utf-8"))
    given = {"fixed": {n: np.array(p) for n, p in kept["fixed"].items()}, "absent": kept["absent"]}
    for image_id, answers in kept["answers"].items():
        image = read_image(study.image_path(image_id), 2)
        alone = model.suggest(model.look(model.case(image_id, image)), image.geometry).landmarks
        moved = model.suggest(model.look(model.case(image_id, image)), image.geometry, **given).landmarks
        for found, answer in ((alone, answers["alone"]), (moved, answers["moved"])):
            assert [s.value for s in found.status] == answer["status"]
            for name in ("positions_mm", "expected_error_mm"):
                wanted = [[np.nan] * 2 if p is None else p for p in answer[name]] if name == "positions_mm" else answer[name]
                wanted = np.array(wanted, float)
                np.testing.assert_allclose(getattr(found, name), wanted, atol=0.01, equal_nan=True)
