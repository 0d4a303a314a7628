"""Parameters, multiply-adds and depths against counts made with the authors' Torch7 code."""

import pytest
import torch
from torch import nn

from mg.errors import UserError
from mg.networks import build, resolve_dataset
from mg.networks.counting import IMAGE, count, layers, longest_path, total
from mg.networks.execution import accelerate
from mg.networks.pyramid import InputPyramid, MultigridConv, TakeGrid
from mg.networks.registry import skeleton

# (network, data set, options): parameters, multiply-adds, depth
EXACT = [
    ("unet", "segmentation", {}, 3_791_518, 1_238_106_112, 11),
    ("umg", "segmentation", {}, 5_903_290, 1_910_960_128, 11),
    ("pmg", "segmentation", {}, 605_718, 1_606_537_728, 11),
    ("pmg", "segmentation", {"n_layer": 2}, 1_205_136, 3_190_473_216, 21),
    ("r_pmg", "segmentation", {}, 1_199_886, 3_168_846_336, 21),
    ("r_pmg", "segmentation", {"n_layer": 2}, 2_403_042, 6_354_412_032, 41),
    ("unet", "spatial_transform", {}, 3_790_915, 1_235_746_816, 11),
    ("umg", "spatial_transform", {}, 5_900_905, 1_906_278_400, 11),
    ("pmg", "spatial_transform", {}, 600_507, 1_585_304_064, 11),
    ("pmg", "spatial_transform", {"n_layer": 2}, 1_199_007, 3_165_590_016, 21),
    ("r_pmg", "spatial_transform", {}, 1_198_554, 3_163_722_240, 21),
    ("r_pmg", "spatial_transform", {"n_layer": 2}, 2_396_058, 6_326_358_528, 41),
    ("mg", "cifar100", {}, 8_344_164, 116_754_944, 6),
    ("r_mg", "cifar100", {"n_layer": 4}, 93_256_452, 2_126_383_616, 42),
    ("r_mg", "imagenet", {}, 32_899_176, 5_760_277_760, 34),
    ("r_mg", "imagenet", {"depth": 18}, 15_847_752, 2_768_082_176, 18),
]

# Millions of parameters and of multiply-adds for n_layer 1 to 4.
CIFAR = [
    ("vgg", {}, "10.017/170.7 23.976/578.2 37.935/985.7 51.893/1393.2"),
    ("resnet", {}, "9.499/266.1 20.494/586.9 31.488/907.8 42.482/1228.7"),
    ("mg", {}, "8.344/116.8 20.461/394.5 32.578/672.3 44.695/950.0"),
    ("r_mg", {}, "20.556/459.8 44.789/1015.4 69.023/1570.9 93.256/2126.4"),
    ("pmg", {}, "8.462/186.2 20.602/468.1 32.742/750.0 44.882/1031.9"),
    ("r_pmg", {}, "20.602/468.1 44.882/1031.9 69.162/1595.6 93.442/2159.4"),
    ("mg", {"width": "released"}, "3.362/51.8 8.186/177.9 13.010/304.0 17.835/430.1"),
    ("r_mg", {"width": "released"}, "8.055/180.1 17.525/397.1 26.995/614.1 36.465/831.1"),
]

SEG = [(30, "A", "31.905/9.521"), (30, "B", "32.139/9.546"), (52, "A", "60.464/18.272")]


def examined(network, dataset, options):
    spec = resolve_dataset(dataset)
    model = skeleton(network, dataset, **options)
    found = layers(model, (spec.channels, spec.size, spec.size))
    return (*total(model, found), longest_path(found))


@pytest.mark.parametrize(("network", "dataset", "options", "params", "macs", "deep"), EXACT)
def test_counts_and_depth_are_exactly_the_original_ones(
    network, dataset, options, params, macs, deep
):
    assert examined(network, dataset, options) == (params, macs, deep)


@pytest.mark.parametrize("task", ["segmentation", "spatial_transform"])
def test_a_further_layer_of_unet_is_a_convolution_per_unit(task):
    """Of 3x3 from the unit's width to itself, with bias, scale and shift."""
    one, two = examined("unet", task, {}), examined("unet", task, {"n_layer": 2})
    # Width and side, from the canvas of 64 down to the coarsest level and up again.
    units = [(64, 64), (128, 32), (256, 16), (512, 8), (256, 16), (128, 32), (64, 64)]
    parameters = sum(9 * width**2 + 3 * width for width, _ in units)
    multiply_adds = sum(9 * width**2 * side**2 for width, side in units)
    assert two == (one[0] + parameters, one[1] + multiply_adds, one[2] + len(units))


@pytest.mark.parametrize(("network", "options", "expected"), CIFAR)
def test_cifar_counts(network, options, expected):
    counts = [examined(network, "cifar100", {**options, "n_layer": n})[:2] for n in (1, 2, 3, 4)]
    assert " ".join(f"{p / 1e6:.3f}/{m / 1e6:.1f}" for p, m in counts) == expected


@pytest.mark.parametrize(("deep", "shortcut", "expected"), SEG)
def test_counts_of_the_segmentation_network_on_imagenet(deep, shortcut, expected):
    params, macs, longest = examined("r_pmg_seg", "imagenet", {"depth": deep, "shortcut": shortcut})
    assert f"{params / 1e6:.3f}/{macs / 1e9:.3f}" == expected
    assert longest == deep


def test_counting_leaves_a_network_as_it_was():
    model = build("pmg", "rotation", width=[8, 4]).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.rand(2, 1, 16, 16)
    output = model.eval()(image)

    counts = count(model.train(), (1, 16, 16))

    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model.eval()(image), output)
    assert counts.parameters == sum(value.numel() for value in model.parameters())


