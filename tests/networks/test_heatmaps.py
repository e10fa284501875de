"""Decoding inverts encoding, whatever sigma, dimension or place; a map without a landmark stays empty."""

from __future__ import annotations

import math

import pytest
import torch

from landmarklabel.inference.configuration import SuggestionConfig
from landmarklabel.networks.heatmaps import decode_heatmaps, decode_posterior, encode_gaussians

SHAPES = {2: (41, 53), 3: (25, 31, 29)}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def random_positions(dims, n, margin, seed):
    """(1, n, dims) float64 sub-sample positions, ``margin`` samples inside the map."""
    room = torch.tensor([s - 1 - 2 * margin for s in SHAPES[dims]], dtype=torch.float64)
    return torch.rand(1, n, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * room + margin


@DIMS
@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.2, 1.7, 2.4, 3.0])
@pytest.mark.parametrize("norm", ["peak", "sum", "density"])
def test_decoding_inverts_encoding_to_a_hundredth_of_a_sample(dims, sigma, norm):
    index = random_positions(dims, 40, 3 * sigma, seed=int(10 * sigma))
    decoded = decode_heatmaps(encode_gaussians(index, SHAPES[dims], sigma, norm).float())
    assert (decoded.index - index).abs().max() <= 0.01


@DIMS
def test_decoding_inverts_encoding_exactly_between_samples(dims):
    """Ties between samples, where the highest one says nothing about the side."""
    for offset in (0.0, 0.25, 0.5, 0.75):
        index = torch.full((1, 1, dims), 11 + offset)
        assert (decode_heatmaps(encode_gaussians(index, SHAPES[dims], 1.2)).index - index).abs().max() <= 0.01


def test_one_sigma_an_axis_is_decoded_too():
    index = random_positions(3, 20, 9, seed=1)
    sigma = torch.tensor([0.9, 1.6, 2.8], dtype=torch.float64).expand(20, 3)
    maps = encode_gaussians(index, SHAPES[3], sigma)
    decoded = decode_heatmaps(maps.float())
    assert (decoded.index - index).abs().max() <= 0.01
    found = decoded.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found - sigma).abs() / sigma).max() < 0.1


@DIMS
@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.0, 3.0])
def test_the_covariance_is_that_of_the_map(dims, sigma):
    index = random_positions(dims, 20, 3 * sigma + 2, seed=2)
    covariance = decode_heatmaps(encode_gaussians(index, SHAPES[dims], sigma).float()).covariance[0]
    wanted = torch.eye(dims) * sigma**2
    assert (covariance - wanted).abs().max() < 0.15 * sigma**2


@DIMS
def test_an_absent_landmark_is_an_empty_map(dims):
    index = random_positions(dims, 3, 5, seed=3)
    index[0, 1] = math.nan
    index[0, 2, 0] = math.nan
    for norm in ("peak", "density", "sum"):
        maps = encode_gaussians(index, SHAPES[dims], 1.5, norm)
        assert maps.shape == (1, 3, *SHAPES[dims]) and maps.dtype == index.dtype
        assert maps[0, 0].amax() > 0 and not maps[0, 1:].any()


