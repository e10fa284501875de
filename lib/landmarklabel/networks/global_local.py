"""Global-to-local localization: cells of a coarse grid vote for where each landmark is.

``NoothoutGlobal`` and ``NoothoutLocal`` follow the published design; ``VotingNet`` is ours: softmax over cells, displacement
learned where it matters, presence as one more cell.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from landmarklabel.networks.default import UNet
from landmarklabel.networks.ops import CONV, normal_init_

NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class VotesOutput(NamedTuple):
    """``logits`` (b, n, *cells): does the landmark lie in this cell; ``displacement`` (b, n, d, *cells) from the cell's
    centre to the landmark, array order, as the network's ``encode`` makes it; ``absent`` (b, n) logit or None."""

    logits: Tensor
    displacement: Tensor
    absent: Tensor | None


class Voting(Protocol):
    """What reading votes takes of the network that made them: the side of a cell, and how displacements are written."""

    @property
    def cell(self) -> int: ...
    def encode(self, displacement: Tensor, /) -> Tensor: ...
    def decode(self, value: Tensor, /) -> Tensor: ...


def encode_log(displacement: Tensor) -> Tensor:
    """sign(d) log10(|d| + 1), samples to network units. Source: Noothout 2020 (as in its published program)."""
    return torch.sign(displacement) * torch.log10(displacement.abs() + 1)


def decode_log(value: Tensor) -> Tensor:
    """Inverse of ``encode_log``; values are limited to displacements of 10^4 samples."""
    value = value.clamp(-4, 4)
    return torch.sign(value) * (10 ** value.abs() - 1)


