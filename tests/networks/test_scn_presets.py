"""The published networks, fact by fact: layers, sizes, parameters, initialisation, padding."""

from collections import Counter

import pytest
import torch
from presets import ALL, CONV, POOL, PUBLISHED, flops, kernels, layers, published, small, trace
from torch import nn

from landmarklabel.networks.ops import Subsample, Upsample
from landmarklabel.networks.scn import HandSCN, payer2019

# Parameters and work


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # local   1*128*25+128 + 2*(128*128*25+128) + 128*37*25+37 =   941 221
        # spatial 37*36*225 + 37                                   =   299 737
        ("payer2016", 1_240_958),
        # local   1*128*9+128 + 12*(128*128*9+128) + 128*19*9+19                   = 1 794 195
        # spatial 19*128*121+128 + 2*(128*128*121+128) + 128*19*121+19             = 4 553 875
        ("payer2019", 6_348_070),
        # local   1*64*27+64 + 12*(64*64*27+64) + 64*26*27+26                      = 1 374 618
        # spatial 26*64*343+64 + 2*(64*64*343+64) + 64*26*343+26                   = 3 951 578
        ("payer2019_spine", 5_326_196),
        # local   1*64*25+64 + 8*(64*64*25+64) + 64*37*25+37                       =   880 613
        # spatial 37*64*225+64 + 2*(64*64*225+64) + 64*37*225+37                   = 2 909 029
        ("hand2024", 3_789_642),
    ],
)
def test_parameters(name, count):
    assert sum(p.numel() for p in published(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "gflop"),
    [
        # 2*65536*(1*128 + 2*128*128 + 128*37)*25 = 123.31, spatial (run dense) 2*1024*37*37*225 = 0.63
        ("payer2016", 123.93),
        ("payer2019", 329.43),
        ("payer2019_spine", 1533.97),
        # The figure measured for the original: 49.6, 70 % of it at full resolution, 12 % in the spatial part.
        ("hand2024", 49.58),
    ],
)
def test_work_at_the_published_input_size(name, gflop):
    assert flops(published(name), PUBLISHED[name][2]) / 1e9 == pytest.approx(gflop, abs=0.005)


def test_where_the_work_of_hand2024_goes():
    network = published("hand2024")
    work = Counter()
    for layer, edge, output in trace(network, (256, 256)):
        work[edge, layer.weight.shape[2]] += 2 * layer.weight[0].numel() * output.numel()
    total = sum(work.values())
    assert round(100 * work[256, 5] / total) == 70
    assert round(100 * work[32, 15] / total) == 12


# Layers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("payer2016", {(1, 128, 5): 1, (128, 128, 5): 2, (128, 37, 5): 1, (36, 37, 15): 1}),
        (
            "payer2019",  # 4 levels x (2 down + 1 lateral)
            {(1, 128, 3): 1, (128, 128, 3): 12, (128, 19, 3): 1, (19, 128, 11): 1, (128, 128, 11): 2, (128, 19, 11): 1},
        ),
        (
            "payer2019_spine",
            {(1, 64, 3): 1, (64, 64, 3): 12, (64, 26, 3): 1, (26, 64, 7): 1, (64, 64, 7): 2, (64, 26, 7): 1},
        ),
        (
            "hand2024",  # 3 + 2 + 2 + 2 convolutions of 5x5, then the head
            {(1, 64, 5): 1, (64, 64, 5): 8, (64, 37, 5): 1, (37, 64, 15): 1, (64, 64, 15): 2, (64, 37, 15): 1},
        ),
    ],
)
def test_convolutions_by_channels_and_kernel(name, expected):
    assert kernels(published(name)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("payer2016", [256] * 4 + [32]),
        # stem, 4 x (down, down, lateral), head, spatial at 1/16
        ("payer2019", [512] + [512] * 3 + [256] * 3 + [128] * 3 + [64] * 3 + [512] + [32] * 4),
        ("payer2019_spine", [96] + [96] * 3 + [48] * 3 + [24] * 3 + [12] * 3 + [96] + [12] * 4),
        # Both layers of level 2 work at 64: the second is on the skip, behind the branch to the pool.
        ("hand2024", [256] * 3 + [128] * 2 + [64] * 2 + [32] * 2 + [256] + [32] * 4),
    ],
)
def test_the_size_each_convolution_works_at(name, expected):
    assert [edge for _, edge, _ in trace(published(name), PUBLISHED[name][2])] == expected


@ALL
def test_convolutions_have_stride_one_and_bias_and_keep_the_size(name):
    network = published(name)
    for layer in layers(network, (nn.Conv2d, nn.Conv3d)):
        assert set(layer.stride) == {1} and set(layer.dilation) == {1} and layer.groups == 1
        assert layer.bias is not None
    assert all(output.shape[2] == edge for _, edge, output in trace(network, PUBLISHED[name][2]))


