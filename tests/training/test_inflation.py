"""How much the shape prior is to be trusted beside the fine map is what gives the smallest error on validation cases."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from landmarklabel.data.cases import Case
from landmarklabel.geometry import ImageGeometry
from landmarklabel.inference.configuration import InferenceConfig
from landmarklabel.inference.evidence import Candidates, Evidence
from landmarklabel.io.images import Image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask
from landmarklabel.training.validation import calibrate

TASK = LandmarkTask("spots", tuple("abcdef"), 2)


class Model:
    """Is the further off, the further the inflation is from the best one."""

    config, task = InferenceConfig(), TASK

    def __init__(self, best: float) -> None:
        self.best = best

    def calibrate(self, calibration):
        self.calibration = calibration

    def suggest(self, evidence, geometry):
        error = 1 + abs(np.log(self.calibration.prior_inflation / self.best))
        at = np.zeros((len(TASK), 2)) + [error, 0]
        found = Evidence(at, evidence.covariance_mm2, evidence.presence, evidence.peak_mass, at, evidence.candidates)
        return SimpleNamespace(final_evidence=found)


def chosen(best, cases):
    n = len(TASK)
    at, spread = np.zeros((n, 2)), np.tile(np.eye(2), (n, 1, 1))
    evidence = Evidence(at, spread, np.full(n, 0.9), np.ones(n), at, Candidates(at[:, None], np.ones((n, 1)), spread[:, None]))
    image = Image(ImageGeometry.identity((8, 8), 1.0), np.zeros((8, 8), np.float32))
    case = Case("spot", image, LandmarkSet.of_positions(TASK, at), (0.0, 1.0))
    model = Model(best)
    calibrate(model, [case] * cases, [evidence] * cases)
    return model.calibration


@pytest.mark.parametrize("best", [4.0, 8.0, 16.0, 64.0])
def test_the_inflation_with_the_smallest_error_is_kept_and_the_expected_error_is_the_one_with_it(best):
    calibration = chosen(best, 8)
    assert calibration.prior_inflation == best
    assert calibration.intercept == pytest.approx(0.0)  # the error of 1 mm


@pytest.mark.parametrize("best", [4.0, 16.0])
def test_with_seven_cases_nothing_is_chosen(best):
    calibration = chosen(best, 7)
    assert calibration.prior_inflation == 8.0
    assert calibration.intercept == pytest.approx(np.log(1 + np.log(2)))