class ResidualPair(nn.Module):
    """conv3-norm-ReLU-conv3-norm-ReLU plus a shortcut (1x1 with bias where the width changes), no ReLU after the sum."""

    def __init__(self, dims: int, inside: int, outside: int):
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.body = nn.Sequential(
            conv(inside, outside, 3, padding=1, bias=False), norm(outside), nn.ReLU(),
            conv(outside, outside, 3, padding=1, bias=False), norm(outside), nn.ReLU(),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inside == outside else conv(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.body(x) + self.shortcut(x)
        return made


class MeanPool2(nn.Module):
    """Mean over blocks of 2^d samples, by reshaping: average pooling in 3D has no bf16 kernel on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, *shape = x.shape
        x = x.reshape(b, c, *(v for s in shape for v in (s // 2, 2)))
        return x.mean(dim=tuple(range(3, x.dim(), 2)))


class NoothoutGlobal(nn.Module):
    """The global network: ResNet34 depth 3-4-6-3, heads for class and displacement.

    Args:
        dims: 3 pools the first two stages (cells of 8 samples), 2 pools all four (cells of 32).
        landmarks: n.

    Source: Noothout 2020; layer list in the published program.
    """

    def __init__(self, dims: int, landmarks: int):
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        pooled = 4 if dims == 2 else 2
        layers: list[nn.Module] = [conv(1, 16, 7, stride=2, padding=3, bias=False), norm(16), nn.ReLU()]
        width = 16
        for stage, (depth, wide) in enumerate(((3, 32), (4, 64), (6, 128), (3, 256))):
            layers += [MeanPool2()] if stage < pooled else []
            layers += [norm(width), nn.ReLU()] if stage == 0 else []
            layers += [ResidualPair(dims, width if i == 0 else wide, wide) for i in range(depth)]
            width = wide
        self.body = nn.Sequential(*layers)
        self.dims, self.landmarks, self.cell = dims, landmarks, 2 ** (pooled + 1)
        self.classify = _head(dims, 256, 256, landmarks)
        self.regress = _head(dims, 256, 256, landmarks * dims)

    @property
    def multiple(self) -> int:
        made: int = self.cell
        return made

    def forward(self, x: Tensor) -> VotesOutput:
        features = self.body(x)
        displacement = self.regress(features)
        shape = displacement.shape[2:]
        return VotesOutput(self.classify(features), displacement.reshape(len(x), self.landmarks, self.dims, *shape), None)

    encode, decode = staticmethod(encode_log), staticmethod(decode_log)


def _head(dims: int, inside: int, hidden: int, out: int) -> nn.Sequential:
    conv = CONV[dims]
    return nn.Sequential(conv(inside, hidden, 1), nn.ReLU(), conv(hidden, hidden, 1), nn.ReLU(), conv(hidden, out, 1))


class NoothoutLocal(nn.Module):
    """One specialised network per landmark on 16^d crops, all of them as grouped convolutions.

    Crops of any landmarks come in. They are sorted into (m, n), m the most crops of one landmark, so that every group
    sees its own landmark's crops.

    Source: Noothout 2020; layer list in the published program (MultiFineTune).
    """

    cell = 2

    def __init__(self, dims: int, landmarks: int):
        super().__init__()
        conv, norm, n = CONV[dims], NORM[dims], landmarks
        self.dims, self.landmarks = dims, landmarks

        def layer(inside: int, outside: int) -> list[nn.Module]:
            return [conv(inside * n, outside * n, 3, padding=1, groups=n), norm(outside * n), nn.ReLU()]

        def head(out: int) -> nn.Sequential:
            return nn.Sequential(
                conv(64 * n, 64 * n, 1, groups=n), nn.ReLU(), conv(64 * n, 64 * n, 1, groups=n), nn.ReLU(),
                conv(64 * n, out * n, 1, groups=n),
            )  # fmt: skip

        first = [*layer(1, 32), *layer(32, 32), *layer(32, 32), *layer(32, 32)]
        self.body = nn.Sequential(*first, MeanPool2(), *layer(32, 64), *layer(64, 64))
        self.classify, self.regress = head(1), head(dims)

    @property
    def multiple(self) -> int:
        return self.cell

    def forward(self, crops: Tensor, landmark: Tensor) -> VotesOutput:
        """crops (k, 1, *shape) and landmark numbers (k,) to votes with one landmark per crop."""
        place = (landmark[None] == landmark[:, None]).tril(-1).sum(1)  # how many earlier crops are of this landmark
        most = int(place.max()) + 1
        dense = crops.new_zeros(most, self.landmarks, *crops.shape[2:])
        dense[place, landmark] = crops[:, 0]
        features = self.body(dense)
        logits = self.classify(features)
        displacement = self.regress(features)
        displacement = displacement.reshape(most, self.landmarks, self.dims, *displacement.shape[2:])
        return VotesOutput(logits[place, landmark][:, None], displacement[place, landmark][:, None], None)

    encode, decode = staticmethod(encode_log), staticmethod(decode_log)


class VotingNet(nn.Module):
    """Ours: a residual U-Net on the whole field of view whose cells vote.

    The cost does not depend on how many samples a volume has, because the grid is chosen by a number of samples, and a
    landmark costs 1 + d numbers per cell instead of a map at full resolution.

    Args:
        dims: 2 or 3.
        landmarks: n.
        widths, stem: of the U-Net.
        level: U-Net level whose samples are the cells.
    """

    def __init__(self, dims: int, landmarks: int, widths: tuple[int, ...], stem: int = 4, level: int = 1):
        super().__init__()
        self.unet = UNet(dims, 1, widths, stem, blocks=2, dropout=0.1)
        self.dims, self.landmarks, self.level, self.cell = dims, landmarks, level, stem * 2**level
        width = widths[level]
        self.classify = CONV[dims](width, landmarks, 1)
        self.regress = nn.Sequential(CONV[dims](width, width, 3, padding=1), nn.SiLU(), CONV[dims](width, landmarks * dims, 1))
        self.absent = nn.Linear(2 * widths[-1] + landmarks, landmarks)
        for layer in (self.classify, self.regress[-1], self.absent):
            normal_init_(layer, std=1e-3)

    @property
    def multiple(self) -> int:
        return self.unet.multiple

    def forward(self, x: Tensor) -> VotesOutput:
        features = self.unet(x)
        cells, deep = features[self.level], features[-1].flatten(2)
        logits, displacement = self.classify(cells), self.regress(cells)
        best = logits.flatten(2).amax(-1)
        absent = self.absent(torch.cat([deep.mean(-1), deep.amax(-1), best], dim=1))
        shape = displacement.shape[2:]
        return VotesOutput(logits, displacement.reshape(len(x), self.landmarks, self.dims, *shape), absent)

    def encode(self, displacement: Tensor) -> Tensor:
        """Displacements in units of a cell."""
        made: Tensor = displacement / self.cell
        return made

    def decode(self, value: Tensor) -> Tensor:
        """Inverse of ``encode``."""
        made: Tensor = value * self.cell
        return made


def cell_centres(shape: tuple[int, ...], cell: int, device: torch.device | None = None) -> Tensor:
    """(*shape, d) positions of the cells' centres in input samples, array order."""
    axes = [torch.arange(s, device=device, dtype=torch.float32) * cell + (cell - 1) / 2 for s in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
