"""``model.json`` says which version wrote it and all that the answer depends on; other versions are read or refused in words."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.inference.saved_models import TASK, N, content_of, untrained, with_record

from landmarklabel import __version__
from landmarklabel.errors import ModelError
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import CalibrationConfig, CandidateConfig, InferenceConfig, SuggestionConfig
from landmarklabel.inference.model_folder import load_model, save_model
from landmarklabel.inference.model_record import HASH, read_record
from landmarklabel.networks import presets

pytestmark = pytest.mark.usefixtures("small_networks")


# ------------------------------------------------------------------ versions and the configuration of a record


def same_answers(one, two, image):
    a, b = one.predict(image), two.predict(image)
    for part in ("positions_mm", "expected_error_mm", "covariance_mm2", "presence"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    return a.status == b.status


def as_version_1(content):
    """The record as that version wrote it: the preset by its name alone."""
    return {k: v for k, v in content.items() if k not in ("configuration", "program", HASH)} | {"version": 1}


def as_version_2(content):
    """As that version wrote it: without a hash, and with the candidates' numbers among those of the search for poses."""
    configuration = {**content["configuration"]}
    inference = {k: v for k, v in configuration["inference"].items() if k not in ("candidates", "mean_shape", "mirror")}
    kept = content["configuration"]["inference"]["candidates"]
    search = inference.pop("orientation_search") | {"candidates": kept["per_landmark"]}
    search["max_candidates"] = kept["max_per_landmark"]
    inference["pose_search"] = search | {key: kept[key] for key in ("min_peak_mass", "refound_mass")}
    calibration = {**inference["calibration"]}
    inference["calibration"] = calibration | {"local_weights": calibration.pop("fine_presence_weights")}
    kept_keys = {k: v for k, v in content.items() if k != HASH}
    return kept_keys | {"version": 2, "configuration": {**configuration, "inference": inference}}


def test_a_record_says_which_program_wrote_it_and_all_that_the_answer_depends_on(folder):
    content = content_of(folder)
    assert content["version"] == 3 and content["program"] == __version__
    assert set(content["configuration"]) == {"preset", "inference"}
    assert content["configuration"]["preset"]["widths"] == {"2": [48, 96, 128, 160], "3": [48, 96, 128]}


def with_the_grids_of_version_1(preset):
    """What a training would take where cases come in any orientation has changed since; no answer depends on it."""
    return replace(preset, grid_size_any_orientation={2: 384 * 272, 3: 48**3})


@pytest.mark.parametrize("refine", [True, False])
def test_a_record_of_version_1_gives_the_same_answers(tmp_path, image, refine):
    model = untrained(refine)
    save_model(tmp_path, model, {"seed": 1})
    with_record(tmp_path, as_version_1(content_of(tmp_path)))
    again = load_model(tmp_path, TASK)
    assert again.preset == with_the_grids_of_version_1(model.preset)
    assert again.config == model.config and again.calibration == model.calibration
    assert same_answers(model, again, image)
    assert read_record(tmp_path)["version"] == 3 and read_record(tmp_path)["seed"] == 1


def test_a_record_of_version_2_gives_the_same_answers_with_its_own_numbers(tmp_path, image):
    calibration = CalibrationConfig(fine_presence_weights=(0.5,))
    config = InferenceConfig(candidates=CandidateConfig(2, 4, 0.05, 0.1), calibration=calibration)
    model = untrained(config=config)
    save_model(tmp_path, model, {"seed": 1})
    with_record(tmp_path, as_version_2(content_of(tmp_path)))
    again = load_model(tmp_path, TASK)
    assert again.config == config and same_answers(model, again, image)


def change(content, *path, to):
    """A copy in which one value is another."""
    copy = json.loads(json.dumps(content))
    *way, last = path
    functools.reduce(lambda part, key: part[key], way, copy)[last] = to
    return copy


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("seed",), 2),
        (("configuration", "preset", "stride"), 0),
        (("configuration", "preset", "scale_to_minus1_1"), True),
        (("calibration", "presence_threshold"), 1e11),
        (("metrics",), {"mre_mm": "abc"}),
        (("train_pixels",), 7),
        (("record_sha256",), None),
        (("record_sha256",), "0" * 64),
    ],
    ids=str,
)
def test_a_record_that_was_changed_since_it_was_saved_is_refused(folder, path, to):
    """Whatever was changed: most changes would give other answers without a word."""
    with_record(folder, change(content_of(folder), *path, to=to), signed=False)
    with pytest.raises(ModelError, match=r"model\.json: changed or damaged since the model was saved; copy the model anew"):
        read_record(folder)


