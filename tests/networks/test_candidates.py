"""The best places of a landmark, the likeliest first: each with its share of the map, and all with one presence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landmarklabel.networks.decoding import decode_candidates
from landmarklabel.networks.default import MapsOutput

PEAKS = {(8.0, 10.0): 0.6, (30.0, 12.0): 0.3, (20.0, 40.0): 0.1}  # row and column, and how likely


def output() -> MapsOutput:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    density = sum(p * torch.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2)) / (2 * torch.pi) for (y, x), p in PEAKS.items())
    logits = torch.log(density + 1e-12)[None, None]
    return MapsOutput(logits, logits, torch.tensor([[-3.0]]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_places_come_in_the_order_of_their_likelihood_with_their_share(count):
    found = decode_candidates(nn.Identity(), output(), 1, None, count)
    assert len(found) == count
    for one, (place, share) in zip(found, PEAKS.items(), strict=False):
        assert one.index[0, 0].tolist() == pytest.approx(list(place), abs=0.05)
        assert float(one.mass) == pytest.approx(share, rel=0.03)
        assert torch.equal(one.presence, found[0].presence)
    assert 0.5 < float(found[0].presence) < 1
