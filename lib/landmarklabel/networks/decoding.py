"""Decoding a network's output: positions in input samples, their spread, and whether the landmark is there at all."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.global_local import VotesOutput, Voting, cell_centres
from landmarklabel.networks.heatmaps import Decoded, decode_heatmaps, decode_posterior
from landmarklabel.networks.presets import GaussianTarget
from landmarklabel.networks.scn import SCNOutput

NetworkOutput = MapsOutput | VotesOutput | SCNOutput


class _Strided(Protocol):
    """A network whose maps have a cell every ``stride`` input samples."""

    @property
    def stride(self) -> int: ...


class DecodedLandmarks(NamedTuple):
    """Of b images or crops: ``index`` (b, n, d) input samples in array order, ``covariance`` (b, n, d, d) samples squared,
    ``presence`` (b, n) probability, ``mass`` (b, n) share of the evidence that agrees with the position."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of positions
    covariance: Tensor
    presence: Tensor
    mass: Tensor


def decode_output(network: nn.Module, output: NetworkOutput, stride: int, target: GaussianTarget | None) -> DecodedLandmarks:
    """Decode any network's output.

    Args:
        network: that made it.
        output: MapsOutput, VotesOutput or the published networks' SCNOutput.
        stride: input samples per map cell.
        target: of the published heatmap networks, None for probability maps and votes.
    """
    if isinstance(output, VotesOutput):
        return decode_votes(output, voting(network))
    if isinstance(output, MapsOutput):
        presence = 1 - softmax_with_absent(output.logits, output.absent)[..., -1]
        maps = torch.softmax(output.logits.flatten(2).float(), -1).reshape(output.logits.shape)
        return _decode_maps(maps, presence, stride)
    if target is None:
        raise ValueError("heatmaps of a published network are read with the target they were trained on; none is given")
    maps = (output.heatmaps.float() - target.background).clamp_min(0)
    peak = maps.flatten(2).amax(-1)
    expected_peak = target.scale * (1 - target.background) if target.norm == "peak" else peak.median().clamp_min(1e-6)
    return _decode_maps(maps, (peak / expected_peak).clamp(0, 1), stride)


def decode_candidates(
    network: nn.Module, output: NetworkOutput, stride: int, target: GaussianTarget | None, count: int, min_distance: float = 3.0
) -> list[DecodedLandmarks]:
    """The best ``count`` places of every landmark, the likeliest first, at least ``min_distance`` cells from each other.

    ``mass`` is the share of the whole map around each; ``presence`` is that of the first.
    """
    decoded, left = [decode_output(network, output, stride, target)], torch.ones(())
    for _ in range(count - 1):
        output, share = _without(network, output, decoded[-1].index, stride, min_distance)
        left = left.to(share.device) * share
        one = decode_output(network, output, stride, target)
        decoded.append(one._replace(mass=one.mass * left, presence=decoded[0].presence))
    return decoded


def _without(
    network: nn.Module, output: NetworkOutput, index: Tensor, stride: int, min_distance: float
) -> tuple[NetworkOutput, Tensor]:
    """An output with what it says near ``index`` (b, n, d) struck out, and the share (b, n) of it that is left."""
    maps = output.heatmaps if isinstance(output, SCNOutput) else output.logits
    shape = tuple(maps.shape[2:])
    cell = voting(network).cell if isinstance(output, VotesOutput) else stride
    places = cell_centres(shape, cell, maps.device).reshape(-1, len(shape))[None, None]
    if isinstance(output, VotesOutput):
        places = places + voting(network).decode(output.displacement.float()).flatten(3).transpose(2, 3)
    near = ((places - index[:, :, None]).square().sum(-1) <= (min_distance * cell) ** 2).reshape(maps.shape)
    if isinstance(output, SCNOutput):
        kept = maps.masked_fill(near, float(maps.min()))
        return output._replace(heatmaps=kept), _total(kept) / _total(maps)
    kept = maps.float().masked_fill(near, -1e4)
    share = torch.exp(torch.logsumexp(kept.flatten(2), -1) - torch.logsumexp(maps.float().flatten(2), -1))
    return output._replace(logits=kept), share


def _total(maps: Tensor) -> Tensor:
    """(b, n) sum of every map over its smallest value in the batch, never zero."""
    return (maps.float() - maps.min()).flatten(2).sum(-1).clamp_min(1e-12)


def decode_crops(network: nn.Module, output: MapsOutput | VotesOutput, temperature: float) -> DecodedLandmarks:
    """Decode what the fine network says of its crops, one landmark each; positions in samples of the finest crop.

    ``temperature`` divides the logits of its maps.
    """
    if isinstance(output, VotesOutput):
        return decode_votes(output, voting(network))
    present = 1 - softmax_with_absent(output.logits, output.absent)[..., -1]
    return _decoded(decode_posterior(output.logits, temperature), present, stride_of(network))