@DIMS
def test_norms(dims):
    index = random_positions(dims, 10, 9, seed=4)
    flat = lambda norm, sigma=1.5: encode_gaussians(index, SHAPES[dims], sigma, norm).flatten(2)  # noqa: E731
    torch.testing.assert_close(flat("density").sum(-1), torch.ones(1, 10, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat("sum").sum(-1), torch.ones(1, 10, dtype=torch.float64))
    peak = (2 * math.pi * 1.5**2) ** (dims / 2) * flat("density")
    torch.testing.assert_close(flat("peak"), peak)
    whole = encode_gaussians(index.round(), SHAPES[dims], 1.5)
    torch.testing.assert_close(whole.flatten(2).amax(-1), torch.ones(1, 10, dtype=torch.float64))


def test_the_sum_is_one_even_where_the_border_cuts_the_gaussian():
    maps = encode_gaussians(torch.tensor([[[-0.4, 0.0], [40.4, 52.0]]]), SHAPES[2], 2.0, "sum")
    torch.testing.assert_close(maps.flatten(2).sum(-1), torch.ones(1, 2))


@DIMS
def test_the_formula_at_one_sample(dims):
    index = torch.full((1, 1, dims), 10.3)
    value = encode_gaussians(index, SHAPES[dims], 2.0)[(0, 0, *(12,) * dims)]
    assert float(value) == pytest.approx(math.exp(-dims * 1.7**2 / (2 * 4)), rel=1e-5)


@pytest.mark.parametrize("norm", ["peak", "density"])
def test_the_gradient_reaches_a_learned_sigma(norm):
    sigma = torch.tensor([1.5, 2.5], requires_grad=True)
    index = torch.tensor([[[20.2, 20.7], [math.nan, math.nan]]])
    target = encode_gaussians(index, SHAPES[2], 1.9, norm)
    (encode_gaussians(index, SHAPES[2], sigma, norm) - target).square().sum().backward()
    assert sigma.grad[0] < 0  # too narrow: growing it lowers the loss
    assert sigma.grad[1] == 0 and torch.isfinite(sigma.grad).all()


@DIMS
def test_positions_at_and_beyond_the_border_decode_inside(dims):
    last = torch.tensor([s - 1.0 for s in SHAPES[dims]])
    index = torch.stack([torch.zeros(dims), last, torch.full((dims,), -0.45), last + 0.45])[None]
    decoded = decode_heatmaps(encode_gaussians(index, SHAPES[dims], 1.2))
    assert (decoded.index >= 0).all() and (decoded.index <= last).all()
    assert (decoded.index - index).abs().max() < 1.0


@DIMS
def test_flat_empty_and_negative_maps_decode_to_something_finite_inside(dims):
    shape = SHAPES[dims]
    maps = torch.stack([torch.zeros(shape), torch.ones(shape), -torch.ones(shape)])[None]
    decoded = decode_heatmaps(maps)
    assert all(torch.isfinite(x).all() for x in decoded)
    assert (decoded.index >= 0).all() and (decoded.index <= torch.tensor(shape) - 1).all()


@DIMS
def test_of_several_peaks_the_strongest_is_chosen_and_its_mass_told(dims):
    strong, weak = torch.full((1, 1, dims), 7.3), torch.full((1, 1, dims), 17.6)
    maps = encode_gaussians(strong, SHAPES[dims], 1.0, "sum") * 0.7 + encode_gaussians(weak, SHAPES[dims], 1.0, "sum") * 0.3
    decoded = decode_heatmaps(maps)
    assert (decoded.index - strong).abs().max() <= 0.01
    assert decoded.mass.item() == pytest.approx(0.7, abs=0.01)
    assert decoded.peak.item() == pytest.approx(maps.max().item())


def test_each_map_of_a_batch_is_decoded_by_itself():
    index = torch.tensor([[[5.0, 9.5], [30.2, 40.1]], [[12.7, 3.4], [8.8, 50.0]]])
    together = decode_heatmaps(encode_gaussians(index, SHAPES[2], 1.2)).index
    for b in range(2):
        for n in range(2):
            alone = decode_heatmaps(encode_gaussians(index[b : b + 1, n : n + 1], SHAPES[2], 1.2)).index
            assert (together[b, n] - alone[0, 0]).abs().max() < 1e-3


@DIMS
def test_the_least_expected_distance_of_a_symmetric_map_is_at_its_centre(dims):
    index = random_positions(dims, 20, 9, seed=5)
    logits = torch.log(encode_gaussians(index, SHAPES[dims], 1.2).float().clamp_min(1e-30))
    decoded = decode_posterior(logits, SuggestionConfig().temperature(dims))
    assert (decoded.index - index).abs().max() <= 0.03
    assert decoded.mass.min() > 0.7


def test_between_two_likely_places_the_likelier_one_wins_and_a_far_unlikely_one_hardly_counts():
    two = torch.tensor([[[12.0, 10.0], [12.0, 40.0]]], dtype=torch.float64)
    maps = encode_gaussians(two, SHAPES[2], 1.2, "sum")[0]
    mixed = lambda share: torch.log((1 - share) * maps[0] + share * maps[1] + 1e-30)[None, None]  # noqa: E731
    for share in (0.1, 0.3, 0.45):
        found = decode_posterior(mixed(share), temperature=1.0, iterations=40).index[0, 0]
        assert abs(found[0] - 12) < 0.05 and 10 <= found[1] < 12.5
    usual = decode_posterior(mixed(0.05), SuggestionConfig().temperature(2)).index[0, 0]
    assert abs(usual[1] - 10) < 2.5
