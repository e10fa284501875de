"""Our SpatialConfiguration-Net: probability maps, the product taken as a sum of logarithms, presence as one more cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landmarklabel.networks.ops import CONV, LINEAR, Dropout, normal_init_


class MapsOutput(NamedTuple):
    """``logits`` (b, n, *map shape) of local + spatial evidence, ``local`` the same of the local part alone,
    ``absent`` (b, n) the logit of the landmark not being there."""

    logits: Tensor
    local: Tensor
    absent: Tensor


def unshuffle(x: Tensor, step: int) -> Tensor:
    """Fold blocks of step^d samples into channels: (b, c, *shape) to (b, c * step^d, *shape / step)."""
    b, c, *shape = x.shape
    d = len(shape)
    x = x.reshape(b, c, *(v for s in shape for v in (s // step, step)))
    steps = [3 + 2 * i for i in range(d)]
    x = x.permute(0, 1, *steps, *(2 + 2 * i for i in range(d)))
    return x.reshape(b, c * step**d, *(s // step for s in shape))


class ResidualBlock(nn.Module):
    """norm, activation, conv, twice, plus the input."""

    def __init__(self, dims: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = CONV[dims](width, width, 3, padding=1, bias=False)
        self.conv2 = CONV[dims](width, width, 3, padding=1)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        made: Tensor = x + self.conv2(self.drop(F.silu(self.norm2(y))))
        return made


class UNet(nn.Module):
    """A residual U-Net with strided convolutions down, linear interpolation up and additive skips.

    Args:
        dims: 2 or 3.
        in_channels: of the input.
        widths: channels a level; the first level works at 1/stem of the input.
        stem: side of the blocks folded into channels at the entrance.
        blocks: residual blocks a level on the way down (one on the way up).
        dropout: inside the blocks of the two deepest levels.
    """

    def __init__(self, dims: int, in_channels: int, widths: tuple[int, ...], stem: int, blocks: int, dropout: float):
        super().__init__()
        conv = CONV[dims]
        self.stem_step, self.mode = stem, LINEAR[dims]
        self.stem = conv(in_channels * stem**dims, widths[0], 3, padding=1)
        deep = [0.0] * (len(widths) - 2) + [dropout] * 2
        self.down = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(dims, w, p) for _ in range(blocks))) for w, p in zip(widths, deep, strict=True)
        )
        pairs = list(zip(widths, widths[1:], strict=False))
        self.shrink = nn.ModuleList(conv(a, b, 2, stride=2) for a, b in pairs)
        self.widen = nn.ModuleList(conv(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(ResidualBlock(dims, a) for a, _ in pairs)

    def forward(self, x: Tensor, conditions: Sequence[Tensor] | None = None) -> list[Tensor]:
        """(b, c, *shape) to the decoder's features from fine to coarse, the first at shape / stem.

        ``conditions``: one (b, width) vector a level, added at its entrance.
        """
        x = self.stem(unshuffle(x, self.stem_step))
        skips = []
        for level, block in enumerate(self.down):
            x = x if level == 0 else self.shrink[level - 1](x)
            if conditions is not None:
                x = x + conditions[level].reshape(x.shape[0], -1, *(1,) * (x.dim() - 2)).to(x.dtype)
            x = block(x)
            skips.append(x)
        out = [x]
        for level in reversed(range(len(self.up))):
            small = self.widen[level](out[0])
            grown = F.interpolate(small, size=skips[level].shape[2:], mode=self.mode, align_corners=False)
            out.insert(0, self.up[level](skips[level] + grown))
        return out

    @property
    def multiple(self) -> int:
        """Input sizes must be multiples of this."""
        made: int = self.stem_step * 2 ** len(self.shrink)
        return made


class DefaultSCN(nn.Module):
    """Local appearance from a residual U-Net, spatial configuration from large kernels on a coarse grid.

    The published network multiplies a local map by a spatial one. Here both are logits, so the product is a sum, the
    result a probability over the cells of the map, and a further cell stands for "not in this image".

    Args:
        dims: 2 or 3.
        landmarks: n.
        widths, stem, blocks, dropout: of the U-Net.
        spatial_level: U-Net level whose resolution the spatial part works on.
        spatial_kernel, spatial_width: of its convolutions.

    Shapes:
        (b, 1, *shape), shape a multiple of ``multiple``, to MapsOutput at shape / stem.
    """

    def __init__(
        self,
        dims: int,
        landmarks: int,
        widths: tuple[int, ...] = (32, 64, 96, 128, 160),
        stem: int = 2,
        blocks: int = 2,
        dropout: float = 0.1,
        spatial_level: int = 3,
        spatial_kernel: int = 9,
        spatial_width: int = 64,
    ):
        super().__init__()
        conv = CONV[dims]
        self.dims, self.level = dims, min(spatial_level, len(widths) - 1)
        self.unet = UNet(dims, 1, widths, stem, blocks, dropout)
        self.head = conv(widths[0], landmarks, 1)
        padding = spatial_kernel // 2
        self.spatial = nn.Sequential(
            conv(landmarks + widths[self.level], spatial_width, 1),
            conv(spatial_width, spatial_width, spatial_kernel, padding=padding, groups=8),
            nn.SiLU(),
            conv(spatial_width, spatial_width, 1),
            nn.SiLU(),
            conv(spatial_width, spatial_width, spatial_kernel, padding=padding, groups=8),
            nn.SiLU(),
            conv(spatial_width, landmarks, 1),
        )
        self.absent = nn.Linear(2 * widths[-1] + landmarks, landmarks)
        for layer in (self.head, self.spatial[-1], self.absent):
            normal_init_(layer, std=1e-3)

    @property
    def multiple(self) -> int:
        return self.unet.multiple

    @property
    def stride(self) -> int:
        return self.unet.stem_step

    def forward(self, x: Tensor) -> MapsOutput:
        features = self.unet(x)
        local = self.head(features[0])
        coarse = features[self.level]
        pool = local.shape[-1] // coarse.shape[-1]
        pooled = getattr(F, f"max_pool{self.dims}d")(local, pool)
        spatial = self.spatial(torch.cat([pooled, coarse], dim=1))
        spatial = F.interpolate(spatial, size=local.shape[2:], mode=LINEAR[self.dims], align_corners=False)
        logits = local + spatial
        deep = features[-1].flatten(2)
        best = logits.flatten(2).amax(-1)
        absent = self.absent(torch.cat([deep.mean(-1), deep.amax(-1), best], dim=1))
        return MapsOutput(logits, local, absent)