def voting(network: nn.Module) -> Voting:
    """The network as one whose cells vote, which it is where its output is a VotesOutput."""
    return cast(Voting, network)


def stride_of(network: nn.Module) -> int:
    """Input samples per cell of the maps of a network that makes a MapsOutput."""
    return cast(_Strided, network).stride


def crop_map(network: nn.Module, output: MapsOutput | VotesOutput) -> tuple[Tensor, Tensor]:
    """The fine network's map as (k, 1, p) logits and (p, d) positions in samples of the finest crop, array order."""
    shape = tuple(output.logits.shape[2:])
    size = voting(network).cell if isinstance(output, VotesOutput) else stride_of(network)
    return output.logits.flatten(2), cell_centres(shape, size, output.logits.device).reshape(-1, len(shape))


def softmax_with_absent(logits: Tensor, absent: Tensor) -> Tensor:
    """(b, n, cells + 1) probabilities, the last one that the landmark is not there."""
    return torch.softmax(torch.cat([logits.flatten(2), absent[..., None]], dim=-1).float(), dim=-1)


def _decode_maps(maps: Tensor, presence: Tensor, stride: int) -> DecodedLandmarks:
    return _decoded(decode_heatmaps(maps), presence, stride)


def _decoded(decoded: Decoded, presence: Tensor, stride: int) -> DecodedLandmarks:
    index = decoded.index * stride + (stride - 1) / 2
    return DecodedLandmarks(index, decoded.covariance * stride**2, presence, decoded.mass)


def decode_votes(output: VotesOutput, network: Voting, iterations: int = 10) -> DecodedLandmarks:
    """Aggregate votes robustly: mean shift over them with a Gaussian kernel of one cell, from the densest vote.

    With ``v_c = centre_c + displacement_c`` and weights w_c (softmax over cells, or sigmoids for the published network, which
    has no presence output: to it every landmark is present), the covariance is that of the votes under the final kernel.
    The published network's own rule is the plain weighted mean over all cells.

    Source: Noothout 2020 for the votes.
    """
    shape = tuple(output.logits.shape[2:])
    centres = cell_centres(shape, network.cell, output.logits.device).reshape(-1, len(shape))
    votes = centres + network.decode(output.displacement.float()).flatten(3).transpose(2, 3)  # (b, n, cells, d)
    logits = output.logits.flatten(2).float()
    if output.absent is None:
        weight, presence = torch.sigmoid(logits), torch.ones_like(logits[..., 0])
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-12)
        mean = (weight[..., None] * votes).sum(2)
        return _decoded_votes(weight, votes, mean, presence, None)
    p = softmax_with_absent(output.logits, output.absent)
    weight = torch.softmax(logits, -1)
    mean = _densest(weight, votes, network.cell)
    for _ in range(iterations):
        near = weight * _kernel(votes, mean, network.cell)
        mean = (near[..., None] * votes).sum(2) / near.sum(-1, keepdim=True).clamp_min(1e-12)
    return _decoded_votes(weight, votes, mean, 1 - p[..., -1], network.cell)


def _densest(weight: Tensor, votes: Tensor, width: float, most: int = 32) -> Tensor:
    """(b, n, d) the vote, among those of the strongest cells, that the others support most."""
    top, where = weight.topk(min(most, weight.shape[-1]), dim=-1)
    chosen = votes.gather(2, where[..., None].expand(-1, -1, -1, votes.shape[-1]))
    distance2 = (chosen[:, :, :, None] - chosen[:, :, None]).square().sum(-1)
    support = (torch.exp(-0.5 * distance2 / width**2) * top[:, :, None]).sum(-1)
    best = support.argmax(-1)[..., None, None].expand(-1, -1, 1, votes.shape[-1])
    return chosen.gather(2, best)[:, :, 0]


def _kernel(votes: Tensor, mean: Tensor, width: float) -> Tensor:
    return torch.exp(-0.5 * ((votes - mean[:, :, None]) / width).square().sum(-1))


def _decoded_votes(weight: Tensor, votes: Tensor, mean: Tensor, presence: Tensor, width: float | None) -> DecodedLandmarks:
    near = weight if width is None else weight * _kernel(votes, mean, width)
    mass = near.sum(-1)
    share = near / mass[..., None].clamp_min(1e-12)
    spread = votes - mean[:, :, None]
    covariance = torch.einsum("bnc,bnci,bncj->bnij", share, spread, spread)
    # A third of a sample: votes that agree wholly do not tell more, and a covariance must have an inverse.
    covariance = covariance + 0.1 * torch.eye(votes.shape[-1], device=votes.device)
    return DecodedLandmarks(mean, covariance, presence, mass)
