"""A study and a model made by an earlier version open unchanged, and answer the same."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch

from landmarklabel.inference.model_folder import load_model
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.store import study_task
from landmarklabel.store.study import Study
from landmarklabel.training.publishing import ModelRegistry

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "made_by_77eac5a.tar.xz"
ANSWERS = ARCHIVE.parent / "answers_fp32.json"
NUMBERS = ("positions_mm", "expected_error_mm", "covariance_mm2")


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


def answered(made, precision: str | None = None) -> dict[str, dict[str, LandmarkSet]]:
    """What the model says of each image by itself (``alone``), and with a person's points (``moved``)."""
    study = Study(made / "study", LandmarkTask.load(made / "task.json"))
    model = load_model(ModelRegistry(study.models_dir / "scn").live(), study.task)
    model.networks.precision = precision
    kept = json.loads((made / "answers.json").read_text(encoding="utf-8"))
    given = {"fixed": {n: np.array(p) for n, p in kept["fixed"].items()}, "absent": kept["absent"]}
    out = {}
    for image_id in kept["answers"]:
        image = read_image(study.image_path(image_id), 2)
        evidence, _ = model.assess(model.case(image_id, image))
        found = {"alone": model.suggest(evidence, image.geometry), "moved": model.suggest(evidence, image.geometry, **given)}
        out[image_id] = {way: suggestion.landmarks for way, suggestion in found.items()}
    study.close()
    return out


def numbers(rows) -> np.ndarray:
    """Nested lists with None for what is not known, as an array with NaN."""
    return np.array([numbers(row) if isinstance(row, list) else np.nan if row is None else row for row in rows], float)


def test_the_model_answers_the_same(made):
    kept = json.loads((made / "answers.json").read_text(encoding="utf-8"))["answers"]
    for image_id, found in answered(made, "fp32").items():  # as the answers were kept
        for way, answer in kept[image_id].items():
            assert [s.value for s in found[way].status] == answer["status"]
            positions = [[np.nan] * 2 if p is None else p for p in answer["positions_mm"]]
            for name, wanted in (("positions_mm", positions), ("expected_error_mm", answer["expected_error_mm"])):
                np.testing.assert_allclose(getattr(found[way], name), np.array(wanted, float), atol=0.01, equal_nan=True)


# ------------------------------------------------------------------ to the bit, in fp32


def environment() -> dict[str, object]:
    """What floating-point results depend on beside the program."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    said = {key: next((x.partition(":")[2].strip() for x in lines if x.startswith(key)), "") for key in ("model name", "flags")}
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "processor": said["model name"] or platform.processor(),
        "instructions": f"{torch.backends.cpu.get_cpu_capability()} {hashlib.sha256(said['flags'].encode()).hexdigest()[:16]}",
        "threads": 1,
    }


def answered_in_fp32(made) -> dict[str, dict[str, dict]]:
    """``answered`` without bf16, on one thread, as JSON holds it: every float in full, None for NaN."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = answered(made, "fp32")
    finally:
        torch.set_num_threads(threads)
    return {image_id: {way: as_json(landmarks) for way, landmarks in ways.items()} for image_id, ways in found.items()}


def as_json(landmarks: LandmarkSet) -> dict[str, list]:
    def listed(values):
        return [listed(v) for v in values] if isinstance(values, list) else None if np.isnan(values) else values

    return {"status": [s.value for s in landmarks.status]} | {name: listed(getattr(landmarks, name).tolist()) for name in NUMBERS}


def test_the_model_answers_the_same_to_the_bit_where_the_machine_is_the_same(made):
    kept, found = json.loads(ANSWERS.read_text(encoding="utf-8")), answered_in_fp32(made)
    assert set(found) == set(kept["answers"]) and all(set(ways) == {"alone", "moved"} for ways in found.values())
    if environment() == kept["environment"]:
        assert found == kept["answers"]
    for image_id, ways in kept["answers"].items():
        for way, answer in ways.items():
            assert found[image_id][way]["status"] == answer["status"]
            for name in NUMBERS:
                off = {"atol": 0.01, "rtol": 0} if name != "covariance_mm2" else {"atol": 0.01, "rtol": 0.01}
                np.testing.assert_allclose(numbers(found[image_id][way][name]), numbers(answer[name]), equal_nan=True, **off)


if __name__ == "__main__":  # python -m tests.store.test_made_before records the answers anew
    with tempfile.TemporaryDirectory() as folder, tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
        answers = answered_in_fp32(Path(folder) / ARCHIVE.name.split(".")[0])
    rows = [f"  {json.dumps(image_id)}: {json.dumps(ways, allow_nan=False)}" for image_id, ways in answers.items()]
    text = f'{{"environment": {json.dumps(environment())},\n "answers": {{\n' + ",\n".join(rows) + "\n }}\n"
    ANSWERS.write_text(text, encoding="utf-8")
