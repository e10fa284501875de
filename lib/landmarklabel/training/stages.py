"""What is trained in the loop: the coarse network, and the fine network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from landmarklabel.data.augment import AugmentRange
from landmarklabel.data.batches import WHOLE, Batch, Part, crop_batch, whole_image_batch
from landmarklabel.data.cases import Case
from landmarklabel.data.crops import CropPlan
from landmarklabel.data.grids import GridPlan
from landmarklabel.networks.decoding import NetworkOutput, stride_of, voting
from landmarklabel.networks.default import MapsOutput
from landmarklabel.networks.global_local import VotesOutput, VotingNet
from landmarklabel.networks.ops import laid_out
from landmarklabel.networks.presets import Preset, Refinement
from landmarklabel.training.configuration import SamplingConfig
from landmarklabel.training.losses import (
    GaussianTargets,
    cell_index,
    cells_loss,
    label_counts,
    published_votes_loss,
    softmax_votes_loss,
    votes_counts,
)


def draw_cases(cases: Sequence[Case], count: int, step: int, seed: int) -> list[Case]:
    """The ``count`` cases of a step: every case once per epoch, in an order that depends on (seed, epoch) alone."""
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, len(cases))
        chosen.append(cases[np.random.default_rng([seed, epoch]).permutation(len(cases))[place]])
    return chosen


class CoarseStage:
    """The coarse network of any preset; ``any_orientation``: trained on every orientation."""

    name = "locate"

    def __init__(
        self,
        network: nn.Module,
        preset: Preset,
        plan: GridPlan,
        cases: Sequence[Case],
        seed: int,
        config: SamplingConfig | None = None,
        any_orientation: bool = False,
        devices: int = 1,
    ):
        config = config or SamplingConfig()
        self.preset, self.plan, self.cases, self.seed = preset, plan, cases, seed
        turned = replace(preset.augment, all_rotations=True, cut=config.cut_fraction)
        self.augment = mirrored_too(turned if any_orientation else preset.augment, cases, config)
        self.optimization = preset.optimization
        self.batch_size = max(preset.batch[len(plan.size)], devices)
        self.network, self.target = network, None
        modules = {"network": network}
        if preset.target is not None:
            modules["target"] = self.target = GaussianTargets(len(cases[0].labels.task), **vars(preset.target))
        self.module = nn.ModuleDict(modules)

    def batch(self, step: int, part: Part = WHOLE) -> Batch:
        chosen = draw_cases(self.cases, self.batch_size, step, self.seed)
        batch = whole_image_batch(chosen, self.plan, self.augment, [self.seed, 1, step], part)
        return batch._replace(images=batch.images * 2 - 1) if self.preset.scale_to_minus1_1 else batch

    def counts(self, batch: Batch) -> Tensor:
        """What the terms of the loss are divided by."""
        if self.target is not None:
            return torch.full((1,), len(batch.images), dtype=torch.float32, device=batch.images.device)
        return loss_counts(self.network, batch)

    def loss(self, batch: Batch, counts: Tensor) -> Tensor:
        output: NetworkOutput = self.network(batch.images)
        if isinstance(output, VotesOutput):
            return votes_loss(output, self.network, batch, counts)
        index = cell_index(batch.index, self.preset.stride)
        if isinstance(output, MapsOutput):
            return cells_loss(output.logits, output.local, output.absent, index, batch.state, self.preset.sigma, counts=counts)
        if self.target is None:
            raise ValueError(f"{self.preset.key} makes heatmaps, but has no target for them")
        return self.target.forward(output.heatmaps, index, batch.state, counts[0])


class FineStage:
    """The fine network, on crops around true positions jittered as the coarse network errs."""

    name = "refine"

    def __init__(
        self,
        network: nn.Module,
        preset: Preset,
        refine: Refinement,
        grid: GridPlan,
        crops: CropPlan,
        cases: Sequence[Case],
        seed: int,
        config: SamplingConfig | None = None,
        devices: int = 1,
    ):
        self.preset, self.grid, self.crops, self.cases, self.seed = preset, grid, crops, cases, seed
        self.config = config or SamplingConfig()
        self.augment = mirrored_too(refine.augment, cases, self.config)
        self.optimization = refine.optimization
        self.batch_size = max(refine.crops[len(grid.size)], devices)
        small = crops.size < refine.size[len(grid.size)]
        self.sigma = refine.sigma * (refine.small_sigma_factor if small else 1.0)
        self.network, self.module = network, nn.ModuleDict({"network": network})

    def batch(self, step: int, part: Part = WHOLE) -> Batch:
        chosen = draw_cases(self.cases, min(16, self.batch_size), step, self.seed)
        seed = [self.seed, 2, step]
        return crop_batch(chosen, self.grid, self.crops, self.augment, self.batch_size, seed, self.config.negative_fraction, part)

    def counts(self, batch: Batch) -> Tensor:
        """What the terms of the loss are divided by."""
        return loss_counts(self.network, batch)

    def loss(self, batch: Batch, counts: Tensor) -> Tensor:
        output: MapsOutput | VotesOutput = self.network(batch.images, batch.landmark)
        if isinstance(output, VotesOutput):
            return votes_loss(output, self.network, batch, counts)
        index = cell_index(batch.index, stride_of(self.network))
        return cells_loss(output.logits, output.local, output.absent, index, batch.state, self.sigma, counts=counts)


def mirrored_too(ranges: AugmentRange, cases: Sequence[Case], config: SamplingConfig) -> AugmentRange:
    """The same ranges, with half the draws mirrored where the cases have a mirror."""
    return replace(ranges, mirror=config.mirrored_fraction) if cases[0].mirror is not None else ranges


def loss_counts(network: nn.Module, batch: Batch) -> Tensor:
    """What the terms of the network's loss are divided by, which depends on the labels alone."""
    if isinstance(network, VotingNet):
        return votes_counts(batch.images, network, batch.index, batch.state)
    return label_counts(batch.state)


def votes_loss(output: VotesOutput, network: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
    """Ours where the network has a presence output, else the published one."""
    if output.absent is not None:
        return softmax_votes_loss(output, voting(network), batch.index, batch.state, counts)
    alpha = float(output.logits.shape[1])
    return published_votes_loss(output, voting(network), batch.index, batch.state, alpha, counts)


def trained_network(stage: CoarseStage | FineStage, ema: dict[str, Tensor]) -> nn.Module:
    """The stage's network with its averaged weights, in evaluation mode, on the CPU, laid out as it is read back from a file."""
    stage.module.load_state_dict(ema)
    return laid_out(stage.network, torch.contiguous_format, torch.device("cpu")).eval()