def test_multiply_adds_by_hand():
    class Two(nn.Sequential):
        pass

    model = Two(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 16x16 -> 8x8
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8x8 -> 16x16
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 10),
    )
    conv, up, linear = 3 * 8 * 9 * 64, 8 * 4 * 4 * 64, 4 * 16 * 16 * 10
    assert count(model, (3, 16, 16)).multiply_adds == conv + up + linear
    assert longest_path(layers(model, (3, 16, 16))) == 3


class Places(nn.Module):
    """Linear layers at every place: of an image, and of a sequence of its pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.image, self.sequence = (
            nn.Conv2d(1, 8, 1),
            nn.Linear(8, 16),
            nn.Linear(16, 3),
        )

    def forward(self, x):
        x = self.image(self.conv(x).permute(0, 2, 3, 1))
        return self.sequence(x.flatten(1, 2))


def test_linear_layers_count_at_every_place():
    conv, image, sequence = layers(Places(), (1, 6, 4))
    found = [layer.multiply_adds for layer in (conv, image, sequence)]
    assert found == [8 * 24, 8 * 16 * 24, 16 * 3 * 24]
    assert [layer.channels for layer in (conv, image, sequence)] == [(1, 8), (8, 16), (16, 3)]
    assert (image.side, sequence.side) == (4, 1)


class Queries(nn.Module):
    """Layers that read what was learned, not the image, beside one that reads the image."""

    def __init__(self):
        super().__init__()
        self.learned = nn.Parameter(torch.ones(1, 2))
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * self.second(self.first(self.learned)).view(-1, 1, 1, 1)


def test_layers_that_do_not_read_the_image_are_counted():
    found = {layer.name: layer for layer in layers(Queries(), (1, 4, 4))}
    assert {name: layer.multiply_adds for name, layer in found.items()} == {
        **{"conv": 9 * 16},
        **{"first": 4, "second": 2},
    }
    assert {layer.depth for layer in found.values()} == {1}
    assert all(layer.live for layer in found.values())


def test_a_network_that_does_not_read_the_image_is_refused():
    class Blind(Queries):
        def forward(self, x):
            return self.second(self.first(self.learned)) + torch.zeros_like(x.detach())

    with pytest.raises(UserError, match="does not depend on the image"):
        layers(Blind(), (1, 4, 4))


def test_layers_know_what_they_read():
    found = {layer.name: layer for layer in layers(skeleton("r_pmg", "rotation"), (1, 64, 64))}
    assert found["0.stems.1.conv"].reads == [IMAGE]
    step_2 = found["2.unit.first.convs.0.conv"]  # on grid 3: itself and the coarsest
    assert step_2.reads == ["0.stems.2.conv", "1.unit.second.convs.0.conv"]
    assert found["2.unit.second.convs.0.conv"].adds == ["0.stems.2.conv"]
    output = found["10.second.convs.0.conv"]
    assert output.adds == ["10.shortcuts.0.conv"]
    assert output.depth == 21
    assert [name for name, layer in found.items() if not layer.live] == [
        "7.second.convs.3.conv",
        "8.second.convs.2.conv",
        "9.second.convs.1.conv",
    ]


class Twice(MultigridConv):
    """Another function than that of a multigrid convolution: one more 1x1 convolution per grid."""

    def __init__(self, widths):
        super().__init__(widths, widths)
        self.more = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)

    def forward(self, pyramid):
        return [more(x) for more, x in zip(self.more, super().forward(pyramid), strict=True)]


def test_what_derives_from_a_multigrid_convolution_is_counted_as_it_is():
    def examine(unit):
        model = nn.Sequential(InputPyramid(1, [4, 2]), unit, TakeGrid(0))
        return count(model, (1, 8, 8)), longest_path(layers(accelerate(model), (1, 8, 8)))

    known, known_depth = examine(MultigridConv([4, 2], [4, 2]))
    counts, deep = examine(Twice([4, 2]))
    assert counts.multiply_adds == known.multiply_adds + 4 * 4 * 64 + 2 * 2 * 16
    assert deep == known_depth + 1


class Sums(nn.Module):
    """Sums in every order of their operands, behind ReLUs and not; the longest path is 5 long."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e, self.f = (nn.Conv2d(1, 1, 1) for _ in range(6))

    def forward(self, image):
        x = self.a(image).relu()
        x = x + self.b(x)
        x = self.c(x).relu() + self.d(self.f(x)).relu()
        return 1 + self.e(x) + x


def test_both_operands_of_a_sum_are_before_it():
    found = {layer.name: layer for layer in layers(Sums(), (1, 4, 4))}
    assert {name: layer.depth for name, layer in found.items()} == {
        **{"a": 1, "b": 2, "c": 3},
        **{"f": 3, "d": 4, "e": 5},
    }
    assert found["b"].adds == ["a"]
    assert found["e"].reads == ["c", "d"]
    assert all(layer.live for layer in found.values())


def test_a_shortcut_that_is_not_the_first_to_be_added_to_a_layer_is_live():
    class Branches(Sums):
        def forward(self, image):
            x = self.a(image)
            return self.d(x + self.b(image)) + self.e(x + self.c(image))

    assert all(layer.live for layer in layers(Branches(), (1, 4, 4)))


def test_a_layer_that_is_executed_again_is_one_more_on_the_path():
    conv = nn.Conv2d(1, 1, 1)
    model = nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU(), conv)
    assert longest_path(layers(model, (1, 4, 4))) == 3
    assert count(model, (1, 4, 4)) == (2, 3 * 16)
