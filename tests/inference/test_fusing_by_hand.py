"""The fine map beside what the other landmarks say: a bell of known width, and a prior that is wide or narrow."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import SIDE, ShapeModel, candidates, geometry, limbs

from landmarklabel.inference.calibration import Calibration
from landmarklabel.inference.evidence import Evidence, FineMaps
from landmarklabel.inference.suggestion import suggest

# so many cells a side, 1 mm apart: less than the 256 that are weighed
GRIDS = {2: 15, 3: 6}


def told(dims, width, inflation, shift=0.0):
    """Expected errors where the maps are bells of this width (mm, an axis), ``shift`` along x from the truth; and the truth."""
    model, rng = ShapeModel(limbs(dims)), np.random.default_rng(0)
    truth = model.mean + SIDE / 2  # where the others expect each
    n, side = len(truth), np.arange(GRIDS[dims]) - (GRIDS[dims] - 1) / 2
    cells = np.stack(np.meshgrid(*[side] * dims), axis=-1).reshape(-1, dims)
    first = candidates(rng, truth, noise=0.01)
    logits = np.tile(-0.5 * ((cells - shift * np.eye(dims)[0]) ** 2).sum(1) / width**2, (n, 1))
    maps = FineMaps(logits, truth[:, None] + cells)
    seen = Evidence(truth, first.covariance_mm2[:, 0], np.full(n, 0.9), np.ones(n), truth, first, maps)
    calibration = Calibration(0.0, 1.0, (0.0,) * n, cases=50, prior_inflation=inflation)
    found = suggest(model.task, geometry(dims), model.prior(), seen, calibration).landmarks
    return found.expected_error_mm, found.positions_mm - truth


@pytest.mark.parametrize(("dims", "width", "flatter"), [(2, 1.2, 1.5), (2, 1.6, 1.5), (3, 0.7, 1.0)])
def test_where_the_others_say_nothing_a_map_is_as_wide_as_it_is_and_in_the_plane_half_again_as_much(dims, width, flatter):
    """A trained map is surer than it should be: in the plane its logits are divided by 1.5, and so is its precision."""
    expected, moved = told(dims, width, inflation=1e9)
    np.testing.assert_allclose(expected, np.sqrt(dims * flatter) * width, rtol=0.03)
    np.testing.assert_allclose(moved, 0, atol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_surer_the_others_are_the_less_a_map_beside_the_truth_counts(dims):
    steps = [told(dims, 0.8, inflation, shift=1.0) for inflation in (1e9, 4.0, 0.5)]
    along = [np.abs(moved[:, 0]).mean() for _, moved in steps]
    assert along == sorted(along, reverse=True) and along[0] == pytest.approx(1.0, abs=0.1) and along[-1] < 0.5
    widths = [expected.mean() for expected, _ in steps]
    assert widths == sorted(widths, reverse=True)
