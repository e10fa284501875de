"""Losses by hand on maps of a few cells: what nobody said does not count, absent is a class of its own."""

from __future__ import annotations

import math

import pytest
import torch

from landmarklabel.data.presence import Presence
from landmarklabel.networks.heatmaps import encode_gaussians
from landmarklabel.training.losses import GaussianTargets, cell_index, cells_loss

NAN = math.nan
DIMS = pytest.mark.parametrize("dims", [2, 3])


def inputs(dims, states, seed=0, shape=(6, 7, 5)):
    """Random maps of one image, and index NaN unless present."""
    generator = torch.Generator().manual_seed(seed)
    n, shape = len(states), shape[:dims]
    random = lambda *size: torch.randn(*size, generator=generator).requires_grad_()  # noqa: E731
    index = torch.rand(1, n, dims, generator=generator) * 3 + 1
    index[0, [s != Presence.PRESENT for s in states]] = NAN
    return random(1, n, *shape), random(1, n, *shape), random(1, n), index, torch.tensor([states])


def test_cells_start_in_the_middle_of_their_samples():
    index = torch.tensor([[0.5, 2.5], [0.0, 7.0]])
    assert cell_index(index, 2).tolist() == [[0.0, 1.0], [-0.25, 3.25]]
    assert torch.equal(cell_index(index, 1), index)
    for stride in (2, 3, 4):  # decoding's own formula is the inverse
        assert torch.allclose(cell_index(index, stride) * stride + (stride - 1) / 2, index)


def test_the_cross_entropy_of_three_cells_by_hand():
    """One row of two cells and "absent": p = (1, 2, 5) / 8."""
    logits = torch.log(torch.tensor([[[[1.0, 2.0]]]]))
    absent = torch.log(torch.tensor([[5.0]]))
    present = cells_loss(logits, logits, absent, torch.tensor([[[0.0, 1.0]]]), torch.tensor([[Presence.PRESENT]]), sigma=0.01)
    assert float(present) == pytest.approx(-math.log(2 / 8), rel=1e-5)
    nowhere = torch.full((1, 1, 2), NAN)
    gone = cells_loss(logits, logits, absent, nowhere, torch.tensor([[Presence.ABSENT]]), sigma=0.01)
    assert float(gone) == pytest.approx(-math.log(5 / 8), rel=1e-5)
    # The local part competes over cells alone: p = (1, 2) / 3.
    local = logits + 0
    both = cells_loss(logits, local, absent, torch.tensor([[[0.0, 1.0]]]), torch.tensor([[Presence.PRESENT]]), 0.01, 0.5)
    assert float(both) == pytest.approx(-math.log(2 / 8) - 0.5 * math.log(2 / 3), rel=1e-5)
    soft = cells_loss(logits, logits, absent, torch.tensor([[[0.0, 0.5]]]), torch.tensor([[Presence.PRESENT]]), sigma=1.0)
    assert float(soft) == pytest.approx(-(math.log(1 / 8) + math.log(2 / 8)) / 2, rel=1e-5)


@DIMS
def test_unknown_landmarks_change_nothing(dims):
    logits, local, absent, index, state = inputs(dims, [Presence.PRESENT, Presence.UNKNOWN, Presence.ABSENT, Presence.UNKNOWN])
    loss = cells_loss(logits, local, absent, index, state, 1.0)
    loss.backward()
    for x in (logits, local, absent):
        assert not x.grad[0, [1, 3]].any() and torch.isfinite(x.grad).all()
    assert logits.grad[0, [0, 2]].flatten(1).any(1).all() and absent.grad[0, [0, 2]].all()
    kept = [0, 2]
    fewer = cells_loss(*(x.detach()[:, kept] for x in (logits, local, absent, index, state)), 1.0)
    torch.testing.assert_close(fewer, loss.detach())


@DIMS
def test_an_image_nobody_labelled_costs_nothing(dims):
    logits, local, absent, index, state = inputs(dims, [Presence.UNKNOWN] * 3)
    loss = cells_loss(logits, local, absent, index, state, 1.0)
    loss.backward()
    assert float(loss.detach()) == 0 and not logits.grad.any()


@DIMS
def test_absent_raises_the_absent_logit_and_present_the_right_cells(dims):
    logits, local, absent, index, state = inputs(dims, [Presence.PRESENT, Presence.ABSENT])
    cells_loss(logits, local, absent, index, state, 0.7).backward()
    assert absent.grad[0, 1] < 0 < absent.grad[0, 0]  # a step against the gradient
    assert (logits.grad[0, 1] > 0).all() and not local.grad[0, 1].any()
    cell = tuple(index[0, 0].round().long().tolist())
    assert logits.grad[(0, 0, *cell)] < 0 and local.grad[(0, 0, *cell)] < 0