def test_a_record_that_only_looks_otherwise_is_the_same(folder):
    content = content_of(folder)
    text = json.dumps(dict(reversed(content.items())), indent=4)
    (folder / "model.json").write_text(text, encoding="utf-8")
    assert read_record(folder) == content


def test_landmarks_in_another_order_than_the_weights_know_are_refused(folder):
    content = content_of(folder)
    turned = {**content, "task": {**content["task"], "landmarks": content["task"]["landmarks"][::-1]}}
    with_record(folder, turned)
    with pytest.raises(ModelError, match="its landmarks are not those that its weights were trained for"):
        load_model(folder)


def test_a_record_of_version_1_means_what_that_version_meant(folder, image, monkeypatch):
    """Not what the program would choose today."""
    before = load_model(folder)
    with_record(folder, as_version_1(content_of(folder)))
    monkeypatch.setattr(presets, "PRESETS", ())
    again = load_model(folder)
    assert again.preset == with_the_grids_of_version_1(before.preset) and same_answers(before, again, image)


def test_a_preset_that_version_1_did_not_have_is_refused(folder):
    for preset in ("scn:unheard-of", "x" * 10_000, None, ["scn"]):
        with_record(folder, as_version_1(content_of(folder)) | {"preset": preset})
        with pytest.raises(ModelError, match="there was no model .* in version 1") as caught:
            load_model(folder)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("version", [4, 5, 10**30])
