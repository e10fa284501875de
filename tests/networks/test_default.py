"""Shapes, sizes and gradients of the default network and its fine_net; nothing here depends on their hyperparameters."""

from __future__ import annotations

import pytest
import torch

from landmarklabel.networks.build import build_coarse_net, build_fine_net
from landmarklabel.networks.default import DefaultSCN, unshuffle
from landmarklabel.networks.fine_net import FineNet
from landmarklabel.networks.presets import find_preset
from landmarklabel.training.losses import cells_loss

N = 5
SMALL = {2: (16, 24, 32), 3: (8, 16, 16)}
DIMS = pytest.mark.parametrize("dims", [2, 3])
OURS = pytest.mark.parametrize("preset", ["scn:default", "scn:single"])


def built(preset, dims):
    """A preset's network, and that the preset's own numbers fit it."""
    preset = find_preset(preset)
    network = build_coarse_net(preset, dims, N)
    assert preset.stride == network.stride and preset.multiple[dims] % network.multiple == 0
    return network


def cell_sizes(dims, multiple):
    times = [(1, 1, 1), (2, 1, 3), (3, 2, 2)]
    return [tuple(multiple * t for t in row[:dims]) for row in times]


@DIMS
def test_maps_have_the_size_of_the_input_over_the_stride(dims):
    network = DefaultSCN(dims, N, SMALL[dims]).eval()
    for size in cell_sizes(dims, network.multiple):
        output = network(torch.rand(2, 1, *size))
        maps = tuple(s // network.stride for s in size)
        assert output.logits.shape == output.local.shape == (2, N, *maps)
        assert output.absent.shape == (2, N)


@DIMS
@OURS
def test_the_built_network_takes_multiples_of_what_it_says(preset, dims):
    network = built(preset, dims).eval()
    size = (network.multiple,) * (dims - 1) + (2 * network.multiple,)
    with torch.inference_mode():
        logits, local, absent = network(torch.rand(1, 1, *size))
    assert logits.shape == local.shape == (1, N, *(s // network.stride for s in size)) and absent.shape == (1, N)


@DIMS
def test_the_refiner_gives_one_map_a_crop(dims):
    fine_net = FineNet(dims, N, 2, SMALL[dims]).eval()
    for size in cell_sizes(dims, fine_net.multiple):
        output = fine_net(torch.rand(3, 2, *size), torch.tensor([4, 0, 4]))
        assert output.logits.shape == (3, 1, *(s // fine_net.stride for s in size)) and output.absent.shape == (3, 1)


@DIMS
def test_the_refiner_knows_which_landmark_it_looks_for(dims):
    fine_net = build_fine_net(find_preset("scn"), dims, N, 2).eval()
    crop = torch.rand(1, 2, *(fine_net.multiple,) * dims).expand(3, -1, *(-1,) * dims)
    with torch.inference_mode():
        one, same, other = fine_net(crop, torch.tensor([1, 1, 2])).logits
    torch.testing.assert_close(one, same)
    assert (one - other).abs().max() > 1e-6


def some_loss(logits, local, absent, stride, size):
    """The training loss with one landmark absent, the others somewhere."""
    n = logits.shape[1]
    index = torch.rand(len(logits), n, len(size)) * torch.tensor([s // stride - 1.0 for s in size])
    state = torch.ones(len(logits), n, dtype=torch.long)
    if n > 1:
        state[:, 0], index[:, 0] = 0, float("nan")
    return cells_loss(logits, local, absent, index, state, 1.0)


def without_gradient(module):
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@DIMS
@OURS
def test_gradients_reach_every_parameter(preset, dims):
    torch.manual_seed(0)
    network = built(preset, dims)
    size = (network.multiple * 2,) * dims
    some_loss(*network(torch.rand(2, 1, *size)), network.stride, size).backward()
    assert without_gradient(network) == []


@DIMS
def test_gradients_reach_every_parameter_of_the_refiner(dims):
    torch.manual_seed(0)
    fine_net = build_fine_net(find_preset("scn"), dims, N, 2)
    size = (fine_net.multiple * 2,) * dims
    output = fine_net(torch.rand(N, 2, *size), torch.arange(N))
    some_loss(*output, fine_net.stride, size).backward()
    assert without_gradient(fine_net) == []


@DIMS
@OURS
def test_bf16_gradients_are_those_of_fp32_down_to_the_smallest_maps(preset, dims):
    """oneDNN's weight gradients of a 3D convolution over a depth of two samples are uninitialised memory."""
    network = built(preset, dims).eval()
    image = torch.rand(1, 1, *(network.multiple * 2,) * dims, generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(1)
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = some_loss(*network(image), network.stride, image.shape[2:])
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, exact in gradients[0].items():
        if exact.dim() > 2 and "absent" not in name:
            assert (gradients[1][name] - exact).norm() < 0.5 * exact.norm(), name


@DIMS
@OURS
def test_an_untrained_network_prefers_no_place(preset, dims):
    """The heads start small, so that the first posterior is close to uniform."""
    network = built(preset, dims).eval()
    with torch.inference_mode():
        output = network(torch.rand(1, 1, *(network.multiple * 2,) * dims))
    assert output.logits.flatten(2).std(-1).max() < 0.5 and output.absent.abs().max() < 0.5


@DIMS
def test_folding_keeps_every_sample_of_a_block_together(dims):
    step, shape = 2, (4, 6, 8)[:dims]
    x = torch.arange(float(torch.tensor(shape).prod())).reshape(1, 1, *shape)
    folded = unshuffle(x, step)
    assert folded.shape == (1, step**dims, *(s // step for s in shape))
    block = x[(0, 0, *(slice(2, 4),) * dims)]
    assert torch.equal(folded[(0, slice(None), *(1,) * dims)].sort().values, block.flatten().sort().values)


def test_outputs_do_not_depend_on_the_rest_of_the_batch():
    network = DefaultSCN(2, N, SMALL[2]).eval()
    images = torch.rand(3, 1, network.multiple * 2, network.multiple * 3)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.absent[1:2], alone.absent, atol=1e-5, rtol=1e-4)
