"""Convolutions in bf16 are, to its rounding, those in fp32, however small the maps, in either layout."""

from __future__ import annotations

import itertools

import pytest
import torch

from landmarklabel.networks import ops

LAYOUTS = {2: (torch.contiguous_format, torch.channels_last), 3: (torch.contiguous_format, torch.channels_last_3d)}


def passes(run, x, *parameters):
    """The output and all gradients in fp32 and in bf16."""
    out = []
    for enabled in (False, True):
        leaves = [leaf.detach().clone(memory_format=torch.preserve_format).requires_grad_() for leaf in (x, *parameters)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = run(*leaves)
        (y.float() * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        out.append([y.detach().float(), *(leaf.grad for leaf in leaves)])
    return zip(*out, strict=True)


@pytest.mark.parametrize("layout", [0, 1], ids=["channels first", "channels last"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_convolution_is_the_same_on_maps_smaller_than_its_kernel(dims, kernel, layout):
    """Where oneDNN's is not, memory is left unwritten: weights' gradients of 1e12 and nan, at depth 1 also the output."""
    torch.manual_seed(0)
    edges = sorted({1, 2, kernel - 1, kernel})
    for shape, (inside, outside) in itertools.product(itertools.product(edges, repeat=dims), ((1, 32), (16, 5), (24, 24))):
        x = torch.randn(2, inside, *shape).to(memory_format=LAYOUTS[dims][layout])
        weight = torch.randn(outside, inside, *(kernel,) * dims) / (inside * kernel**dims) ** 0.5
        weight, bias = weight.to(memory_format=LAYOUTS[dims][layout]), torch.randn(outside)
        for exact, rounded in passes(ops.convolve, x, weight, bias):
            assert (rounded - exact).norm() <= 0.05 * exact.norm() + 0.02 * exact.numel() ** 0.5, (shape, inside, outside)


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 6, 6), (6, 2, 6), (6, 1, 6), (1, 1, 6)])
def test_a_layer_of_3d_convolution_is_the_same_on_small_maps(shape):
    torch.manual_seed(0)
    for layout in LAYOUTS[3]:
        layer = ops.conv(3, 16, 24, 5).to(memory_format=layout)
        x = torch.randn(1, 16, *shape).to(memory_format=layout)
        gradients = []
        for enabled in (False, True):
            layer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                y = layer(x).float()
            y.square().sum().backward()
            gradients.append((y.detach(), layer.weight.grad.clone(), layer.bias.grad.clone()))
        for exact, rounded in zip(*gradients, strict=True):
            assert (rounded - exact).norm() < 0.05 * exact.norm(), layout


def test_only_3d_maps_below_the_kernel_stay_in_fp32():
    """Whatever the processor: larger maps and pictures run in bf16."""
    layer, weight = ops.conv(3, 4, 4, 5), torch.ones(4, 4, 5, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for shape, dtype in (((4, 8, 8), torch.float32), ((8, 8, 1), torch.float32), ((5, 8, 8), torch.bfloat16)):
            assert layer(torch.ones(1, 4, *shape)).dtype == ops.convolve(torch.ones(1, 4, *shape), weight).dtype == dtype
        assert ops.conv(2, 4, 4, 5)(torch.ones(1, 4, 2, 2)).dtype == torch.bfloat16