def test_a_record_of_a_newer_program_is_refused_and_says_so(folder, version):
    with_record(folder, content_of(folder) | {"version": version, "program": "9.1"})
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert f"made by a newer version of this program (9.1; this is {__version__}); update it" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "../../x"}, "the preset 'scn:../../x'"),
        ({"method": "/etc"}, "the preset '/etc:default'"),
        ({"method": "global_local"}, "the preset 'global_local:default' is not the 'scn:default' that the record names"),
        ({"name": "x" * 65}, "the preset 'scn:xxx"),
        ({"dims": [3]}, "not for 2D"),
        ({"widths": {"2": [10**6] * 4}}, "a network of widths"),
        ({"widths": {"2": [32] * 9}}, "a network of widths"),
        ({"widths": {"2": [0, 32, 32]}}, "a network of widths"),
        ({"refine": {"widths": {"2": [32, 10**6]}}}, "a network of widths"),
        ({"network": "../x"}, "no network called '../x'"),
        ({"widths": {}}, "describes no network that this program can build"),
        ({"widths": {"2": "48"}}, "Preset.widths"),
        ({"more": 1}, "Preset has no field 'more'"),
        ({"stride": "4"}, "Preset.stride is '4', which is not a int"),
    ],
)
def test_a_preset_that_nobody_would_make_is_refused_in_words(folder, changes, said):
    """A record is somebody else's file: its names become folders, and networks are built as wide as it says."""
    content = content_of(folder)
    preset = content["configuration"]["preset"] = content["configuration"]["preset"] | changes
    if preset["name"] != "default" or preset["method"] == "/etc":
        content["preset"] = f"{preset['method']}:{preset['name']}"
    with_record(folder, content)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_that_describes_far_larger_networks_than_its_weights_costs_no_memory(folder):
    content = content_of(folder)
    for table in (content["configuration"]["preset"], content["configuration"]["preset"]["refine"]):
        table["widths"] = {"2": [2048] * 8}
    with_record(folder, content)
    code = """
import resource, sys
from landmarklabel.errors import ModelError
from landmarklabel.inference.model_folder import load_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_model(sys.argv[1])
except ModelError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root / "lib")}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    said, mebibytes = done.stdout.splitlines()
    assert "the weights do not fit the locator: " in said and int(mebibytes) < 500, done.stderr


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("suggestion", "temperature_2d", 0, "SuggestionConfig.temperature_2d is 0.0, it must be a number from 0.01 to inf"),
        ("shape", "samples", 10**9, "ShapeModelConfig.samples is 1000000000, it must be a number from 1 to 10000"),
        ("orientation_search", "orientations", "8", "InferenceConfig.orientation_search.orientations is '8', which is not a int"),
        ("shape", "start_sd", [0.3, 0.1], "InferenceConfig.shape.start_sd is '[0.3, 0.1]'"),
        ("shape", "clicked_sd", float("inf"), "ShapeModelConfig.clicked_sd is inf, it must be a number from 0 to inf"),
        ("calibration", "unheard_of", 1, "no field 'unheard_of'), so another one made it (0.1.0"),
    ],
)
def test_numbers_nobody_would_choose_are_refused_by_name(folder, part, field, value, said):
    content = content_of(folder)
    content["configuration"]["inference"][part][field] = value
    with_record(folder, content)
    with pytest.raises(ModelError, match=re.escape(said)):
        load_model(folder)


def test_the_configuration_in_the_record_decides_and_not_todays_defaults(folder, image):
    content, before = content_of(folder), load_model(folder)
    assert content["configuration"]["inference"]["suggestion"]["temperature_2d"] == SuggestionConfig().temperature_2d
    content["configuration"]["inference"]["suggestion"]["temperature_2d"] = 40.0
    with_record(folder, content)
    again = load_model(folder)
    assert again.config == InferenceConfig(suggestion=SuggestionConfig(temperature_2d=40.0))
    one, two = before.predict(image), again.predict(image)
    assert (one.positions_mm != two.positions_mm).any(axis=1).all()
    before.networks.config = again.config
    assert same_answers(before, again, image)


def test_a_model_made_with_other_numbers_keeps_them(tmp_path, image):
    model = untrained(config=InferenceConfig(suggestion=SuggestionConfig(temperature_2d=0.2)))
    save_model(tmp_path, model, {})
    again = load_model(tmp_path)
    assert again.config == model.config != InferenceConfig() and same_answers(model, again, image)


# ------------------------------------------------------------------ the card


def card(folder):
    return (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_card_says_what_the_model_is_how_well_it_does_and_what_it_is_not(tmp_path):
    model = untrained()
    model.never_labelled = TASK.names[1:2]
    metrics = {"n_images": 21, "mre_mm": 1.234, "median_mm": 0.987, "sdr": {"2": 87.5, "4": None}, "unit": "px"}
    labels = {f"case{i}": "0" for i in range(9)}
    save_model(tmp_path, model, {"seed": 3, "minutes": 12.0, "metrics": metrics, "train_labels": labels, "valid_ids": ["a"]})
    said, record = card(tmp_path), content_of(tmp_path)
    assert said.startswith(f"# Landmark model: {TASK.name}\n") and "**Not a medical device.**" in said
    assert f"Finds {N} landmarks in 2D images: {', '.join(TASK.names)}" in said
    assert "`scn:default`" in said and f"LandmarkLabel {__version__}" in said and record["weights_sha256"] in said
    assert f"answered unset: {TASK.names[1]}" in said and "9 labelled training cases, 1 validation cases" in said
    assert "12.0 minutes" in said and "Seed 3" in said
    assert "On the 21 validation cases" in said and "Mean radial error 1.23 px, median 0.99 px" in said
    assert "87.5 % within 2 px" in said and "within 4" not in said
    assert "no 95 % regions" in said


def test_the_card_of_a_model_nobody_measured_says_so(tmp_path):
    model = untrained()
    model.calibrate(Calibration())
    save_model(tmp_path, model, {"metrics": {}})
    assert "Not measured: there were no validation cases." in card(tmp_path)
    assert "it states no expected errors" in card(tmp_path) and "**Not a medical device.**" in card(tmp_path)


def test_the_card_of_what_is_known_in_part_has_that_part(tmp_path):
    save_model(tmp_path, untrained(), {"metrics": {"mre_mm": 1.5}})
    assert "Mean radial error 1.50 mm" in card(tmp_path) and "None" not in card(tmp_path)
