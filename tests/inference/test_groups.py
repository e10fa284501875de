"""Landmarks that move together are confused together: found by the prior, and found out as a whole."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest
from shapes import ShapeModel, candidates, geometry, limbs

from landmarklabel.inference.shape_fit import Assignment, fit_shape_to_candidates
from landmarklabel.inference.shape_prior import learn_prior


class Limbs(ShapeModel):
    """Every limb moves as a whole, mostly as the other limbs do."""

    @cached_property
    def covariance(self) -> np.ndarray:
        n, d = self.mean.shape
        shared = np.random.default_rng(1).normal(0, 0.1, (5, 2))
        limb = np.kron(shared @ shared.T + 0.02**2 * np.eye(5), np.ones((n // 5, n // 5)))
        return self.size**2 * np.kron(limb + self.jitter**2 * np.eye(n), np.eye(d))


@pytest.mark.parametrize("dims", [2, 3])
def test_landmarks_that_move_together_form_a_group(dims):
    model = Limbs(limbs(dims))
    step = len(model.mean) // 5
    for prior in (model.prior(), learn_prior(model.cases(60, 0))):
        groups = {tuple(group.tolist()) for group in prior.groups}
        assert {tuple(range(i, i + step)) for i in range(0, 5 * step, step)} <= groups
        assert all(2 <= len(group) <= len(model.mean) / 2 for group in groups)


def test_a_limb_moved_as_a_whole_is_found_out_though_it_agrees_with_itself():
    model = Limbs(limbs(2))
    prior = model.prior()
    expected_pose, step = prior.pose_distribution.in_image(geometry(2)), len(model.mean) // 5
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = model.draw(rng)
        wrong = step * rng.integers(5) + np.arange(step)
        way = rng.normal(size=2)
        first = truth.copy()
        first[wrong] += 25 * way / np.linalg.norm(way)
        shape_fit = fit_shape_to_candidates(prior, expected_pose, candidates(rng, first), {})
        assert (shape_fit.assignment[wrong] == Assignment.UNASSIGNED).all()
        assert (np.delete(shape_fit.assignment, wrong) == Assignment.FIRST_CANDIDATE).all()
        assert np.linalg.norm(shape_fit.positions_mm - truth, axis=1)[wrong].mean() < 5


def test_three_landmarks_have_no_groups():
    model = ShapeModel(limbs(2)[[0, 6, 14]])
    assert model.prior().groups == []