@DIMS
def test_minimizing_finds_the_place_and_the_absence(dims):
    logits, local, absent, index, state = inputs(dims, [Presence.PRESENT, Presence.ABSENT])
    optimizer = torch.optim.Adam([logits, absent], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        cells_loss(logits, logits, absent, index, state, 0.8).backward()
        optimizer.step()
    p = torch.softmax(torch.cat([logits.flatten(2), absent[..., None]], -1), -1)[0]
    wanted = encode_gaussians(index[0], tuple(logits.shape[2:]), 0.8, "sum").flatten(1)
    assert (p[0, :-1] - wanted[0]).abs().max() < 0.02 and p[1, -1] > 0.95


# ------------------------------------------------------------------ the published targets


def targets(n=1, sigma=1.5, learned=False, scale=1.0, norm="peak", penalty=0.0, background=0.0):
    return GaussianTargets(n, sigma, learned, scale, norm, penalty, background)


@DIMS
def test_a_map_that_is_the_target_costs_nothing(dims):
    maps, _, _, index, state = inputs(dims, [Presence.PRESENT, Presence.ABSENT, Presence.UNKNOWN])
    shape = tuple(maps.shape[2:])
    for scale, norm in ((1.0, "peak"), (100.0, "density")):
        wanted = scale * encode_gaussians(index, shape, 1.5, norm)
        assert not wanted[0, 1].any()
        wanted[0, 2] = 77.0  # unknown: whatever
        assert float(targets(3, scale=scale, norm=norm)(wanted, index, state)) == pytest.approx(0, abs=1e-6)


def test_half_the_squared_error_over_the_batch_by_hand():
    maps = torch.zeros(2, 1, 1, 3)
    maps[0, 0, 0, 1] = 3.0
    nowhere, absent = torch.full((2, 1, 2), NAN), torch.full((2, 1), Presence.ABSENT)
    assert float(targets()(maps, nowhere, absent)) == pytest.approx(0.5 * 9 / 2)
    at = torch.tensor([[[0.0, 1.0]], [[NAN, NAN]]])
    state = torch.tensor([[Presence.PRESENT], [Presence.ABSENT]])
    side = math.exp(-0.5 / 1.5**2)
    assert float(targets()(maps, at, state)) == pytest.approx(0.5 * (2**2 + 2 * side**2) / 2, rel=1e-5)


def test_a_background_of_minus_one_rescales_peak_and_floor():
    index, state = torch.tensor([[[4.0, 4.0], [NAN, NAN]]]), torch.tensor([[Presence.PRESENT, Presence.ABSENT]])
    wanted = 2 * encode_gaussians(index, (9, 9), 1.5) - 1
    assert wanted[0, 0].max() == 1 and (wanted[0, 1] == -1).all()
    loss = targets(2, background=-1.0)
    assert float(loss(wanted, index, state)) == pytest.approx(0, abs=1e-8)
    assert float(loss(torch.zeros(1, 2, 9, 9), index, state)) > 0.5 * 81 * 0.99


@DIMS
def test_unknown_landmarks_get_no_gradient_from_the_published_loss(dims):
    maps, _, _, index, state = inputs(dims, [Presence.PRESENT, Presence.UNKNOWN, Presence.ABSENT])
    loss = targets(3, learned=True, penalty=2.0)
    loss(maps, index, state).backward()
    assert not maps.grad[0, 1].any() and maps.grad[0, 0].any() and maps.grad[0, 2].any()
    assert loss.sigma.grad[1] == 0 and loss.sigma.grad[2] == 0 and loss.sigma.grad[0] != 0


def test_the_penalty_pulls_sigma_down_and_counts_present_landmarks_only():
    index, state = torch.tensor([[[4.0, 4.0], [NAN, NAN]]]), torch.tensor([[Presence.PRESENT, Presence.ABSENT]])
    loss = targets(2, sigma=2.0, learned=True, penalty=20.0)
    maps = encode_gaussians(index, (9, 9), 2.0)
    value = loss(maps, index, state)
    assert float(value.detach()) == pytest.approx(20 / 2 * 2.0**2)
    value.backward()
    assert loss.sigma.grad.tolist() == pytest.approx([40.0, 0.0])


def test_a_learned_sigma_is_a_parameter_and_a_fixed_one_is_not_but_both_are_saved():
    assert len(list(targets(2, learned=True).parameters())) == 1 and not list(targets(2).parameters())
    assert "sigma" in targets(2).state_dict() and "sigma" in targets(2, learned=True).state_dict()
