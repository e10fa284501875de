"""Landmark positions to heatmaps and back, each the inverse of the other to a hundredth of a sample.

Positions are continuous indices in array order ([z, ]y, x) of the heatmap; sample centres are whole numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def encode_gaussians(index: Tensor, shape: tuple[int, ...], sigma: Tensor | float, norm: str = "peak") -> Tensor:
    """Gaussian maps evaluated at sub-sample centres, as an outer product of one profile per axis.

    Args:
        index: (..., n, d) float; rows with NaN give all-zero maps (absent or unknown landmark).
        shape: d sizes.
        sigma: number, (n,) or (n, d), in samples; may require grad.
        norm: ``peak`` (maximum 1), ``density`` (integral 1 in space), ``sum`` (samples add up to 1).

    Returns:
        (..., n, *shape) of the dtype of ``index``.

    Source: Payer 2019, Eq. 4 (``density``; multiply by the target scale outside).
    """
    d = len(shape)
    known = torch.isfinite(index).all(dim=-1)
    centre = torch.where(known[..., None], index, torch.zeros_like(index))
    sigma = torch.as_tensor(sigma, dtype=index.dtype, device=index.device)
    sigma = sigma[..., None].expand(*sigma.shape, d) if sigma.dim() < 2 else sigma
    profiles = []
    for axis, length in enumerate(shape):
        samples = torch.arange(length, dtype=index.dtype, device=index.device)
        s = sigma[..., axis, None]
        profile = torch.exp(-0.5 * ((samples - centre[..., axis, None]) / s) ** 2)
        if norm == "density":
            profile = profile / (math.sqrt(2 * math.pi) * s)
        elif norm == "sum":
            profile = profile / profile.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        profiles.append(profile)
    profiles[0] = profiles[0] * known[..., None]
    out = profiles[0]
    for axis in range(1, d):
        p = profiles[axis]
        out = out[..., None] * p.reshape(*p.shape[:-1], *(1,) * axis, p.shape[-1])
    return out


class Decoded(NamedTuple):
    """What a stack of maps says: ``index`` (b, n, d) in samples, ``peak`` (b, n) the map's maximum,
    ``covariance`` (b, n, d, d) in samples squared, ``mass`` (b, n) the share of the map inside the window."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of positions
    peak: Tensor
    covariance: Tensor
    mass: Tensor


def decode_heatmaps(maps: Tensor, window: float = 1.5, iterations: int = 8) -> Decoded:
    """Sub-sample positions by mean shift from the maximum, under a Gaussian window.

    For a Gaussian map the fixed point is its centre, whatever its sigma, so decoding inverts encoding; for a posterior
    with several modes it is the centre of the strongest one.

    Args:
        maps: (b, n, *shape); negative values count as zero.
        window: sigma of the window in samples.
        iterations: at most; a Gaussian needs two or three.

    Returns:
        Decoded; positions are inside the map, also for a flat one.
    """
    b, n, *shape = maps.shape
    d, radius = len(shape), math.ceil(2.5 * window) + 1  # beyond 2.5 sigma of the window a sample weighs less than 0.05
    flat = maps.reshape(b, n, -1)
    peak, where = flat.max(dim=-1)
    start = torch.stack(torch.unravel_index(where, tuple(shape)), dim=-1)
    patch, offsets = _patches(maps, start, radius)
    patch = patch.clamp_min(0).reshape(b, n, -1)
    tiny = torch.finfo(torch.float32).tiny
    mean = torch.zeros(b, n, d, device=maps.device)
    for _ in range(iterations):
        weight = patch * torch.exp(-0.5 * ((offsets - mean[:, :, None]) / window).square().sum(-1))
        share = weight / weight.sum(-1, keepdim=True).clamp_min(tiny)
        moved = share @ offsets  # (b, n, d)
        variance = (share @ offsets.square() - moved.square()).clamp_min(0)
        # For a Gaussian of any width the plain shift is (1 - variance / window^2) of the way: go all of it, but at most 3.3 times
        # as far, which a map without a peak would ask for.
        gain = 1 / (1 - variance / window**2).clamp_min(0.3)
        step = ((moved - mean) * gain).clamp(-window, window)
        mean = (mean + step).clamp(-radius, radius)
        if float(step.abs().max()) < 5e-4:
            break
    spread = offsets - mean[:, :, None]
    weight = patch * torch.exp(-0.5 * (spread / window).square().sum(-1))
    share = weight / weight.sum(-1, keepdim=True).clamp_min(tiny)
    moment = torch.einsum("bnp,bnpi,bnpj->bnij", share, spread, spread)
    covariance = _without_window(moment, window)
    mass = patch.sum(-1) / flat.clamp_min(0).sum(-1).clamp_min(tiny)
    limit = torch.tensor([s - 1 for s in shape], device=maps.device, dtype=mean.dtype)
    return Decoded(torch.minimum((start + mean).clamp_min(0), limit), peak, covariance, mass)


