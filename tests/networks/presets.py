"""The published networks at their published size and small, and what of a network the tests count."""

from collections import Counter

import pytest
import torch
from torch import nn

from landmarklabel.networks.scn import ConceptSCN, HandSCN, OthersConv, payer2019

CONV = (nn.Conv2d, nn.Conv3d, OthersConv)
POOL = (nn.AvgPool2d, nn.AvgPool3d)

# name: (constructor, landmarks, published input size)
PUBLISHED = {
    "payer2016": (ConceptSCN, 37, (256, 256)),
    "payer2019": (payer2019, 19, (512, 512)),
    "payer2019_spine": (lambda *a, **k: payer2019(*a, spatial_dims=3, **k), 26, (96, 96, 192)),
    "hand2024": (HandSCN, 37, (256, 256)),
}
ALL = pytest.mark.parametrize("name", PUBLISHED)
# The same layers, smaller: what is fast enough to run for real.
SMALL = {
    "payer2016": lambda: ConceptSCN(4, filters=6, spatial_kernel=5),
    "payer2019": lambda: payer2019(4, filters=6, spatial_kernel=5),
    "payer2019_spine": lambda: payer2019(4, spatial_dims=3, filters=6),
    "hand2024": lambda: HandSCN(4, filters=6, spatial_kernel=5),
}
SMALL_SIZE = {"payer2016": (32, 40), "payer2019": (48, 32), "payer2019_spine": (32, 32, 64), "hand2024": (32, 40)}


def published(name, device="meta"):
    """The network at its published size; on "meta" it has shapes and no values, which costs nothing."""
    build, n, _ = PUBLISHED[name]
    with torch.device(device):
        return build(n)


def small(name):
    torch.manual_seed(0)
    return SMALL[name](), torch.randn(2, 1, *SMALL_SIZE[name])


def layers(network, kinds):
    return [m for m in network.modules() if isinstance(m, kinds)]


def kernels(network):
    """Count of (input channels, output channels, kernel edge)."""
    shapes = [(m.weight.shape[1], m.weight.shape[0], m.weight.shape[2:]) for m in layers(network, CONV)]
    assert all(len(set(kernel)) == 1 for *_, kernel in shapes)
    return Counter((a, b, kernel[0]) for a, b, kernel in shapes)


def trace(network, size, kinds=CONV, channels=1):
    """(layer, input edge, output) of every layer of these kinds in the order it runs, without computing values."""
    seen = []
    hooks = [m.register_forward_hook(lambda m, i, o: seen.append((m, i[0].shape[2], o))) for m in layers(network, kinds)]
    with torch.no_grad():
        network(torch.empty(1, channels, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return seen


def flops(network, size):
    return sum(2 * m.weight[0].numel() * output.numel() for m, _, output in trace(network, size))
