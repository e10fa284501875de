"""Layers over spatial_dims: sizes, the separable cubic kernel, linear steps, initialisations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from landmarklabel.errors import UsageError
from landmarklabel.networks import ops

BOTH = pytest.mark.parametrize("dims", [2, 3])


def ramp(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator)


def keys(distance, a=-0.75):
    """Keys' cubic convolution kernel at distances >= 0."""
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


def cubic_matrix(size, scale):
    """(scale * size, size) weights of a 1D cubic enlargement with aligned image borders and a repeated edge."""
    position = (torch.arange(size * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    weights = torch.zeros(size * scale, size, dtype=torch.float64)
    for tap in range(-2, size + 2):
        weights[:, min(max(tap, 0), size - 1)] += keys((position - tap).abs())
    return weights


@BOTH
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_conv_keeps_the_size_and_starts_without_bias(dims, kernel, padding_mode):
    layer = ops.conv(dims, 2, 3, kernel, padding_mode)
    assert layer(torch.zeros(1, 2, *[8] * dims)).shape == (1, 3, *[8] * dims)
    assert layer.padding_mode == padding_mode and layer.stride == (1,) * dims
    assert not layer.bias.any()


@BOTH
def test_conv_without_bias_and_convolve_agree(dims):
    layer = ops.conv(dims, 2, 3, 5, bias=False)
    x = ramp(1, 2, *[7] * dims)
    assert layer.bias is None
    torch.testing.assert_close(ops.convolve(x, layer.weight), layer(x))


def test_even_kernels_and_other_dimensions_are_refused():
    with pytest.raises(UsageError, match="kernel 4 is even"):
        ops.conv(2, 1, 1, 4)
    for build in (
        lambda: ops.conv(1, 1, 1, 3),
        lambda: ops.avg_pool(4, 2),
        lambda: ops.upsample(ramp(1, 1, 4), 2, "linear"),
    ):
        with pytest.raises(UsageError, match="images have 2 or 3"):
            build()


@BOTH
def test_avg_pool_averages_whole_blocks(dims):
    x = ramp(1, 1, *[4] * dims)
    pooled = ops.avg_pool(dims, 2)(x)
    assert pooled.shape == (1, 1, *[2] * dims)
    torch.testing.assert_close(pooled[(0, 0, *[1] * dims)], x[(0, 0, *[slice(2, 4)] * dims)].mean())


@BOTH
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_cubic_is_the_separable_keys_kernel_on_every_axis(dims, scale):
    sizes = (5, 4, 6)[:dims]
    x = ramp(2, 3, *sizes).double()
    expected = x
    for axis, size in enumerate(sizes):
        expected = (expected.movedim(2 + axis, -1) @ cubic_matrix(size, scale).T).movedim(-1, 2 + axis)
    torch.testing.assert_close(ops.upsample(x, scale, "cubic"), expected)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_cubic_of_a_volume_constant_along_one_axis_is_bicubic(axis):
    image = ramp(2, 3, 5, 6)
    volume = image.unsqueeze(axis).expand(*image.shape[:axis], 4, *image.shape[axis:])
    expected = F.interpolate(image, scale_factor=4, mode="bicubic", align_corners=False)
    enlarged = ops.upsample(volume, 4, "cubic")
    for plane in enlarged.unbind(axis):
        torch.testing.assert_close(plane, expected)


def test_cubic_treats_all_three_axes_alike():
    x = ramp(1, 2, 4, 5, 6)
    turned = ops.upsample(x.permute(0, 1, 3, 4, 2), 3, "cubic").permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(ops.upsample(x, 3, "cubic"), turned)


def test_cubic_has_a_gradient_in_3d():
    x = ramp(1, 1, 3, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ops.upsample(v, 2, "cubic"), x)


@BOTH
@pytest.mark.parametrize("align_corners", [False, True])
def test_linear_is_exact_on_a_plane(dims, align_corners):
    x = torch.arange(6.0).reshape(6, *[1] * (dims - 1)).expand(6, *[4] * (dims - 1))[None, None]
    profile = ops.upsample(x, 2, "linear", align_corners)[(0, 0, slice(None), *[0] * (dims - 1))]
    expected = torch.linspace(0, 5, 12) if align_corners else ((torch.arange(12) + 0.5) / 2 - 0.5).clamp(0, 5)
    torch.testing.assert_close(profile, expected)


def test_unknown_upsampling_is_refused():
    for mode, aligned in (("nearest", False), ("cubic", True)):
        with pytest.raises(UsageError, match="use 'linear' or 'cubic'"):
            ops.upsample(ramp(1, 1, 4, 4), 2, mode, aligned)


@BOTH
def test_subsample_reads_the_centre_of_each_block_only(dims):
    x = ramp(1, 1, *[16] * dims)
    small = ops.subsample(x, 8)
    assert small.shape == (1, 1, *[2] * dims)
    torch.testing.assert_close(small[(0, 0, *[1] * dims)], x[(0, 0, *[slice(11, 13)] * dims)].mean())


@BOTH
def test_layers_do_what_the_functions_do(dims):
    x = ramp(1, 2, *[8] * dims)
    torch.testing.assert_close(ops.Upsample(2, "cubic")(x), ops.upsample(x, 2, "cubic"))
    torch.testing.assert_close(ops.Upsample(2, "linear", True)(x), ops.upsample(x, 2, "linear", True))
    torch.testing.assert_close(ops.Subsample(4)(x), ops.subsample(x, 4))
    assert "cubic" in repr(ops.Upsample(2, "cubic")) and "4" in repr(ops.Subsample(4))


def test_he_init_has_variance_two_over_fan_in_and_no_tails():
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, 5)
    assert ops.he_init_(layer) is layer
    std = math.sqrt(2 / (32 * 25))
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert layer.weight.abs().max() <= 2 * std / 0.8796 + 1e-7
    assert not layer.bias.any()


def test_small_init_is_a_normal_cut_at_two_std():
    torch.manual_seed(0)
    layer = ops.small_init_(nn.Conv3d(16, 8, 5), 1e-3)
    assert layer.weight.std().item() == pytest.approx(0.8796e-3, rel=0.03)
    assert layer.weight.abs().max() <= 2e-3
    assert not layer.bias.any()