def decode_posterior(logits: Tensor, temperature: float, iterations: int = 4, near: float = 2.5) -> Decoded:
    """The point with the least expected distance under a probability map (its geometric median), by Weiszfeld's iteration.

    Meant for the map of a crop, where every cell is a place the landmark may truly be: between two likely places it is the
    better guess than the likeliest one. For a symmetric map it is the centre, so decoding inverts encoding.

    Args:
        logits: (b, n, *shape).
        temperature: divides the logits; see ``inference.configuration.SuggestionConfig``.
        iterations: from the mean on.
        near: radius in cells, around the position, of the part of the map whose share is the ``mass``; by judgement.

    Source: Weiszfeld 1937.
    """
    shape = logits.shape[2:]
    axes = [torch.arange(s, dtype=torch.float32, device=logits.device) for s in shape]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    soft = torch.softmax(logits.flatten(2).float() / temperature, -1)
    index = soft @ cells
    for _ in range(iterations):
        # Half a cell is the least distance, as a cell stands for all that is in it; else the point could get stuck on a cell.
        weight = soft / torch.sqrt((cells - index[:, :, None]).square().sum(-1) + 0.25)
        index = (weight @ cells) / weight.sum(-1, keepdim=True)
    sharp = torch.softmax(logits.flatten(2).float(), -1)
    offsets = cells - index[:, :, None]
    covariance = torch.einsum("bnp,bnpi,bnpj->bnij", sharp, offsets, offsets)
    # A tenth of a cell: no map tells more, and a covariance must have an inverse.
    covariance = covariance + 0.01 * torch.eye(len(shape), device=logits.device)
    return Decoded(index, sharp.amax(-1), covariance, (sharp * (offsets.square().sum(-1) <= near**2)).sum(-1))


def _patches(maps: Tensor, start: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Neighbourhoods of ``start``: (b, n, p) values, zero outside the map, and (p, d) offsets."""
    b, n, *shape = maps.shape
    d = len(shape)
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    offsets = torch.stack(torch.meshgrid(*(steps,) * d, indexing="ij"), -1).reshape(-1, d)
    index = start[:, :, None] + offsets
    limit = torch.tensor(shape, device=maps.device)
    inside = ((index >= 0) & (index < limit)).all(-1)
    index = index.clamp_min(0).minimum(limit - 1)
    flat = torch.zeros_like(index[..., 0])
    for axis in range(d):
        flat = flat * shape[axis] + index[..., axis]
    values = maps.reshape(b, n, -1).gather(2, flat).float() * inside
    return values, offsets.float()


def _without_window(moment: Tensor, window: float) -> Tensor:
    """Undo the window's narrowing of the second moment: 1/sigma^2 = 1/m - 1/window^2, eigenvalue by eigenvalue."""
    values, vectors = torch.linalg.eigh(moment.double())
    values = values.clamp_min(1e-4)
    inverse = (1 / values - 1 / window**2).clamp_min(1e-2)
    made: Tensor = (vectors @ torch.diag_embed(1 / inverse) @ vectors.transpose(-1, -2)).to(moment.dtype)
    return made