@pytest.mark.parametrize(
    ("name", "pools", "ups"),
    [
        ("payer2016", [8], [(8, "linear", False)]),
        ("payer2019", [2, 2, 2, 16], [(2, "linear", False)] * 3 + [(16, "cubic", False)]),
        ("payer2019_spine", [2, 2, 2, 8], [(2, "linear", False)] * 3 + [(8, "cubic", False)]),
        ("hand2024", [2, 2, 2], [(2, "linear", True)] * 3 + [(8, "cubic", False)]),
    ],
)
def test_pooling_and_upsampling(name, pools, ups):
    network, size = published(name), PUBLISHED[name][2]
    assert [m.kernel_size for m, *_ in trace(network, size, POOL)] == pools
    assert [(m.scale, m.mode, m.align_corners) for m, *_ in trace(network, size, Upsample)] == ups


def test_hand2024_steps_down_without_smoothing():
    (layer,) = layers(published("hand2024"), Subsample)
    assert layer.factor == 8


@ALL
def test_there_is_no_normalisation_layer_and_no_buffer_to_save(name):
    network = published(name)
    assert not [m for m in network.modules() if "norm" in type(m).__name__.lower()]
    assert set(network.state_dict()) == {key for key, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("name", "relu", "leaky", "tanh"),
    [("payer2016", 3, 0, 0), ("payer2019", 0, 16, 1), ("payer2019_spine", 0, 16, 1), ("hand2024", 0, 12, 1)],
)
def test_activations(name, relu, leaky, tanh):
    network = published(name)
    assert len(layers(network, nn.ReLU)) == relu and len(layers(network, nn.Tanh)) == tanh
    slopes = [m.negative_slope for m in layers(network, nn.LeakyReLU)]
    assert slopes == [0.1] * leaky


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("payer2016", []),
        ("payer2019", [512, 256, 128, 64]),
        ("payer2019_spine", [96, 48, 24, 12]),
        ("hand2024", [256, 128, 64, 32]),
    ],
)
def test_dropout_is_element_wise_half_after_the_first_convolution_of_each_level(name, edges):
    network = published(name)
    seen = trace(network, PUBLISHED[name][2], (nn.Dropout, nn.Conv2d, nn.Conv3d))
    assert [edge for m, edge, _ in seen if isinstance(m, nn.Dropout)] == edges
    assert all(isinstance(m, nn.Dropout) and m.p == 0.5 for m in layers(network, nn.modules.dropout._DropoutNd))
    order = "".join("d" if isinstance(m, nn.Dropout) else "c" for m, *_ in seen)
    assert (
        order
        == {
            "payer2016": "cccc",  # the per-landmark convolution is not a torch layer
            "payer2019": "c" + "cdcc" * 4 + "c" + "cccc",
            "payer2019_spine": "c" + "cdcc" * 4 + "c" + "cccc",
            "hand2024": "cdcc" + "cdc" + "cdc" + "cdc" + "c" + "cccc",
        }[name]
    )


def test_dropout_drops_single_elements_not_channels():
    network, _ = small("payer2019")
    dropped = layers(network, nn.Dropout)[0](torch.ones(1, 2, 64, 64))
    for channel in dropped[0]:
        assert 0.4 < (channel == 0).float().mean() < 0.6


# Padding


@pytest.mark.parametrize("name", ["payer2016", "payer2019", "hand2024"])
def test_networks_in_2d_pad_with_zeros(name):
    modes = {m.padding_mode for m in layers(published(name), (nn.Conv2d, nn.Conv3d))}
    assert modes == {"zeros"}


def test_the_spine_network_reflects_in_levels_and_spatial_part_but_not_in_stem_and_head():
    network = published("payer2019_spine")
    modes = [(layer.padding_mode, edge) for layer, edge, _ in trace(network, (96, 96, 192))]
    assert [mode for mode, _ in modes] == ["zeros"] + ["reflect"] * 12 + ["zeros"] + ["reflect"] * 4


def test_padding_can_be_chosen():
    assert {m.padding_mode for m in layers(payer2019(2, spatial_dims=3, filters=2, padding_mode="zeros"), CONV)} == {"zeros"}


# Initialisation


@pytest.mark.parametrize(("name", "std"), [("payer2016", 1e-4), ("payer2019", 1e-4), ("payer2019_spine", 1e-3)])
def test_both_heads_start_small_and_all_else_he(name, std):
    torch.manual_seed(0)
    build, n, _ = PUBLISHED[name]
    network = build(n)
    heads = [layers(part, CONV)[-1] for part in (network.local, network.spatial)]
    for layer in layers(network, CONV):
        fan_in = layer.weight[0].numel()
        # A normal cut at two std keeps 0.88 of its spread; he is corrected for that, the heads are not.
        small_head = any(layer is h for h in heads)
        expected = 0.8796 * std if small_head else (2 / fan_in) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.06)
        assert layer.weight.abs().max() <= (2 * std if small_head else 2 * expected / 0.8796) * 1.0001
        assert not layer.bias.any()


def test_hand2024_starts_with_kaiming_heads():
    torch.manual_seed(0)
    for layer in layers(HandSCN(37), CONV):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan_in) ** 0.5, rel=0.06)
        assert not layer.bias.any()
