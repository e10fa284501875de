"""The published networks at work: how their parts combine, what reaches what, and which inputs are refused."""

import pytest
import torch
from presets import ALL, CONV, PUBLISHED, SMALL_SIZE, layers, published, small
from torch import nn

from landmarklabel.errors import UsageError
from landmarklabel.networks.ops import Upsample
from landmarklabel.networks.scn import ConceptSCN, HandSCN, OthersConv, SCNOutput, SpatialConfigurationNet, payer2019

# Shapes and values


@ALL
def test_maps_have_the_size_of_the_image(name):
    _, n, size = PUBLISHED[name]
    output = published(name)(torch.empty(2, 1, *size, device="meta"))
    assert isinstance(output, SCNOutput)
    assert all(maps.shape == (2, n, *size) for maps in output)


@pytest.mark.parametrize("name", ["payer2016", "payer2019", "hand2024"])
def test_maps_at_256_for_any_count_and_channels(name):
    build = PUBLISHED[name][0]
    with torch.device("meta"):
        output = build(5, 3)(torch.empty(1, 3, 256, 256))
    assert output.heatmaps.shape == (1, 5, 256, 256)


@ALL
def test_the_output_is_the_finite_product_of_both_parts(name):
    network, image = small(name)
    output = network.eval()(image)
    assert all(maps.shape == (2, 4, *SMALL_SIZE[name]) and maps.isfinite().all() for maps in output)
    torch.testing.assert_close(output.heatmaps, output.local * output.spatial, rtol=0, atol=0)
    assert output.heatmaps.std() > 0


@ALL
def test_the_spatial_part_sees_only_the_local_maps(name):
    network, image = small(name)
    output = network.eval()(image)
    torch.testing.assert_close(network.spatial(output.local), output.spatial)


@pytest.mark.parametrize("name", ["payer2019", "payer2019_spine", "hand2024"])
def test_the_spatial_part_is_bounded_by_tanh_before_it_is_enlarged(name):
    network, _ = small(name)
    maps = torch.randn(1, 4, *SMALL_SIZE[name]) * 1e6
    seen = []
    (tanh,) = layers(network, nn.Tanh)
    tanh.register_forward_hook(lambda m, i, o: seen.append(o))
    nn.init.normal_(layers(network.spatial, CONV)[-1].weight)
    network.spatial(maps)
    assert seen[0].abs().max() == 1 and seen[0].min() < -0.9 and seen[0].max() > 0.9
    assert isinstance(network.spatial[-1], Upsample)


def test_the_spatial_part_of_payer2016_is_linear():
    network, image = small("payer2016")
    maps = torch.randn(1, 4, 32, 32)
    torch.testing.assert_close(network.spatial(3 * maps), 3 * network.spatial(maps))


@ALL
def test_the_gradient_reaches_every_parameter(name):
    network, image = small(name)
    (network.eval()(image).heatmaps - 1).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key


@ALL
def test_dropout_acts_in_training_only(name):
    network, image = small(name)
    network.train()
    changes = not torch.equal(network(image).local, network(image).local)
    assert changes == (name != "payer2016")
    network.eval()
    assert torch.equal(network(image).local, network(image).local)


# The skips


def test_payer2019_adds_the_lateral_of_every_level():
    network, image = small("payer2019")
    network.eval()
    local = network.local
    features, expected = local.stem(image), []
    for level in range(4):
        features = local.down[level](features if level == 0 else nn.functional.avg_pool2d(features, 2))
        expected.append(local.lateral[level](features))
    total = expected[3]
    for skip in expected[2::-1]:
        total = skip + nn.functional.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(local(image), local.head(total))


def test_hand2024_has_a_layer_on_the_skip_of_level_two_only():
    network = published("hand2024")
    assert [len(layers(m, CONV)) for m in network.local.down] == [3, 2, 1, 2]
    assert [len(layers(m, CONV)) for m in network.local.lateral] == [0, 0, 1, 0]
    assert isinstance(network.local.stem, nn.Identity)


# Each landmark by the others (payer2016)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_landmark_never_sees_its_own_map(dims):
    torch.manual_seed(0)
    layer = OthersConv(dims, 4, 3)
    maps = torch.randn(1, 4, *[6] * dims)
    before = layer(maps)
    for own in range(4):
        changed = maps.clone()
        changed[:, own] += torch.randn(6)
        after = layer(changed)
        torch.testing.assert_close(after[:, own], before[:, own])
        for other in set(range(4)) - {own}:
            assert not torch.allclose(after[:, other], before[:, other])


def test_row_i_of_the_weight_is_the_others_in_order():
    torch.manual_seed(0)
    layer = OthersConv(2, 5, 3)
    maps = torch.randn(2, 5, 7, 7)
    for own in range(5):
        others = [i for i in range(5) if i != own]
        alone = nn.functional.conv2d(maps[:, others], layer.weight[own : own + 1], layer.bias[own : own + 1], padding=1)
        torch.testing.assert_close(layer(maps)[:, own : own + 1], alone)


def test_a_landmark_stays_blind_to_its_own_map_after_a_training_step():
    network, image = small("payer2016")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    (network(image).heatmaps - 1).square().sum().backward()
    optimizer.step()
    maps = torch.randn(1, 4, 32, 32)
    changed = maps.clone()
    changed[:, 2] = 0
    difference = (network.spatial(changed) - network.spatial(maps)).abs().amax(dim=(0, 2, 3))
    assert difference[2] == 0 and (difference[[0, 1, 3]] > 0).all()
    assert network.spatial[1].weight.shape == (4, 3, 5, 5)


# What is refused


@pytest.mark.parametrize(
    ("name", "multiple", "minimum"),
    # reflect: 7^3 at 1/8 reflects 3 and needs 4 voxels there
    [("payer2016", 8, 8), ("payer2019", 16, 16), ("payer2019_spine", 8, 32), ("hand2024", 8, 8)],
)
def test_input_sizes_that_cannot_work_are_refused(name, multiple, minimum):
    network = published(name)
    assert (network.input_multiple, network.input_minimum) == (multiple, minimum)
    dims = network.spatial_dims
    fits = torch.empty(1, 1, *[minimum] * dims, device="meta")
    assert network(fits).heatmaps.shape[2:] == fits.shape[2:]
    for edge in (minimum + 1, minimum - multiple):
        with pytest.raises(UsageError, match=f"multiple of {multiple} and at least {minimum}"):
            network(torch.empty(1, 1, *[minimum] * (dims - 1), edge, device="meta"))


@ALL
def test_other_channels_and_dimensions_are_refused(name):
    network = published(name)
    size = PUBLISHED[name][2]
    for shape in ((1, 2, *size), (1, *size), (1, 1, *size, 8)):
        with pytest.raises(UsageError, match="it takes"):
            network(torch.empty(shape, device="meta"))


def test_counts_and_dimensions_that_cannot_work_are_refused():
    with pytest.raises(UsageError, match="got 1 landmarks; it needs at least 2"):
        ConceptSCN(1)
    for build in (HandSCN, SpatialConfigurationNet):
        with pytest.raises(UsageError, match="got 0 landmarks; it needs at least 1"):
            build(0)
    with pytest.raises(UsageError, match="spatial_dims=4"):
        payer2019(3, spatial_dims=4)
