"""Facts of the published global-to-local networks, and decoding votes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landmarklabel.networks.decoding import decode_votes
from landmarklabel.networks.global_local import (
    NoothoutGlobal,
    NoothoutLocal,
    ResidualPair,
    VotesOutput,
    VotingNet,
    cell_centres,
    decode_log,
    encode_log,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("dims", "landmarks", "millions", "cell"), [(3, 8, 16.13, 8), (2, 19, 5.60, 32)])
def test_global_network_has_the_published_size_and_cells(dims, landmarks, millions, cell):
    with torch.device("meta"):
        network = NoothoutGlobal(dims, landmarks)
        output = network(torch.empty(2, 1, *(4 * cell,) * dims))
    assert round(parameters(network) / 1e6, 2) == millions
    assert network.cell == cell
    assert output.logits.shape == (2, landmarks, *(4,) * dims)
    assert output.displacement.shape == (2, landmarks, dims, *(4,) * dims)
    assert sum(isinstance(m, ResidualPair) for m in network.modules()) == 3 + 4 + 6 + 3


@pytest.mark.parametrize(("dims", "landmarks", "millions"), [(3, 8, 0.267), (2, 19, 0.101)])
def test_local_networks_have_the_published_size_a_landmark(dims, landmarks, millions):
    with torch.device("meta"):
        network = NoothoutLocal(dims, landmarks)
    assert round(parameters(network) / landmarks / 1e6, 3) == millions


@pytest.mark.parametrize("dims", [2, 3])
def test_local_networks_are_specialised_and_do_not_mix(dims):
    torch.manual_seed(0)
    network = NoothoutLocal(dims, 3).eval()
    crops = torch.rand(4, 1, *(16,) * dims)
    output = network(crops, torch.tensor([2, 0, 2, 1]))
    assert output.logits.shape == (4, 1, *(8,) * dims)
    alone = network(crops[[2]], torch.tensor([2]))
    torch.testing.assert_close(output.logits[2], alone.logits[0])
    other = network(crops[[2]], torch.tensor([1]))
    assert (output.logits[2] - other.logits[0]).abs().max() > 1e-4


def test_log_displacement_is_inverted():
    x = torch.linspace(-300, 300, 1001)
    torch.testing.assert_close(decode_log(encode_log(x)), x, atol=1e-3, rtol=1e-4)
    assert encode_log(torch.tensor(9.0)) == 1  # sign(d) log10(|d| + 1)


@pytest.mark.parametrize("dims", [2, 3])
def test_votes_find_a_point_between_cells_and_ignore_wild_ones(dims):
    network = VotingNet(dims, 1, (8, 8, 8)).eval()
    shape, cell = (6,) * dims, network.cell
    truth = torch.tensor([17.3, 25.9, 30.2])[:dims]
    exact = (truth - cell_centres(shape, cell)).movedim(-1, 0)[None, None]
    distance = exact.square().sum(2).sqrt()
    logits = -distance / cell
    displacement = exact.clone()
    far = distance.flatten().argmax()
    displacement.view(dims, -1)[:, far] = 3 * cell  # a confident cell far away that votes for somewhere else
    logits.view(-1)[far] = 0.0
    output = VotesOutput(logits, network.encode(displacement), torch.full((1, 1), -20.0))
    decoded = decode_votes(output, network)
    torch.testing.assert_close(decoded.index[0, 0], truth, atol=0.5, rtol=0)
    assert decoded.presence[0, 0] > 0.99
    assert decode_votes(output._replace(absent=torch.full((1, 1), 20.0)), network).presence[0, 0] < 0.01
    eigenvalues = torch.linalg.eigvalsh(decoded.covariance[0, 0])
    assert (eigenvalues > 0).all() and eigenvalues.max() < cell**2


def test_published_votes_are_the_weighted_mean_of_all_cells():
    network = NoothoutGlobal(2, 1).eval()
    shape = (2, 2)
    displacement = torch.zeros(1, 1, 2, *shape)
    logits = torch.tensor([[[[0.0, -100.0], [-100.0, 0.0]]]])
    decoded = decode_votes(VotesOutput(logits, displacement, None), network)
    centres = cell_centres(shape, 32).reshape(-1, 2)
    torch.testing.assert_close(decoded.index[0, 0], (centres[0] + centres[3]) / 2)
