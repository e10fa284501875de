"""The one place that turns ``spatial_dims`` (2 or 3) into torch layers, and the initialisations of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landmarklabel.errors import UsageError


def bf16_is_sound(x: Tensor, kernel: Sequence[int]) -> bool:
    """Whether a convolution of x (B, C, *spatial) with a kernel of these edges may run in bf16.

    On a CPU, oneDNN's 3D convolution in bf16 leaves memory unwritten where an axis of x is below the kernel's edge: seen (torch
    2.13, AVX512-BF16) as weights' gradients of 1e12 or nan, at depth 1 also in the output. See ``tests/networks/test_bf16.py``.
    """
    return x.device.type != "cpu" or x.ndim < 5 or all(size >= edge for size, edge in zip(x.shape[2:], kernel, strict=True))


class Conv3d(nn.Conv3d):
    """Conv3d that stays in the precision of its weights where bf16 is not sound."""

    def forward(self, x: Tensor) -> Tensor:
        if bf16_is_sound(x, self.kernel_size):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Dropout(nn.Dropout):
    """Dropout that knows which rows of a batch it sees: the parts of a batch get the masks that it would get as a whole."""

    rows: tuple[int, int] | None = None  # number of the first row, and how many the whole batch has; None: this is the whole

    def forward(self, x: Tensor) -> Tensor:
        if self.rows is None or not self.training or self.p == 0:
            return super().forward(x)
        first, total = self.rows
        whole = torch.empty_like(x[:1].expand(total, *x.shape[1:]), memory_format=_memory_format(x))
        kept = whole.bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[first : first + len(x)].clone()  # the rest need not be kept for the gradient


def _memory_format(x: Tensor) -> torch.memory_format:
    """That of the layers' output; a mask is drawn in the order of memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last if last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous() else torch.contiguous_format


def place_in_batch(module: nn.Module, rows: tuple[int, int] | None) -> None:
    """Tell every dropout of a network which rows of a batch come next; None: a whole batch."""
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.rows = rows


