"""SpatialConfiguration-Net as published: where it looks right (local) times where it can be (spatial).

`ConceptSCN` (Payer 2016), `SpatialConfigurationNet` (Payer 2019) and `HandSCN` (a PyTorch re-implementation of 2024 for
hand radiographs) share one forward pass and differ only in the local and the spatial part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from landmarklabel.errors import UsageError
from landmarklabel.networks import ops

SLOPE = 0.1  # of every LeakyReLU


class SCNOutput(NamedTuple):
    """Heatmaps of one pass, each (B, N, *spatial) at the size of the input.

    Attributes:
        heatmaps: local * spatial, what is trained and decoded.
        local: accurate but ambiguous appearance maps.
        spatial: coarse but unambiguous configuration maps.
    """

    heatmaps: Tensor
    local: Tensor
    spatial: Tensor


class ProductSCN(nn.Module):
    """A local part, a spatial part that sees only the local heatmaps, and their product.

    Args:
        local: (B, in_channels, *spatial) to (B, N, *spatial).
        spatial: (B, N, *spatial) to (B, N, *spatial).
        in_channels: channels of the image.
        input_multiple: every edge of the input must be a multiple of it, in pixels.
        input_minimum: the shortest edge allowed, in pixels.

    Source: Payer 2016 and 2019 (element-wise product).
    """

    def __init__(
        self,
        local: nn.Module,
        spatial: nn.Module,
        *,
        in_channels: int,
        spatial_dims: int,
        input_multiple: int,
        input_minimum: int = 1,
    ):
        super().__init__()
        self.local, self.spatial = local, spatial
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.input_multiple, self.input_minimum = input_multiple, max(input_minimum, input_multiple)

    def forward(self, image: Tensor) -> SCNOutput:
        """(B, in_channels, *spatial) to heatmaps of the same size.

        Raises:
            UsageError: an image of another shape than the network can take.
        """
        self._check(image)
        local = self.local(image)
        spatial = self.spatial(local)
        return SCNOutput(local * spatial, local, spatial)

    def _check(self, image: Tensor) -> None:
        size = tuple(image.shape[2:])
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise UsageError(
                f"the network got an image of shape {tuple(image.shape)}; it takes "
                f"(batch, {self.in_channels}, and {self.spatial_dims} spatial axes)"
            )
        if any(edge % self.input_multiple or edge < self.input_minimum for edge in size):
            raise UsageError(
                f"the network got an image of size {size}; every edge must be a multiple of {self.input_multiple} "
                f"and at least {self.input_minimum}: pad or resample the image"
            )


class ConceptSCN(ProductSCN):
    """The concept network: three plain convolutions, then one large convolution per landmark over all the OTHER maps.

    N must be at least 2, as each landmark is located by the others; arguments as in `SpatialConfigurationNet`.

    Source: Payer 2016; preset ``payer2016``.
    """

    def __init__(
        self,
        n_landmarks: int,
        in_channels: int = 1,
        *,
        spatial_dims: int = 2,
        filters: int = 128,
        kernel: int = 5,
        spatial_kernel: int = 15,
        spatial_pool: int = 8,
        head_std: float = 1e-4,
    ):
        _check_count(n_landmarks, at_least=2)
        layers: list[nn.Module] = []
        for channels in (in_channels, filters, filters):
            layers += [ops.conv(spatial_dims, channels, filters, kernel), nn.ReLU()]
        head = ops.small_init_(ops.conv(spatial_dims, filters, n_landmarks, kernel), head_std)
        spatial = nn.Sequential(
            ops.avg_pool(spatial_dims, spatial_pool),
            ops.small_init_(OthersConv(spatial_dims, n_landmarks, spatial_kernel), head_std),
            # "valid_cropped" of the original is read as plain interpolation with the image borders aligned.
            ops.Upsample(spatial_pool, "linear"),
        )
        super().__init__(
            nn.Sequential(*layers, head),
            spatial,
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            input_multiple=spatial_pool,
        )


class OthersConv(nn.Module):
    """One convolution per landmark over the maps of all the other landmarks: (B, N, *spatial) to (B, N, *spatial).

    ``weight`` is (N, N - 1, *kernel): row i lists the other landmarks in order. It runs as one dense convolution with a
    diagonal of constant zeros, so no landmark ever sees its own map.

    Source: Payer 2016.
    """

    others: Tensor

    def __init__(self, spatial_dims: int, n_landmarks: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_landmarks, n_landmarks - 1, *[kernel] * spatial_dims))
        self.bias = nn.Parameter(torch.empty(n_landmarks))
        others = ~torch.eye(n_landmarks, dtype=torch.bool)
        self.register_buffer("others", others.reshape(*others.shape, *[1] * spatial_dims), persistent=False)
        ops.he_init_(self)

    def forward(self, maps: Tensor) -> Tensor:
        n = len(self.weight)
        # masked_scatter fills the off-diagonal kernels row by row, the order in which the weight holds them.
        dense = self.weight.new_zeros(n, n, *self.weight.shape[2:]).masked_scatter(self.others, self.weight)
        return ops.convolve(maps, dense, self.bias)


class SpatialConfigurationNet(ProductSCN):
    """The journal network: a four-level local part with additive skips, four large convolutions for the configuration.

    The defaults are the cephalogram's; `payer2019` has those of the spine too.

    Args:
        n_landmarks: N.
        in_channels: channels of the image.
        spatial_dims: 2 or 3.
        filters: of every convolution that is not a head.
        levels: of the local part; each halves the size.
        kernel: edge of the local convolutions in pixels.
        spatial_kernel: edge of the spatial convolutions in pooled pixels.
        spatial_pool: how much smaller the spatial part works.
        head_std: of both output heads' initial weights.
        dropout: probability, element-wise, after the first convolution of each level.
        padding_mode: in the local levels and the spatial part; stem and local head always pad with zeros.

    Source: Payer 2019; preset ``payer2019``.
    """

    def __init__(
        self,
        n_landmarks: int,
        in_channels: int = 1,
        *,
        spatial_dims: int = 2,
        filters: int = 128,
        levels: int = 4,
        kernel: int = 3,
        spatial_kernel: int = 11,
        spatial_pool: int = 16,
        head_std: float = 1e-4,
        dropout: float = 0.5,
        padding_mode: ops.Padding = "zeros",
    ):
        _check_count(n_landmarks)

        def layers(*widths: int, drop: float = 0.0) -> nn.Sequential:
            return conv_stack(spatial_dims, widths, kernel, drop, padding_mode)

        local = LocalPyramid(
            spatial_dims,
            stem=conv_stack(spatial_dims, [in_channels, filters], kernel),
            down=[layers(filters, filters, filters, drop=dropout) for _ in range(levels)],
            lateral=[layers(filters, filters) for _ in range(levels)],
            head=ops.small_init_(ops.conv(spatial_dims, filters, n_landmarks, kernel), head_std),
        )
        convs = spatial_convs(spatial_dims, n_landmarks, filters, spatial_kernel, padding_mode)
        ops.small_init_(convs[-2], head_std)
        deepest = 2 ** (levels - 1)
        # A kernel k reflects k // 2 pixels and so needs one more of them where it works.
        reflected = max(deepest * (kernel // 2 + 1), spatial_pool * (spatial_kernel // 2 + 1))
        super().__init__(
            local,
            nn.Sequential(ops.avg_pool(spatial_dims, spatial_pool), *convs, ops.Upsample(spatial_pool, "cubic")),
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            input_multiple=math.lcm(deepest, spatial_pool),
            input_minimum=1 if padding_mode == "zeros" else reflected,
        )


class HandSCN(ProductSCN):
    """The PyTorch hand network of 2024: fewer pyramid layers, larger kernels, an unsmoothed step down, plain he heads.

    Arguments as in `SpatialConfigurationNet`.

    Source: DonggeJia/SpatialConfiguration-Net (MIT): the topology, none of the code; preset ``hand2024``.
    """

    def __init__(
        self,
        n_landmarks: int,
        in_channels: int = 1,
        *,
        spatial_dims: int = 2,
        filters: int = 64,
        kernel: int = 5,
        spatial_kernel: int = 15,
        spatial_pool: int = 8,
        dropout: float = 0.5,
    ):
        _check_count(n_landmarks)

        def layers(*widths: int, drop: float = dropout) -> nn.Sequential:
            return conv_stack(spatial_dims, widths, kernel, drop)

        f = filters
        # 3/2/2/2 convolutions. Level 2 is pooled after its first one, so its second is the layer of the skip;
        # the other skips have no layers. (49.6 GFLOP at 256 x 256 confirm it: both work at a quarter of the size.)
        local = LocalPyramid(
            spatial_dims,
            stem=nn.Identity(),
            down=[layers(in_channels, f, f, f), layers(f, f, f), layers(f, f), layers(f, f, f)],
            lateral=[nn.Identity(), nn.Identity(), layers(f, f, drop=0.0), nn.Identity()],
            head=ops.conv(spatial_dims, f, n_landmarks, kernel),
            align_corners=True,
        )
        convs = spatial_convs(spatial_dims, n_landmarks, f, spatial_kernel)
        super().__init__(
            local,
            nn.Sequential(ops.Subsample(spatial_pool), *convs, ops.Upsample(spatial_pool, "cubic")),
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            input_multiple=math.lcm(8, spatial_pool),
        )
        for module in self.modules():
            if isinstance(module, ops.CONV[spatial_dims]):
                nn.init.kaiming_normal_(module.weight, a=0.01, mode="fan_in", nonlinearity="leaky_relu")


class LocalPyramid(nn.Module):
    """Contract, keep a lateral branch a level, expand by adding: (B, in_channels, *spatial) to (B, N, *spatial).

    Args:
        stem: before the first level.
        down: layers of each level; its output is pooled for the next level.
        lateral: layers from each ``down`` to the expanding path, the deepest level included.
        head: from features to N maps.
        align_corners: of the linear upsampling.
    """

    def __init__(
        self,
        spatial_dims: int,
        *,
        stem: nn.Module,
        down: Sequence[nn.Module],
        lateral: Sequence[nn.Module],
        head: nn.Module,
        align_corners: bool = False,
    ):
        super().__init__()
        self.stem = stem
        self.down, self.lateral = nn.ModuleList(down), nn.ModuleList(lateral)
        self.pool = ops.avg_pool(spatial_dims, 2)
        self.upsample = ops.Upsample(2, "linear", align_corners)
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        features = self.down[0](self.stem(image))
        skips = [self.lateral[0](features)]
        for down, lateral in zip(self.down[1:], self.lateral[1:], strict=True):
            features = down(self.pool(features))
            skips.append(lateral(features))
        expanded = skips.pop()
        while skips:
            expanded = skips.pop() + self.upsample(expanded)
        made: Tensor = self.head(expanded)
        return made


def conv_stack(
    spatial_dims: int, widths: Sequence[int], kernel: int, dropout: float = 0.0, padding_mode: ops.Padding = "zeros"
) -> nn.Sequential:
    """Convolutions from width to width, each with LeakyReLU 0.1, and an element-wise dropout after the first.

    Dropout before or after the activation is the same: LeakyReLU is positively homogeneous.
    """
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [ops.conv(spatial_dims, a, b, kernel, padding_mode), nn.LeakyReLU(SLOPE)]
    if dropout:
        layers.insert(2, ops.Dropout(dropout))
    return nn.Sequential(*layers)


def spatial_convs(
    spatial_dims: int, n_landmarks: int, filters: int, kernel: int, padding_mode: ops.Padding = "zeros"
) -> list[nn.Module]:
    """Three convolutions with LeakyReLU 0.1 and one back to N maps with tanh: layers from and to (B, N, *small)."""
    stack = conv_stack(spatial_dims, [n_landmarks, filters, filters, filters], kernel, padding_mode=padding_mode)
    return [*stack, ops.conv(spatial_dims, filters, n_landmarks, kernel, padding_mode), nn.Tanh()]


PAYER2019: dict[int, dict[str, Any]] = {
    2: {"filters": 128, "spatial_kernel": 11, "spatial_pool": 16, "head_std": 1e-4, "padding_mode": "zeros"},
    3: {"filters": 64, "spatial_kernel": 7, "spatial_pool": 8, "head_std": 1e-3, "padding_mode": "reflect"},
}


def payer2019(n_landmarks: int, in_channels: int = 1, *, spatial_dims: int = 2, **changes: Any) -> SpatialConfigurationNet:
    """The published settings: the cephalogram's in 2D, those of the spine CT in 3D.

    ``changes`` are arguments of `SpatialConfigurationNet` that differ from the publication.

    Source: Payer 2019 (cephalogram, spine CT).
    """
    if spatial_dims not in PAYER2019:
        raise UsageError(f"payer2019 got spatial_dims={spatial_dims}; it is published for 2 and 3")
    settings = PAYER2019[spatial_dims] | changes
    return SpatialConfigurationNet(n_landmarks, in_channels, spatial_dims=spatial_dims, **settings)


def _check_count(n_landmarks: int, at_least: int = 1) -> None:
    if n_landmarks < at_least:
        raise UsageError(f"the network got {n_landmarks} landmarks; it needs at least {at_least}")
