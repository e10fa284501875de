"""Images turned or mirrored against the study's others are found by looking at them from other sides."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from landmarklabel.data.augment import random_rotation
from landmarklabel.data.cases import Case
from landmarklabel.data.grids import GridPlan
from landmarklabel.data.procrustes import Similarity
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import OrientationSearchConfig
from landmarklabel.inference.localizer import Localizer
from landmarklabel.inference.network_runner import NetworkRunner
from landmarklabel.inference.orientations import about_image_centre, candidate_orientations, is_far_from_expected
from landmarklabel.inference.shape_prior import PosePrior, learn_prior
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.validation import InTime, calibrate_and_validate

DIMS = pytest.mark.parametrize("dims", [2, 3])
CONFIG = OrientationSearchConfig()
TASK = LandmarkTask("discs", tuple("abcdefghi"), 2)
LEVELS = np.linspace(0.2, 1.0, len(TASK))  # the grey value of each landmark's disc
SHAPE = np.array([[-18, 4], [-10, -15], [11, -17], [15, 10], [-3, 18], [0, -5], [-9, 6], [6, 3], [2, 11.0]])
SIZE, MIDDLE = 64, 31.5
MIRROR = np.diag([-1.0, 1.0])


def rotation(angle: float, dims: int = 2) -> np.ndarray:
    turn = np.eye(dims)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


class UprightOracle(nn.Module):
    """Knows each disc by its grey value, but only where the last three lie to each other as usual; else it sees noise."""

    def __init__(self):
        super().__init__()
        self.calls, self.understood = 0, 0

    def forward(self, image: torch.Tensor) -> MapsOutput:
        self.calls += 1
        levels = torch.tensor(LEVELS, dtype=torch.float32)[None, :, None, None]
        like = nn.functional.avg_pool2d(torch.exp(-(((image - levels) / 0.02) ** 2)), 3, 1, 1) ** 4
        if self.is_upright(like[0]):
            self.understood += 1
        else:
            like = torch.rand(like.shape, generator=torch.Generator().manual_seed(self.calls)) ** 20
        logits = torch.log(like + 1e-8)
        return MapsOutput(logits, logits, torch.full((1, len(TASK)), -9.0))

    def is_upright(self, like: torch.Tensor) -> bool:
        row, column = (x.numpy() for x in (like[-3:].flatten(1).argmax(1) // SIZE, like[-3:].flatten(1).argmax(1) % SIZE))
        seen = np.stack([column, row], 1) @ [1, 1j]
        usual_places = SHAPE[-3:] @ [1, 1j]
        sides = (seen[1:] - seen[0]) / (usual_places[1:] - usual_places[0])
        return bool((np.abs(sides) > 0.4).all() and (np.abs(np.angle(sides)) < 0.5).all())


def discs(at: np.ndarray) -> Case:
    """An image of 1 mm samples with a disc of radius 3 mm at each position."""
    pixels = np.zeros((SIZE, SIZE), np.float32)
    y, x = np.indices(pixels.shape)
    for (px, py), level in zip(at, LEVELS, strict=True):
        pixels[(x - px) ** 2 + (y - py) ** 2 <= 9] = 100 * level
    return Case("discs", Image(ImageGeometry.identity((SIZE, SIZE), 1.0), pixels), None, (0.0, 100.0))


def localizer(**changes) -> Localizer:
    """A model with a shape prior of twelve upright cases."""
    rng, cases = np.random.default_rng(0), []
    for _ in range(12):
        matrix = random_rotation(rng, 2, 0.1) * np.exp(rng.normal(0, 0.05))
        points = (SHAPE + rng.normal(0, 0.4, SHAPE.shape)) @ matrix.T + MIDDLE + rng.normal(0, 2, 2)
        cases.append((ImageGeometry.identity((SIZE, SIZE), 1.0), LandmarkSet.of_positions(TASK, points)))
    preset = find_preset("scn:single", 2)
    preset = replace(preset, stride=1, optimization=replace(preset.optimization, precision="fp32"))
    plan = GridPlan((SIZE, SIZE), 1.0, 1)
    return Localizer(TASK, NetworkRunner(preset, plan, UprightOracle()), **{"prior": learn_prior(cases)} | changes)


def errors(found, at):
    return np.linalg.norm(found - at, axis=1)


@pytest.mark.parametrize("matrix", [np.eye(2), rotation(0.25), 1.15 * np.eye(2)])
def test_an_image_in_its_usual_pose_is_looked_at_once(matrix):
    model, at = localizer(), SHAPE @ matrix.T + MIDDLE
    seen = model.assess(discs(at))[0]
    assert errors(seen.positions_mm, at).max() < 1 and seen.sampling_transform is None
    assert model.networks.coarse_net.calls == 1


@pytest.mark.parametrize("matrix", [rotation(np.radians(130)), MIRROR])
def test_a_turned_or_mirrored_image_is_found_by_looking_from_other_sides(matrix):
    model, at = localizer(), SHAPE @ matrix.T + MIDDLE
    case = discs(at)
    assert np.median(errors(model.detect(case).positions_mm, at)) > 8
    seen = model.assess(case)[0]
    assert errors(seen.positions_mm, at).max() < 1
    assert seen.sampling_transform.mirrored == (np.linalg.det(matrix) < 0)
    turned = seen.sampling_transform.rotation @ np.linalg.inv(matrix)
    assert np.arccos(np.clip(np.trace(turned) / 2, -1, 1)) < 0.3
    told = model.suggest(seen, case.image.geometry)
    assert told.landmarks.defined.all() and not told.flagged.any()
    assert not model.needs_second_pass(seen, case.image.geometry, told.shape_fit)


@pytest.mark.parametrize(("left_s", "looks_again"), [(None, True), (60.0, True), (0.0, False), (-5.0, False)])
def test_where_time_is_up_an_image_is_looked_at_once(left_s, looks_again):
    """As a training does with its validation cases when ``--minutes`` are over."""
    model, at = localizer(), SHAPE @ rotation(np.radians(130)).T + MIDDLE
    hurried = InTime(model, None if left_s is None else time.monotonic() + left_s, cases=1)
    found = hurried.predict(discs(at))
    assert (model.networks.coarse_net.calls > 1) == looks_again
    assert (errors(found.positions_mm, at).max() < 1) == looks_again
    assert hurried.in_haste == (not looks_again)


def test_metrics_say_how_many_validation_cases_were_looked_at_in_haste():
    at = SHAPE @ rotation(np.radians(130)).T + MIDDLE
    turned, upright = discs(at), discs(SHAPE + MIDDLE)
    turned = replace(turned, landmarks=LandmarkSet.of_positions(localizer().task, at))
    upright = replace(upright, landmarks=LandmarkSet.of_positions(localizer().task, SHAPE + MIDDLE))
    metrics = calibrate_and_validate(localizer(), [turned, upright, turned], ends_at=time.monotonic() - 5)
    assert metrics["in_haste"] == 2
    assert "in_haste" not in calibrate_and_validate(localizer(), [turned, upright])


def test_an_image_that_needs_one_look_is_not_looked_at_in_haste():
    hurried = InTime(localizer(), time.monotonic() - 5, cases=1)
    hurried.predict(discs(SHAPE + MIDDLE))
    assert hurried.in_haste == 0


def test_without_a_shape_prior_there_is_only_one_look():
    model = localizer(prior=None)
    at = SHAPE @ rotation(np.radians(130)).T + MIDDLE
    assert np.median(errors(model.assess(discs(at))[0].positions_mm, at)) > 8
    assert model.networks.coarse_net.calls == 1


def test_an_image_without_the_shape_is_given_up_after_all_sides():
    model = localizer()
    case = discs(SHAPE + MIDDLE)
    case.image.pixels[:] = 0
    assert np.isfinite(model.assess(case)[0].positions_mm).all()
    assert model.networks.coarse_net.understood == 0
    assert (
        len(candidate_orientations(case.image.geometry, CONFIG))
        < model.networks.coarse_net.calls
        < 2 * len(candidate_orientations(case.image.geometry, CONFIG))
    )


@DIMS
def test_poses_near_the_usual_one_are_usual_and_turned_mirrored_or_small_ones_are_not(dims):
    expected_pose = PosePrior(Similarity(1.7 * rotation(0.4, dims), np.full(dims, 40.0)), (10.0, 0.1, 0.1))
    mirrored = np.diag([-1.0, 1.0, 1.0][:dims])
    for matrix, unusual in [
        (np.eye(dims), False),
        (rotation(0.3, dims), False),
        (1.25 * np.eye(dims), False),
        (rotation(-0.6, dims), True),
        (rotation(np.pi / 2, dims), True),
        (mirrored, True),
        (0.5 * np.eye(dims), True),
        (2.0 * np.eye(dims), True),
    ]:
        pose = Similarity(matrix @ expected_pose.mean.matrix, np.full(dims, -7.0))
        assert is_far_from_expected(pose, expected_pose, CONFIG) == unusual


@DIMS
def test_sides_start_upright_turn_about_the_middle_and_come_each_in_the_mirror(dims):
    geometry = ImageGeometry.identity((40, 60, 50)[:dims], 2.0, (5.0, -30.0, 7.0)[:dims])
    views, middle = candidate_orientations(geometry, CONFIG), np.mean(geometry.bounds_mm, axis=0)
    np.testing.assert_allclose(views[0].matrix, np.eye(dims), atol=1e-12)
    flip = about_image_centre(geometry, np.diag([-1.0, 1.0, 1.0][:dims]))
    for view in views:
        np.testing.assert_allclose(view.apply(middle[None])[0], middle)
        partner = view.after(flip)
        assert any(np.allclose(partner.matrix, other.matrix) for other in views)
        np.testing.assert_allclose(view.matrix @ view.matrix.T, view.scale**2 * np.eye(dims), atol=1e-9)
    assert sum(v.mirrored for v in views) == len(views) / 2


def test_from_one_of_the_sides_any_turned_image_looks_usual():
    geometry = ImageGeometry.identity((40, 60), 1.0)
    rng, expected_pose = np.random.default_rng(0), Similarity(np.eye(2), np.full(2, 20.0))
    for flip in (np.eye(2), MIRROR):
        for _ in range(50):
            pose = Similarity(random_rotation(rng, 2, None) @ flip, rng.normal(0, 30, 2))
            seen = [
                is_far_from_expected(view.inverse().after(pose), PosePrior(expected_pose, (1.0, 1.0, 1.0)), CONFIG)
                for view in candidate_orientations(geometry, CONFIG)
            ]
            assert not all(seen)
