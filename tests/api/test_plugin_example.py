"""The example plugin, installed beside the program as a user would, and used by it: reader, network and strategy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.io.images import read_image
from landmarklabel.landmarks import LandmarkSet
from landmarklabel.store.study import Study

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "landmarklabel_plugin"
TASK = phantom_task(2, 4)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """A folder that the example was installed into by pip."""
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    target = tmp_path_factory.mktemp("site")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([sys.executable, *words, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def program(plugin: Path, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "lib"), str(plugin)])}
    command = [sys.executable, "-m", "landmarklabel", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def study(plugin, tmp_path_factory) -> Path:
    """Six phantoms in the made-up format and a table of their points, imported by the program."""
    folder = tmp_path_factory.mktemp("plugin_study")
    (folder / "images").mkdir()
    (folder / "task.json").write_text(json.dumps(TASK.to_json()), encoding="utf-8")
    rows = []
    for seed in range(6):
        phantom = draw_phantom(TASK, seed, size=(64, 80), spacing=0.5, absent_fraction=0)
        header = f"grid 64 80 0.5 0.5\n{chr(10).join(' '.join(map(str, row)) for row in phantom.pixels)}\n"
        (folder / "images" / f"p{seed}.grid").write_text(header, encoding="utf-8")
        places = (phantom.landmarks.positions_mm - phantom.geometry.origin).ravel()
        rows.append(",".join([f"p{seed}", *map(str, places)]))
    (folder / "points.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = ("--task", folder / "task.json", "--images", folder / "images", "--table", folder / "points.csv")
    program(plugin, "import", folder / "study", *given)
    return folder / "study"


def test_an_image_of_the_made_up_format_is_kept_as_one_that_everybody_reads(study):
    kept = read_image(study / "p0.nrrd", 2)
    assert kept.geometry.size == (64, 80) and kept.geometry.spacing.tolist() == [0.5, 0.5]
    phantom = draw_phantom(TASK, 0, size=(64, 80), spacing=0.5, absent_fraction=0)
    assert np.array_equal(kept.pixels, phantom.pixels)
    with Study.open(study) as opened:
        assert sorted(opened.labelled()) == [f"p{seed}" for seed in range(6)]
        assert isinstance(opened.labels("p0"), LandmarkSet)


def test_the_network_is_listed_trains_and_predicts(plugin, study, tmp_path):
    assert "example:small" in program(plugin, "train", "--help").stdout
    done = program(plugin, "train", study, "--model", "example:small", "--steps", 4, "--out", tmp_path / "model", "--no-publish")
    assert "training example:small" in done.stdout
    record = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert record["preset"] == "example:small"
    program(plugin, "predict", tmp_path / "model", study.parent / "images", "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.mrk.json"))) == 6


def test_without_the_plugin_its_model_and_format_are_refused_in_words(plugin, study, tmp_path):
    program(plugin, "train", study, "--model", "example:small", "--steps", 1, "--out", tmp_path / "model", "--no-publish")
    nothing = tmp_path / "nothing"
    refused = program(nothing, "predict", tmp_path / "model", study / "p0.nrrd", "--out", tmp_path / "out", code=2)
    assert "no network called 'landmarklabel_plugin.small_net" in refused.stderr
    assert "is the plugin installed that it was trained with?" in refused.stderr
    refused = program(nothing, "predict", tmp_path / "model", study.parent / "images", "--out", tmp_path / "out", code=2)
    assert "no images in" in refused.stderr


def test_the_strategy_chooses_the_cases(plugin, study, tmp_path):
    words = ("--strategies", "latest", "--seeds", 1, "--counts", "1,2", "--model", "example:small", "--steps", 2)
    valid = tmp_path / "valid.txt"
    valid.write_text("p0\n", encoding="utf-8")
    program(plugin, "simulate", "labels", study, *words, "--valid", valid, "--out", tmp_path / "curves")
    record = json.loads((tmp_path / "curves" / "latest" / "seed0" / "0002" / "model.json").read_text(encoding="utf-8"))
    assert sorted(record["train_labels"]) == ["p4", "p5"]


def test_a_damaged_file_of_the_format_is_refused_with_the_readers_reason(plugin, tmp_path, study):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.grid").write_text("no grid\n", encoding="utf-8")
    words = ("import", tmp_path / "study", "--task", study.parent / "task.json", "--images", tmp_path / "images")
    refused = program(plugin, *words, code=2)
    assert "bad.grid: the plugin that reads .grid" in refused.stderr and "the first line must be: grid" in refused.stderr
