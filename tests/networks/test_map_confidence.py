"""A trained map is surer than it should be: what a crop's map says is softened as much as held-out images asked for."""

from __future__ import annotations

import math

import pytest
import torch

from landmarklabel.inference.configuration import SuggestionConfig
from landmarklabel.networks.heatmaps import decode_posterior


@pytest.mark.parametrize(("dims", "is_taken_for"), [(2, 9 ** (1 / 1.5)), (3, 9.0)])
def test_nine_times_as_likely_is_taken_for_four_times_in_a_radiograph_and_for_nine_times_in_a_volume(dims, is_taken_for):
    """Of two cells the map says that one is nine times as likely; the mean tells what was made of that."""
    logits = torch.full((1, 1, *(1,) * (dims - 1), 11), -1e9)
    logits[..., 0], logits[..., 10] = 0.0, math.log(9)
    decoded = decode_posterior(logits, SuggestionConfig().temperature(dims), iterations=0)
    assert float(decoded.index[0, 0, -1]) == pytest.approx(10 * is_taken_for / (1 + is_taken_for), rel=1e-5)
    assert float(decoded.peak[0, 0]) == pytest.approx(0.9)  # what the map says of itself stays as it is