def at_least_float32(x: Tensor) -> Tensor:
    """For sums and logarithms, which half precision is too coarse for; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
_AVG_POOL: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_CONVOLVE: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
# Standard deviation of a unit normal cut at two standard deviations.
_TRUNCATED_STD = 0.87962566103423978

Padding = Literal["zeros", "reflect", "replicate", "circular"]
_Kind = TypeVar("_Kind")
_Layer = TypeVar("_Layer", bound=nn.Module)


def conv(
    dims: int, in_channels: int, out_channels: int, kernel: int, padding_mode: Padding = "zeros", bias: bool = True
) -> nn.Conv2d | nn.Conv3d:
    """A stride-1 convolution that keeps the spatial size, he-initialised.

    Args:
        dims: 2 or 3.
        in_channels: of the input (B, in_channels, *spatial).
        out_channels: of the output (B, out_channels, *spatial).
        kernel: odd edge length in pixels.
        padding_mode: ``zeros``, ``reflect``, … as torch names them.
        bias: whether there is one; it starts at zero.

    Raises:
        UsageError: dims is neither 2 nor 3, or an even kernel, which has no centre.
    """
    if kernel % 2 == 0:
        raise UsageError(f"kernel {kernel} is even; a convolution that keeps the size needs an odd kernel")
    layer = _pick(CONV, dims)
    return he_init_(layer(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode=padding_mode, bias=bias))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Zero-padded convolution of (B, in, *spatial) with a given weight (out, in, *odd kernel): (B, out, *spatial)."""
    padding = [size // 2 for size in weight.shape[2:]]
    function = _pick(_CONVOLVE, weight.ndim - 2)
    if bf16_is_sound(x, weight.shape[2:]):
        return function(x, weight, bias, padding=padding)
    with torch.autocast("cpu", enabled=False):
        return function(x.float(), weight.float(), None if bias is None else bias.float(), padding=padding)


def avg_pool(dims: int, k: int) -> nn.AvgPool2d | nn.AvgPool3d:
    """Average pooling over k^dims blocks: (B, C, *spatial) to (B, C, *(spatial // k))."""
    return _pick(_AVG_POOL, dims)(k)


def upsample(x: Tensor, scale: int, mode: str, align_corners: bool = False) -> Tensor:
    """Enlarge (B, C, *spatial) by a whole factor, by linear or cubic interpolation along every axis.

    Cubic uses torch's kernel (Keys, a = -0.75) in 2D and 3D and repeats the border; it may overshoot its input's range.

    Args:
        x: (B, C, *spatial), two or three spatial axes.
        scale: whole factor, the same for every axis.
        mode: ``linear`` or ``cubic``.
        align_corners: whether the centres of the corner pixels coincide (else the image borders do); linear only.

    Raises:
        UsageError: an unknown mode, or aligned corners with cubic.
    """
    if mode == "linear":
        method = _pick(LINEAR, x.ndim - 2)
        return F.interpolate(x, scale_factor=scale, mode=method, align_corners=align_corners)
    if mode == "cubic" and not align_corners:
        return _cubic(x, scale)
    raise UsageError(f"upsampling {mode!r} (align_corners={align_corners}) is unknown; use 'linear' or 'cubic'")


def subsample(x: Tensor, factor: int) -> Tensor:
    """Shrink (B, C, *spatial) by linear interpolation at the centre of every factor^d block, without smoothing first.

    For an even factor this averages the 2^d central pixels of each block and ignores the rest.
    """
    method = _pick(LINEAR, x.ndim - 2)
    return F.interpolate(x, scale_factor=1 / factor, mode=method, align_corners=False)


class Upsample(nn.Module):
    """`upsample` as a layer: (B, C, *spatial) to (B, C, *(scale * spatial))."""

    def __init__(self, scale: int, mode: str, align_corners: bool = False):
        super().__init__()
        self.scale, self.mode, self.align_corners = scale, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        return upsample(x, self.scale, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, mode={self.mode}, align_corners={self.align_corners}"


class Subsample(nn.Module):
    """`subsample` as a layer: (B, C, *spatial) to (B, C, *(spatial / factor))."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return subsample(x, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def he_init_(layer: _Layer, scale: float = 2.0) -> _Layer:
    """Truncated normal with variance scale / fan_in after the cut at two standard deviations; bias zero.

    Args:
        layer: with ``weight`` (out, in, *kernel) and, possibly None, ``bias``; changed in place and returned.
        scale: 2 keeps the variance through a ReLU.

    Source: Payer 2019, implementation ("he", fan_in, truncated normal, scale 2).
    """
    fan_in = _weight(layer)[0].numel()
    return small_init_(layer, math.sqrt(scale / max(fan_in, 1)) / _TRUNCATED_STD)


def small_init_(layer: _Layer, std: float) -> _Layer:
    """Truncated normal, cut at two ``std`` of the uncut normal (the weights spread by 0.88 std); bias zero.

    Args:
        layer: with ``weight`` and, possibly None, ``bias``; changed in place and returned.
        std: of the normal before the cut, as TensorFlow and the papers count it.

    Source: Payer 2016 and 2019, implementation (output heads: 1e-4 in 2D, 1e-3 in 3D).
    """
    nn.init.trunc_normal_(_weight(layer), std=std, a=-2 * std, b=2 * std)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    return layer


def normal_init_(layer: nn.Module, std: float) -> None:
    """Normal weights that spread by ``std``; bias zero."""
    nn.init.normal_(_weight(layer), std=std)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)


def laid_out(module: nn.Module, memory_format: torch.memory_format, device: torch.device | None = None) -> nn.Module:
    """The module with its weights in a memory format, and on a device where one is given; changed in place."""
    return module.to(device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]  # torch's stubs lack it


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor), f"{type(layer).__name__} has no weight"
    return weight


def _cubic(x: Tensor, scale: int) -> Tensor:
    batch, channels, *depth, height, width = x.shape
    if depth:
        # torch has no tricubic: enlarge the first axis alone (a bicubic of scale 1 along the rest is the identity).
        depth = [depth[0] * scale]
        columns = x.reshape(batch, channels, -1, height * width)
        x = F.interpolate(columns, size=(*depth, height * width), mode="bicubic", align_corners=False)
    planes = F.interpolate(x.reshape(batch, -1, height, width), scale_factor=scale, mode="bicubic", align_corners=False)
    return planes.reshape(batch, channels, *depth, *planes.shape[-2:])


def _pick(table: Mapping[int, _Kind], dims: int) -> _Kind:
    if dims not in table:
        raise UsageError(f"{dims} spatial dimensions are not supported; images have 2 or 3")
    return table[dims]
