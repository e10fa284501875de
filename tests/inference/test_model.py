"""A model folder is data: it gives the same answers by its own record, what does not fit is refused by one line of text, and
reading it runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from landmarklabel import __version__
from landmarklabel.data.batches import CropPlan, GridPlan
from landmarklabel.data.synthetic import draw_phantom, phantom_task
from landmarklabel.errors import ModelError
from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.configuration import InferenceConfig, SuggestionConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.model import load_model, save_model
from landmarklabel.inference.model_record import read_record
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkTask, Status
from landmarklabel.networks import build, presets
from landmarklabel.networks.presets import find_preset

TASK = phantom_task(2, 3)
N = len(TASK)


def narrow(network, dims, n, *args, **settings):
    *head, widths = args
    return network(dims, n, *head, tuple(max(8, w // 32 * 8) for w in widths), **settings)


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DefaultSCN", "FineNet"):
            patch.setattr(build, name, partial(narrow, getattr(build, name)))
        yield
    torch.set_num_threads(threads)


def untrained(refine=True, reference=None, config=None):
    torch.manual_seed(0)
    preset = find_preset("scn:default")
    networks = NetworkRunner(
        preset, GridPlan((64, 96), None, 32), build.build_coarse_net(preset, 2, N).eval(), config=config or InferenceConfig()
    )
    if refine:
        networks.crops = CropPlan(32, 1.5)
        networks.fine_net = build.build_fine_net(preset, 2, N, networks.crops.scales).eval()
    return Localizer(TASK, networks, Calibration(0.3, 0.5, (0.1, -0.2, 0.1), 0.0, 7), reference=reference)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", untrained(), {"seed": 3, "metrics": {}})
    return tmp_path / "m"


def content_of(folder):
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def with_record(folder, content):
    (folder / "model.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def image():
    phantom = draw_phantom(TASK, 0, size=(64, 96))
    return Image(phantom.geometry, phantom.pixels)


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("reference", [None, np.arange(12, dtype=np.float64).reshape(3, 4)])
def test_a_model_comes_back_to_the_bit(tmp_path, image, refine, reference):
    model = untrained(refine, reference)
    if refine:
        networks = model.networks
        networks.grid, networks.crops = replace(networks.grid, field=(32, 64)), replace(networks.crops, rounds=2)
    save_model(tmp_path, model, {"seed": 1})
    again = load_model(tmp_path, TASK)
    assert (again.networks.grid, again.networks.crops) == (model.networks.grid, model.networks.crops)
    assert again.calibration == model.calibration
    assert again.preset == model.preset and (again.networks.fine_net is not None) == refine
    assert not again.networks.coarse_net.training and (again.reference is None) == (reference is None)
    for key, value in model.networks.coarse_net.state_dict().items():
        assert torch.equal(again.networks.coarse_net.state_dict()[key], value)
    one, two = model.predict(image), again.predict(image)
    np.testing.assert_array_equal(one.positions_mm, two.positions_mm)
    np.testing.assert_array_equal(one.expected_error_mm, two.expected_error_mm)
    assert set(one.status) == {Status.PREDICTED} and (one.expected_error_mm > 0).all()


def test_below_the_threshold_a_landmark_is_absent_and_has_no_numbers(image):
    model = untrained()
    model.calibrate(replace(model.calibration, presence_threshold=1.1))
    found = model.predict(image)
    assert set(found.status) == {Status.ABSENT}
    assert np.isnan(found.positions_mm).all() and np.isnan(found.expected_error_mm).all()
    assert np.isfinite(found.presence).all()


def test_a_model_tells_its_own_task_when_none_is_given(folder):
    assert load_model(folder).task == TASK and read_record(folder)["seed"] == 3


def test_a_task_with_other_definitions_is_served_and_kept(folder):
    task = LandmarkTask("renamed", TASK.names, 2)
    assert load_model(folder, task).task is task


@pytest.mark.parametrize("names, dims", [(TASK.names[::-1], 2), (TASK.names[:2], 2), (TASK.names, 3)])
def test_another_tasks_model_is_refused(folder, names, dims):
    with pytest.raises(ModelError, match="trained for task 'phantom2d' with other landmarks than task 'other' has"):
        load_model(folder, LandmarkTask("other", names, dims))


def test_a_missing_model_says_so(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=r"no trained model here \(model.json is missing\)"):
            load_model(place)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "not a model record of this program"),
        (b'{"format": "other", "version": 1}', "not a model record of this program"),
        (b'{"format": "landmarklabel-model", "version": 0}', "not a model record of this program"),
        (b'{"format": "landmarklabel-model", "version": true}', "not a model record of this program"),
        (b'{"format": "landmarklabel-model", "version": "2"}', "not a model record of this program"),
        (b'{"format": "landmarklabel-model", "version": 1}', "there was no model"),
        (b'{"format": "landmarklabel-model", "version": 2}', "is damaged"),
        (b" " * (21 * 2**20), "larger than"),
    ],
)
def test_a_damaged_record_is_refused(folder, text, message):
    (folder / "model.json").write_bytes(text)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": None},
        {"grid": {}},
        {"grid": {"size": [64, 96], "spacing_mm": None, "multiple": 32, "more": 1}},
        {"grid": {"size": 64, "spacing_mm": None, "multiple": 32}},
        {"crops": {"zoom": 2}},
        {"crops": 7},
        {"calibration": {"offsets": None}},
        {"calibration": []},
        {"task": {"format": "landmarklabel-task", "version": 1, "name": "x", "dims": 9, "landmarks": []}},
        {"task": "phantom2d"},
        {"preset": "scn:unheard-of"},
        {"preset": None},
        {"configuration": None},
        {"configuration": {}},
        {"configuration": {"preset": {}, "inference": {}}},
        {"weights_sha256": None},
        {"weights_sha256": "0" * 64},
    ],
)
def test_a_changed_record_is_refused_by_text(folder, changes):
    with_record(folder, content_of(folder) | changes)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert len(str(caught.value)) > 20


def test_changed_missing_or_cut_weights_are_refused(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for wrong in (data[:-1] + bytes([data[-1] ^ 1]), data[:-100], b"", data + b"\0"):
        path.write_bytes(wrong)
        with pytest.raises(ModelError, match=r"model\.safetensors: its sha256 is not the one model\.json names"):
            load_model(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        load_model(folder)


def with_weights(folder, content: bytes) -> None:
    """Replace the weights and name their hash, as an attacker would."""
    (folder / "model.safetensors").write_bytes(content)
    with_record(folder, content_of(folder) | {"weights_sha256": hashlib.sha256(content).hexdigest()})


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_a_matching_hash_is_refused_and_not_run(folder, tmp_path):
    canary = tmp_path / "canary"
    with_weights(folder, pickle.dumps(Canary(canary)))
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        load_model(folder)
    torch.save(Canary(canary), tmp_path / "t")
    with_weights(folder, (tmp_path / "t").read_bytes())
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        load_model(folder)
    assert not canary.exists()


def test_an_oversized_header_is_refused_before_it_is_parsed(folder):
    with_weights(folder, (2**40).to_bytes(8, "little") + b"{}" * 100)
    with pytest.raises(ModelError, match=r"not a safetensors file \(header of 1099511627776 bytes\)"):
        load_model(folder)


@pytest.mark.parametrize("change", ["missing", "too many", "shape"])
@pytest.mark.parametrize("part", ["locator", "refiner"])
def test_weights_of_another_network_are_refused(folder, part, change):
    tensors, meta = load_tensors(folder / "model.safetensors")
    key = next(k for k in tensors if k.startswith(part))
    if change == "missing":
        del tensors[key]
    elif change == "too many":
        tensors[f"{part}.extra"] = torch.zeros(1)
    else:
        tensors[key] = torch.zeros(1, 2, 3)
    save_tensors(folder / "w", tensors, meta)
    with_weights(folder, (folder / "w").read_bytes())
    with pytest.raises(ModelError, match=f"the weights do not fit the {part}"):
        load_model(folder)


def test_saving_again_replaces_the_whole_model(folder):
    other = untrained(refine=False)
    save_model(folder, other, {"seed": 9})
    assert load_model(folder).networks.fine_net is None and read_record(folder)["seed"] == 9
    assert sorted(p.name for p in folder.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]


def test_a_record_without_a_field_or_rounds_is_read_as_it_was_meant(folder):
    record = content_of(folder)
    del record["grid"]["field"], record["crops"]["rounds"]
    with_record(folder, record)
    again = load_model(folder)
    assert again.networks.grid.field is None and again.networks.crops.rounds == 1


@pytest.mark.parametrize("rounds", [0, 1000])
def test_rounds_that_nobody_would_plan_are_refused(folder, rounds):
    record = content_of(folder)
    record["crops"]["rounds"] = rounds
    with_record(folder, record)
    with pytest.raises(ModelError, match=f"{rounds} rounds of crops"):
        load_model(folder)


# ------------------------------------------------------------------ versions and the configuration of a record


def same_answers(one, two, image):
    a, b = one.predict(image), two.predict(image)
    for part in ("positions_mm", "expected_error_mm", "covariance_mm2", "presence"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    return a.status == b.status


def as_version_1(content):
    """The record as that version wrote it: the preset by its name alone."""
    return {k: v for k, v in content.items() if k not in ("configuration", "program")} | {"version": 1}


def test_a_record_says_which_program_wrote_it_and_all_that_the_answer_depends_on(folder):
    content = content_of(folder)
    assert content["version"] == 2 and content["program"] == __version__
    assert set(content["configuration"]) == {"preset", "inference"}
    assert content["configuration"]["preset"]["widths"] == {"2": [48, 96, 128, 160], "3": [48, 96, 128]}


@pytest.mark.parametrize("refine", [True, False])
def test_a_record_of_version_1_gives_the_same_answers(tmp_path, image, refine):
    model = untrained(refine)
    save_model(tmp_path, model, {"seed": 1})
    with_record(tmp_path, as_version_1(content_of(tmp_path)))
    again = load_model(tmp_path, TASK)
    assert again.preset == model.preset and again.config == model.config and again.calibration == model.calibration
    assert same_answers(model, again, image)
    assert read_record(tmp_path)["version"] == 2 and read_record(tmp_path)["seed"] == 1


def test_a_record_of_version_1_means_what_that_version_meant(folder, image, monkeypatch):
    """Not what the program would choose today."""
    before = load_model(folder)
    with_record(folder, as_version_1(content_of(folder)))
    monkeypatch.setattr(presets, "PRESETS", ())
    again = load_model(folder)
    assert again.preset == before.preset and same_answers(before, again, image)


def test_a_preset_that_version_1_did_not_have_is_refused(folder):
    for preset in ("scn:unheard-of", "x" * 10_000, None, ["scn"]):
        with_record(folder, as_version_1(content_of(folder)) | {"preset": preset})
        with pytest.raises(ModelError, match="there was no model .* in version 1") as caught:
            load_model(folder)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("version", [3, 4, 10**30])
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


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("suggestion", "temperature_2d", 0, "SuggestionConfig.temperature_2d is 0.0, it must be a number from 0.01 to inf"),
        ("shape", "samples", 10**9, "ShapeModelConfig.samples is 1000000000, it must be a number from 1 to 100000"),
        ("pose_search", "orientations", "8", "InferenceConfig.pose_search.orientations is '8', which is not a int"),
        ("shape", "start_sd", [0.3, 0.1], "InferenceConfig.shape.start_sd is '[0.3, 0.1]'"),
        ("shape", "clicked_sd", float("inf"), "ShapeModelConfig.clicked_sd is inf, it must be a number from 0 to inf"),
        ("calibration", "unheard_of", 1, "InferenceConfig.calibration has no field 'unheard_of'"),
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
