"""A simulated annotator corrects the worst point first, and the summary counts what is left and what it took."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from landmarklabel.active.annotator import Clicks, click_through, summarize_clicks
from landmarklabel.data.cases import Case
from landmarklabel.data.grids import GridPlan
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.shape_prior import learn_prior
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, ScaleRule, Status
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.presets import find_preset

TASK = LandmarkTask("shape", tuple("abcdefghij"), 2)
SIZE = 64
GEOMETRY = ImageGeometry.identity((SIZE, SIZE), 1.0)
SHAPE = np.array([[12, 14], [50, 10], [30, 22], [18, 34], [40, 30], [12, 50], [34, 46], [52, 54], [24, 6], [56, 32.0]])


class Says(nn.Module):
    """A network that always points to the same places, and misses some landmarks."""

    def __init__(self, places: np.ndarray, missed: tuple[int, ...] = ()):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        at = torch.tensor(places)[:, :, None, None]
        self.logits = 20 - ((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2)[None].float()
        self.absent = torch.tensor([[99.0 if i in missed else -99.0 for i in range(len(places))]])

    def forward(self, image: torch.Tensor) -> MapsOutput:
        return MapsOutput(self.logits, self.logits, self.absent)


def model(network: Says, task: LandmarkTask = TASK, prior: bool = False) -> Localizer:
    preset = find_preset("scn:single", 2)
    preset = replace(preset, stride=1, optimization=replace(preset.optimization, precision="fp32"))
    rng = np.random.default_rng(0)
    labelled = [(GEOMETRY, LandmarkSet.of_positions(task, SHAPE + rng.normal(0, 0.4, SHAPE.shape))) for _ in range(20)]
    networks = NetworkRunner(preset, GridPlan((SIZE, SIZE), 1.0, 1), network)
    return Localizer(task, networks, prior=learn_prior(labelled) if prior else None)


def case(truth: LandmarkSet) -> Case:
    return Case("x", Image(GEOMETRY, np.zeros((SIZE, SIZE), np.float32)), truth, (0.0, 1.0))


def shifted(**by: float) -> np.ndarray:
    out = SHAPE.copy()
    for name, shift in by.items():
        out[TASK.index(name), 0] += shift
    return out


def clicks(assisted, alone) -> Clicks:
    return Clicks(np.array(assisted, float), np.array(alone, float))


FIRST = clicks([[6, 3, 3], [0, 1, 2], [0, 0, 1], [0, 0, 0]], [[6, 3, 3], [0, 3, 3], [0, 0, 3], [0, 0, 0]])
SECOND = clicks([[2, 1, 9], [1, 1, 0], [1, 0, 0], [0, 0, 0]], [[2, 1, 9], [2, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_errors_are_means_over_points_and_then_over_images_for_each_number_of_clicks():
    summary = summarize_clicks([FIRST, SECOND], 2)
    assert summary["n_images"] == 2
    assert summary["mre_mm"] == pytest.approx([4, (1 + 2 / 3) / 2, 1 / 3])
    assert summary["alone_mre_mm"] == pytest.approx([4, 1.5, 2 / 3])


def test_clicks_needed_are_those_until_every_point_is_near_enough():
    noc = summarize_clicks([FIRST, SECOND], 1)["noc"]
    assert noc == {"2": {"assisted": 1.0, "alone": 2.0}, "4": {"assisted": 1.0, "alone": 1.0}}
    right = clicks([[1, 2, 0], [0, 0, 0]], [[3, 2, 1], [0, 2, 1]])
    assert summarize_clicks([right], 1)["noc"]["2"] == {"assisted": 0.0, "alone": 1.0}
    assert summarize_clicks([FIRST, right], 1)["noc"]["2"] == {"assisted": 0.5, "alone": 2.0}


def test_after_the_last_click_nothing_changes_any_more():
    short = clicks([[5.0], [0.0]], [[5.0], [0.0]])
    assert summarize_clicks([short], 4)["mre_mm"] == [5.0, 0.0, 0.0, 0.0, 0.0]
    assert summarize_clicks([short, FIRST], 3)["alone_mre_mm"] == pytest.approx([4.5, 1.0, 0.5, 0.0])


def test_a_missing_point_counts_for_clicks_needed_but_not_in_the_means():
    missing = clicks([[1, np.inf, np.nan], [1, 0, np.nan], [0, 0, np.nan]], [[1, np.inf, np.nan], [1, 0, np.nan], [0, 0, np.nan]])
    summary = summarize_clicks([missing], 2)
    assert summary["mre_mm"] == [1.0, 0.5, 0.0]
    assert summary["noc"]["4"] == {"assisted": 1.0, "alone": 1.0}


def test_the_summary_is_json_without_gaps():
    summary = summarize_clicks([FIRST, SECOND], 5)
    text = json.dumps(summary, allow_nan=False)
    assert "null" not in text and json.loads(text) == summary
    nothing = clicks([[np.inf], [0.0]], [[np.inf], [0.0]])
    with_gap = json.loads(json.dumps(summarize_clicks([nothing], 1), allow_nan=False))
    assert with_gap["mre_mm"] == [None, 0.0]
    assert summarize_clicks([nothing, FIRST], 1)["mre_mm"][0] == 4.0


def test_an_image_that_never_comes_right_is_not_right_at_once():
    never = clicks([[np.inf, 5], [np.inf, 5], [np.inf, 5]], [[9, 5], [0, 5], [0, 0]])
    noc = summarize_clicks([never], 2)["noc"]
    assert noc["4"]["assisted"] >= 2 and noc["4"]["alone"] == 2


def test_an_image_whose_scale_cannot_be_told_does_not_speak_for_the_assistant():
    task, positions = replace(TASK, scale=ScaleRule("a", "b", 50.0)), SHAPE.copy()
    positions[1] = np.nan
    played = click_through(model(Says(shifted(c=-9)), task), case(LandmarkSet.of_positions(task, positions)))
    for noc in summarize_clicks([played], 2)["noc"].values():
        assert noc["assisted"] == noc["alone"]


def test_the_worst_point_is_corrected_first():
    said = model(Says(shifted(c=-9, e=5, a=3, h=-1.5)))
    played = click_through(said, case(LandmarkSet.of_positions(TASK, SHAPE)))
    for errors in (played.assisted, played.alone):
        assert errors.shape == (len(TASK) + 1, len(TASK))
        np.testing.assert_allclose(errors[0], [3, 0, 9, 0, 5, 0, 0, 1.5, 0, 0], atol=0.05)
        np.testing.assert_allclose(errors[:5].max(axis=1), [9, 5, 3, 1.5, 0], atol=0.05)
        assert (errors[-1] == 0).all() and (np.diff(errors, axis=0) <= 1e-9).all()
    assert summarize_clicks([played], 2)["noc"] == {"2": {"assisted": 3.0, "alone": 3.0}, "4": {"assisted": 2.0, "alone": 2.0}}


def test_with_a_shape_prior_fewer_clicks_are_needed():
    said = model(Says(shifted(f=11)), prior=True)
    played = click_through(said, case(LandmarkSet.of_positions(TASK, SHAPE)))
    np.testing.assert_allclose(played.alone[0], [0, 0, 0, 0, 0, 11, 0, 0, 0, 0], atol=0.05)
    assert played.assisted[0].max() < 2
    assert (played.assisted[-1] == 0).all()
    assert summarize_clicks([played], 2)["noc"]["2"] == {"assisted": 0.0, "alone": 1.0}


def test_a_point_the_model_misses_is_clicked_first_and_one_that_is_absent_never():
    positions = SHAPE.copy()
    positions[6] = np.nan
    status = [Status.ABSENT if i == 6 else Status.PLACED for i in range(len(TASK))]
    said = model(Says(shifted(c=-9), missed=(3,)))
    played = click_through(said, case(LandmarkSet(TASK, positions, status)))
    for errors in (played.assisted, played.alone):
        assert len(errors) == len(TASK)
        assert np.isnan(errors[:, 6]).all() and np.isfinite(np.delete(errors, 6, axis=1)[1:]).all()
        assert errors[0, 3] == np.inf and errors[1, 3] == 0
        np.testing.assert_allclose(errors[:3, 2], [9, 9, 0], atol=0.05)


def test_errors_are_in_mm_by_the_tasks_scale_rule():
    task = replace(TASK, scale=ScaleRule("a", "b", float(np.linalg.norm(SHAPE[0] - SHAPE[1])) / 2))
    played = click_through(model(Says(shifted(c=-9)), task), case(LandmarkSet.of_positions(task, SHAPE)))
    assert played.assisted[0, 2] == pytest.approx(4.5, abs=0.05) and played.alone[0, 2] == pytest.approx(4.5, abs=0.05)
