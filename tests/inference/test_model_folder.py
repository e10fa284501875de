"""A model folder is data: it gives the same answers by its own record, what does not fit is refused by one line of text, and
reading it runs nothing."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.inference.saved_models import TASK, content_of, untrained, with_record

from landmarklabel.errors import ModelError
from landmarklabel.inference.model_card import cautions
from landmarklabel.inference.model_folder import load_model, save_model
from landmarklabel.inference.model_record import read_record
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.landmarks import LandmarkTask, Status

pytestmark = pytest.mark.usefixtures("small_networks")


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


@pytest.mark.parametrize(("steps", "said"), [({"locate": 1, "refine": 500}, "**Hardly trained** (1 of locate steps"), ({}, "")])
def test_the_card_of_a_model_that_was_hardly_trained_says_so(tmp_path, steps, said):
    save_model(tmp_path, untrained(), {"steps": steps, "training": {"gate": {"min_steps": 100}}})
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert said in card and ("Hardly trained" in card) == bool(said)


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (0, ["how far the model is off was never measured: it had no validation cases"]),
        (
            18,
            ["how far the model is off was measured on 18 cases only, which tells little of others; 19 are needed"],
        ),
        (19, []),
    ],
)
def test_few_validation_cases_are_a_caution(cases, said):
    told = cautions(
        {"valid_ids": [f"c{i}" for i in range(cases)], "steps": {"locate": 500}, "training": {"gate": {"min_steps": 100}}}
    )
    assert len(told) == len(said) and all(text.startswith(start) for text, start in zip(told, said, strict=True))


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
