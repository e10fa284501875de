"""``train`` says what it was given and what it made of it, and ends when it was told to."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from program import IDS, ok, run
from tests.thoroughness import times

from landmarklabel.io.files import write_json
from landmarklabel.io.markups import read_markups
from landmarklabel.landmarks import LandmarkTask, Status

TASK = LandmarkTask("three", ("A", "B", "C"), 2)


def study(folder: Path, images: dict[str, np.ndarray], table: str) -> Path:
    (folder / "images").mkdir()
    for image_id, pixels in images.items():
        Picture.fromarray(pixels).save(folder / "images" / f"{image_id}.png")
    write_json(folder / "task.json", TASK.to_json())
    (folder / "t.csv").write_text(table, encoding="utf-8")
    words = ("--task", folder / "task.json", "--images", folder / "images", "--table", folder / "t.csv")
    ok("import", folder / "study", *words)
    return folder / "study"


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64)).astype(np.uint8)


@pytest.fixture
def odd(tmp_path) -> Path:
    """C is never labelled, one image is all grey, and there is nothing for validation."""
    images = {"a": noise(0), "b": noise(1), "grey": np.full((64, 64), 7, np.uint8)}
    table = "id,A_x,A_y,B_x,B_y,C_x,C_y\na,10,10,40,40,,\nb,12,11,41,39,,\ngrey,11,11,40,40,,\n"
    return study(tmp_path, images, table)


def test_what_training_is_given_and_what_it_made(odd, tmp_path):
    done = ok("train", odd, "--model", "scn", "--steps", 4, "--device", "cpu", "--out", tmp_path / "model", "--no-publish")
    for text in (
        "1 of 3 landmarks have no label in any training case and will be answered unset: C",
        "1 images have the same grey value everywhere, nothing can be learned from them: grey",
        "no validation cases: how far the model is off will not be measured and its confidence not be calibrated",
    ):
        assert text in done.err, text
    few = r"the model was hardly trained \(\d+ of \w+.* steps; 100 of each are a minimum\): .*, until it is trained for longer"
    never = "how far the model is off was never measured: it had no validation cases"
    assert re.search(few, done.err) and never in done.err
    done = ok("predict", tmp_path / "model", tmp_path / "images", "--out", tmp_path / "out")
    assert re.search(few, done.err) and never in done.err
    of = "3 of 3 predictions (a, b, grey) are of a model that was hardly trained: for trying things out only"
    words = ("--task", tmp_path / "task.json")
    assert of in ok("evaluate", tmp_path / "out", tmp_path / "t.csv", "--include-training", *words).err
    assert of in run("shapes", tmp_path / "out", "--out", tmp_path / "shapes", *words).err  # though C makes no shape
    for image_id in ("a", "b", "grey"):
        landmarks = read_markups(tmp_path / "out" / f"{image_id}.mrk.json", TASK)
        assert landmarks.status[2] is Status.UNSET and np.isnan(landmarks.positions_mm[2]).all()
    record = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert record["untaught"] == ["C"] and sum(record["steps"].values()) == 4
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    again = ok("train", odd, "--model", "scn", "--steps", 2, "--device", "cpu", "--out", tmp_path / "model", "--no-publish")
    assert f"the model that was in {tmp_path / 'model'} is now in {tmp_path / 'model-1'}" in again.err
    assert (tmp_path / "model-1" / "model.safetensors").read_bytes() == weights
    words = ("--model", "global_local:noothout2020", "--accumulate", 2, "--steps", 2, "--device", "cpu", "--no-publish")
    refused = run("train", odd, *words, "--out", tmp_path / "model-1")
    assert refused.code == 2 and "train it without --devices and --accumulate" in refused.err
    assert f"the model that was in {tmp_path / 'model-1'} is there again" in refused.err
    assert (tmp_path / "model-1" / "model.safetensors").read_bytes() == weights


def test_phases_come_in_their_order_and_are_told_without_a_terminal(material, tmp_path):
    words = ("--task", material.task_file, "--model", "scn", "--device", "cpu", "--out", tmp_path / "model", "--no-publish")
    done = ok("train", material.study, *words, "--steps", 40)
    told = re.findall(r"(?m)^(\d+) %: (\w+) step", done.out)
    assert len(told) >= 8, done.out
    assert [int(percent) for percent, _ in told] == sorted(int(percent) for percent, _ in told)
    phases = [phase for _, phase in told]
    assert phases == sorted(phases) and set(phases) == {"locate", "refine"}, phases  # each once, in this order


@pytest.mark.timed
def test_minutes_are_minutes_of_the_clock(material, tmp_path):
    """Reading, measuring on the validation cases and calibration included, after a start of the program of its own."""
    ids = tmp_path / "valid.txt"
    ids.write_text("\n".join(IDS[4:]), encoding="utf-8")
    words = ("--task", material.task_file, "--model", "scn", "--device", "cpu", "--valid", ids, "--out", tmp_path / "model")
    run("train", material.study, *words, "--steps", 2, "--no-publish")  # what is compiled or read the first time is
    for number in range(times(1, in_full=3)):
        started = time.monotonic()
        ok("train", material.study, *words[:-1], tmp_path / f"model{number}", "--no-publish", "--minutes", 0.75)
        assert abs(time.monotonic() - started - 45) < 4.5
