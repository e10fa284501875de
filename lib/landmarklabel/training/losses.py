"""Losses: cross-entropy over cells for our networks, L2 on Gaussian targets and votes for the published ones.

Each is a sum of terms, and each term a sum over a batch divided by what it has in the batch, such as its known landmarks. Where a
batch is looked at in parts, ``counts`` are those of the whole batch: then the losses of the parts add up to that of the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landmarklabel.data.presence import Presence
from landmarklabel.networks.global_local import VotesOutput, Voting, cell_centres
from landmarklabel.networks.heatmaps import encode_gaussians
from landmarklabel.networks.ops import at_least_float32


def cell_index(index: Tensor, stride: int) -> Tensor:
    """Input sample positions to map cells: a cell's centre is the middle of its ``stride`` samples."""
    return (index - (stride - 1) / 2) / stride


def label_counts(state: Tensor) -> Tensor:
    """(2,) known and present landmarks: what ``cells_loss`` and ``published_votes_loss`` divide by."""
    return torch.stack([(state != Presence.UNKNOWN).sum(), (state == Presence.PRESENT).sum()]).float()


def cells_loss(
    logits: Tensor,
    local: Tensor,
    absent: Tensor,
    index: Tensor,
    state: Tensor,
    sigma: float,
    local_weight: float = 0.3,
    counts: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the distribution over all cells plus "absent", against a narrow Gaussian or "absent".

    Args:
        logits, local: (b, n, *shape) of the final and the local part.
        absent: (b, n) logits.
        index: (b, n, d) in cells, NaN unless present.
        state: (b, n) ``Presence``; unknown ones do not count.
        sigma: of the target in cells.
        local_weight: of the same loss on the local part alone (present landmarks only); by judgement: it is an aid, not the aim.
        counts: ``label_counts`` of the whole batch; by default of this one.
    """
    shape = tuple(logits.shape[2:])
    target = encode_gaussians(index.float(), shape, sigma, norm="sum").flatten(2)
    known, present = state != Presence.UNKNOWN, state == Presence.PRESENT
    n_known, n_present = (label_counts(state) if counts is None else counts).clamp_min(1)
    log_p = torch.log_softmax(at_least_float32(torch.cat([logits.flatten(2), absent[..., None]], dim=-1)), dim=-1)
    per_landmark = -(target * log_p[..., :-1]).sum(-1) - (state == Presence.ABSENT) * log_p[..., -1]
    loss: Tensor = (per_landmark * known).sum() / n_known
    if local_weight and local is not logits:
        per_local = -(target * torch.log_softmax(at_least_float32(local.flatten(2)), dim=-1)).sum(-1)
        loss = loss + local_weight * (per_local * present).sum() / n_present
    return loss


def votes_counts(images: Tensor, network: Voting, index: Tensor, state: Tensor) -> Tensor:
    """(3,) known and present landmarks and the weight of the cells near them: what ``softmax_votes_loss`` divides by."""
    shape = tuple(s // network.cell for s in images.shape[2:])
    return torch.cat([label_counts(state), _nearness(_displacement(index, shape, network.cell), network.cell, state).sum()[None]])


def softmax_votes_loss(
    output: VotesOutput, network: Voting, index: Tensor, state: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Our voting loss: cross-entropy over cells and "absent", and the displacement where a cell is near the landmark.

    Args:
        output: of a ``VotingNet``.
        network: that made it; knows its cells.
        index: (b, n, d) input samples, NaN unless present.
        state: (b, n).
        counts: ``votes_counts`` of the whole batch; by default of this one.
    """
    if output.absent is None:
        raise ValueError("this loss is for a network that says whether a landmark is there; its output has no such logit")
    cell, shape = network.cell, tuple(output.logits.shape[2:])
    labels = None if counts is None else counts[:2]
    classes = cells_loss(output.logits, output.logits, output.absent, cell_index(index, cell), state, sigma=0.6, counts=labels)
    wanted = _displacement(index, shape, cell)
    # By judgement: a target of about one cell, errors below a tenth of a cell count by their square, displacements twice.
    error = F.smooth_l1_loss(at_least_float32(output.displacement), network.encode(wanted), reduction="none", beta=0.1).sum(2)
    weight = _nearness(wanted, cell, state)
    total = weight.sum() if counts is None else counts[2]
    return classes + 2.0 * (weight * error).sum() / total.clamp_min(1e-6)


def _nearness(displacement: Tensor, cell: int, state: Tensor) -> Tensor:
    """(b, n, *shape) weights of the cells near a landmark that is present."""
    near = torch.exp(-0.5 * (displacement / (2 * cell)).square().sum(2))
    return near * (state == Presence.PRESENT).reshape(*state.shape, *(1,) * (near.dim() - 2))


def published_votes_loss(
    output: VotesOutput, network: Voting, index: Tensor, state: Tensor, alpha: float, counts: Tensor | None = None
) -> Tensor:
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
    logits = at_least_float32(output.logits)
    classes = F.binary_cross_entropy_with_logits(logits, (inside * present).to(logits.dtype), reduction="none") * known
    error = (at_least_float32(output.displacement) - network.encode(wanted)).abs().mean(2) * present
    n_known, n_present = ((label_counts(state) if counts is None else counts) * inside[0, 0].numel()).clamp_min(1)
    made: Tensor = error.sum() / n_present + alpha * classes.sum() / n_known
    return made


def _displacement(index: Tensor, shape: tuple[int, ...], cell: int) -> Tensor:
    """(b, n, d, *shape) from every cell's centre to the landmark, in input samples; 0 where the landmark is unknown."""
    centres = cell_centres(shape, cell, index.device).movedim(-1, 0)
    known = torch.nan_to_num(at_least_float32(index), nan=0.0)
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

    def forward(self, maps: Tensor, index: Tensor, state: Tensor, count: Tensor | None = None) -> Tensor:
        """Sum of squared errors / 2 over the batch size, plus the sigma term; unknown landmarks do not count.

        ``count``: images of the whole batch; by default of this one.
        """
        target = self.scale * encode_gaussians(index.float(), tuple(maps.shape[2:]), self.sigma, self.norm)
        target = target * (1 - self.background) + self.background
        known = (state != Presence.UNKNOWN).reshape(*state.shape, *(1,) * (maps.dim() - 2))
        images = len(maps) if count is None else count
        error = 0.5 * ((at_least_float32(maps) - target).square() * known).sum() / images
        valid = (state == Presence.PRESENT).float()
        return error + self.penalty * 0.5 * (self.sigma * valid).square().sum() / images
