"""What our voting loss charges for: cells that do not know, and displacements of cells near the landmark."""

from __future__ import annotations

import pytest
import torch

from landmarklabel.data.presence import Presence
from landmarklabel.networks.global_local import VotesOutput, VotingNet, cell_centres
from landmarklabel.training.losses import softmax_votes_loss

SHAPE = (4, 5, 3)  # cells
DIMS = pytest.mark.parametrize("dims", [2, 3])


def perfect(dims: int) -> tuple[VotingNet, VotesOutput, torch.Tensor]:
    """A network, an output whose cells all point at the one landmark, and the landmark's place in input samples."""
    network = VotingNet(dims, 1, (8, 8))
    shape = SHAPE[:dims]
    index = torch.tensor([[[13.0, 17.5, 9.0][:dims]]])
    displacement = (index[0, 0] - cell_centres(shape, network.cell, index.device)).movedim(-1, 0)[None, None]
    return network, VotesOutput(torch.zeros(1, 1, *shape), network.encode(displacement), torch.zeros(1, 1)), index


def loss(network, output, index, state=Presence.PRESENT) -> float:
    return float(softmax_votes_loss(output, network, index, torch.tensor([[state]])))


@DIMS
def test_pointing_one_cell_off_costs_nearly_two_however_many_cells_do(dims):
    """As much as a cell that is named with a seventh of the right probability: votes count beside the classes."""
    network, output, index = perfect(dims)
    right = loss(network, output, index)
    for by in (1.0, -1.0):
        off = output.displacement.clone()
        off[:, :, 0] += by
        wrong = loss(network, output._replace(displacement=off), index)
        assert wrong - right == pytest.approx(2 * (1 - 0.05), rel=1e-4)  # the first tenth of a cell costs half


@DIMS
def test_only_cells_near_a_landmark_that_is_there_point_at_it(dims):
    network, output, index = perfect(dims)
    right, off = loss(network, output, index), output.displacement.clone()
    cells = cell_centres(SHAPE[:dims], network.cell, index.device)
    far = (cells - index[0, 0]).norm(dim=-1) > 2.5 * network.cell
    assert far.any() and not far.all()
    off[0, 0, :, far] += 1.0
    some = loss(network, output._replace(displacement=off), index)
    assert 0 < some - right < 0.5 * 1.9  # all of them: 1.9
    nowhere = torch.full_like(index, torch.nan)
    for state in (Presence.ABSENT, Presence.UNKNOWN):
        assert loss(network, output._replace(displacement=off), nowhere, state) == loss(network, output, nowhere, state)
