"""Losses: cross-entropy over cells for our networks, L2 on Gaussian targets and votes for the published ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landmarklabel.data.presence import Presence
from landmarklabel.networks.global_local import VotesOutput, Voting, cell_centres
from landmarklabel.networks.heatmaps import encode_gaussians


def cell_index(index: Tensor, stride: int) -> Tensor:
    """Input sample positions to map cells: a cell's centre is the middle of its ``stride`` samples."""
    return (index - (stride - 1) / 2) / stride


def cells_loss(
    logits: Tensor, local: Tensor, absent: Tensor, index: Tensor, state: Tensor, sigma: float, local_weight: float = 0.3
) -> Tensor:
    """Cross-entropy of the distribution over all cells plus "absent", against a narrow Gaussian or "absent".

    Args:
        logits, local: (b, n, *shape) of the final and the local part.
        absent: (b, n) logits.
        index: (b, n, d) in cells, NaN unless present.
        state: (b, n) ``Presence``; unknown ones do not count.
        sigma: of the target in cells.
        local_weight: of the same loss on the local part alone (present landmarks only).
    """
    shape = tuple(logits.shape[2:])
    target = encode_gaussians(index.float(), shape, sigma, norm="sum").flatten(2)
    known, present = state != Presence.UNKNOWN, state == Presence.PRESENT
    log_p = torch.log_softmax(torch.cat([logits.flatten(2), absent[..., None]], dim=-1).float(), dim=-1)
    per_landmark = -(target * log_p[..., :-1]).sum(-1) - (state == Presence.ABSENT) * log_p[..., -1]
    loss = (per_landmark * known).sum() / known.sum().clamp_min(1)
    if local_weight and local is not logits:
        per_local = -(target * torch.log_softmax(local.flatten(2).float(), dim=-1)).sum(-1)
        loss = loss + local_weight * (per_local * present).sum() / present.sum().clamp_min(1)
    return loss


def softmax_votes_loss(output: VotesOutput, network: Voting, index: Tensor, state: Tensor) -> Tensor:
    """Our voting loss: cross-entropy over cells and "absent", and the displacement where a cell is near the landmark.

    Args:
        output: of a ``VotingNet``.
        network: that made it; knows its cells.
        index: (b, n, d) input samples, NaN unless present.
        state: (b, n).
    """
    if output.absent is None:
        raise ValueError("this loss is for a network that says whether a landmark is there; its output has no such logit")
    cell, shape = network.cell, tuple(output.logits.shape[2:])
    classes = cells_loss(output.logits, output.logits, output.absent, cell_index(index, cell), state, sigma=0.6)
    wanted = _displacement(index, shape, cell)
    near = torch.exp(-0.5 * (wanted / (2 * cell)).square().sum(2))
    error = F.smooth_l1_loss(output.displacement.float(), network.encode(wanted), reduction="none", beta=0.1).sum(2)
    weight = near * (state == Presence.PRESENT).reshape(*state.shape, *(1,) * len(shape))
    return classes + 2.0 * (weight * error).sum() / weight.sum().clamp_min(1e-6)


def published_votes_loss(output: VotesOutput, network: Voting, index: Tensor, state: Tensor, alpha: float) -> Tensor:
    """L1 on the encoded displacement of all cells plus alpha times the binary cross-entropy of the cell that holds it.

    Absent landmarks count as "in no cell" and have no displacement; the published program knows none.

    Source: Noothout 2020.
    """
    cell, shape = network.cell, tuple(output.logits.shape[2:])
    wanted = _displacement(index, shape, cell)
    inside = ((wanted.abs() <= cell / 2).all(dim=2)).float()
    known, present = (
        x.reshape(*state.shape, *(1,) * len(shape)).float() for x in (state != Presence.UNKNOWN, state == Presence.PRESENT)
    )
    classes = F.binary_cross_entropy_with_logits(output.logits.float(), inside * present, reduction="none") * known
    error = (output.displacement.float() - network.encode(wanted)).abs().mean(2) * present
    cells = inside[0, 0].numel()
    return error.sum() / (present.sum() * cells).clamp_min(1) + alpha * classes.sum() / (known.sum() * cells).clamp_min(1)


def _displacement(index: Tensor, shape: tuple[int, ...], cell: int) -> Tensor:
    """(b, n, d, *shape) from every cell's centre to the landmark, in input samples; 0 where the landmark is unknown."""
    centres = cell_centres(shape, cell, index.device).movedim(-1, 0)
    known = torch.nan_to_num(index.float(), nan=0.0)
    wanted = known.reshape(*known.shape, *(1,) * len(shape)) - centres
    return wanted * torch.isfinite(index).reshape(*index.shape, *(1,) * len(shape))


class GaussianTargets(nn.Module):
    """Targets of the published networks: Gaussian maps of fixed or learned width, and their L2 loss.

    Args:
        landmarks: n.
        sigma: initial, in map samples.
        learned: sigma is trained, one per landmark.
        scale: factor on the target (Payer: 100 in 2D, 1000 in 3D, of the density; 1 with ``peak``).
        norm: ``peak`` or ``density``.
        penalty: weight a of the term a/2 * sum sigma^2 over present landmarks.
        background: value of an empty map (0; -1 for targets rescaled to -1..1).

    Source: Payer 2019, Eq. 4-5; the hand-joint seed for ``background`` -1.
    """

    sigma: Tensor

    def __init__(self, landmarks: int, sigma: float, learned: bool, scale: float, norm: str, penalty: float, background: float):
        super().__init__()
        values = torch.full((landmarks,), float(sigma))
        if learned:
            self.sigma = nn.Parameter(values)
        else:
            self.register_buffer("sigma", values)
        self.scale, self.norm, self.penalty, self.background = scale, norm, penalty, background

    def forward(self, maps: Tensor, index: Tensor, state: Tensor) -> Tensor:
        """Sum of squared errors / 2 over the batch size, plus the sigma term; unknown landmarks do not count."""
        target = self.scale * encode_gaussians(index.float(), tuple(maps.shape[2:]), self.sigma, self.norm)
        target = target * (1 - self.background) + self.background
        known = (state != Presence.UNKNOWN).reshape(*state.shape, *(1,) * (maps.dim() - 2))
        error = 0.5 * ((maps.float() - target).square() * known).sum() / len(maps)
        valid = (state == Presence.PRESENT).float()
        return error + self.penalty * 0.5 * (self.sigma * valid).square().sum() / len(maps)
