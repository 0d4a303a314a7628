"""Building by name: options, errors, initialisation, gradients, export."""

import inspect
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mg.errors import UserError
from mg.networks import build, check_canvas, resolve_dataset
from mg.networks.counting import count, layers, longest_path
from mg.networks.pyramid import ResidualMultigridUnit
from mg.networks.registry import NETWORKS, RELEASED_NAMES, check_options, defaults, skeleton

SMALL = {
    "unet": {"width": [6, 8, 10]},
    "umg": {"width": [8, 12, 16]},
    "pmg": {"width": [6, 5, 4]},
    "r_pmg": {"width": [6, 5, 4]},
    "sg": {"width": 5, "grids": 3},
    "r_sg": {"width": 5, "grids": 3},
}
DEEP_PYRAMIDS = [  # with grids that nobody reads
    {"width": [8, 8, 8, 8], "grids": 4},
    {"width": [8, 8, 8, 8, 8], "grids": 4, "n_layer": 2},
    {"width": [64] * 6, "grids": 5},
]
CIFAR = [[6, 5, 4], [6, 5, 4], [6, 5, 4], [8, 6, 5], [8, 11]]
CLASSIFIERS = {
    "vgg": {"width": [4, 5, 6, 7, 8]},
    "resnet": {"width": [4, 5, 6, 7, 8], "dropout": True},
    "mg": {"width": CIFAR, "n_layer": 2},
    "r_mg": {"width": CIFAR},
    "pmg": {"width": CIFAR},
    "r_pmg": {"width": CIFAR},
}


# ------------------------------------------------------------------------ names and options


def test_released_names_mean_the_same_data_sets():
    assert {resolve_dataset(name).name for name in RELEASED_NAMES} == {
        name for name in RELEASED_NAMES.values()
    }
    assert resolve_dataset("mnist-seg") is resolve_dataset("segmentation")


@pytest.mark.parametrize(
    ("network", "dataset", "options", "said"),
    [
        ("vnet", "segmentation", {}, "pmg, r_pmg, r_sg, sg, umg, unet"),
        ("unet", "cifar100", {}, "mg, pmg, r_mg, r_pmg, resnet, vgg"),
        ("unet", "mnist", {}, "segmentation, spatial_transform"),
        ("unet", ["segmentation"], {}, "segmentation, spatial_transform"),
        ("unet", "segmentation", {"widths": [4, 8]}, "n_layer, width, initialisation"),
        ("unet", "segmentation", {"classes": 10}, "no option 'classes'"),
        (
            "mg",
            "cifar10",
            {"classes": 2**16 + 1},
            "from 1 to 65536",
        ),
        ("pmg", "segmentation", {"n_layer": 0}, "n_layer: expected a whole number from 1"),
        ("pmg", "segmentation", {"n_layer": True}, "got True"),
        ("pmg", "segmentation", {"n_layer": 1.0}, "got 1.0"),
        ("pmg", "segmentation", {"blocks": -1}, "blocks: expected a whole number from 0"),
        ("pmg", "segmentation", {"width": "16,8"}, "width: expected a list of 2 or more"),
        ("pmg", "segmentation", {"width": [16]}, "width: expected a list of 2 or more"),
        ("pmg", "segmentation", {"width": [16, -8]}, "got [16, -8]"),
        ("pmg", "segmentation", {"width": [16, 8], "grids": 3}, "grids is 3"),
        ("pmg", "segmentation", {"grids": 5}, "one width per grid"),
        ("umg", "segmentation", {"width": [6, 8, 8]}, "cannot be halved"),
        ("sg", "segmentation", {"width": 0}, "width: expected a whole number from 1"),
        ("sg", "segmentation", {"width": 2.5}, "width: expected"),
        ("sg", "segmentation", {"width": 10**5 + 1}, "from 1 to 100000,"),
        ("pmg", "segmentation", {"n_layer": 1001}, "from 1 to 1000,"),
        ("pmg", "segmentation", {"blocks": 1001}, "from 0 to 1000,"),
        ("sg", "segmentation", {"grids": 1001}, "grids: expected a whole number from 2 to 1000,"),
        ("pmg", "segmentation", {"grids": 1}, "grids: expected a whole number from 2"),
        ("sg", "segmentation", {"width": 8, "grids": 1}, "grids: expected a whole number from 2"),
        ("pmg", "segmentation", {"initialisation": "best"}, "'unit', 'released'"),
        ("resnet", "cifar10", {"dropout": 1}, "expected one of False, True"),
        ("vgg", "cifar10", {"width": [4, 4]}, "list of 5 whole numbers"),
        ("mg", "cifar10", {"width": "narrow"}, "'published', 'released'"),
        ("mg", "cifar10", {"width": [[4, 4, 4]] * 5}, "of 3, 3, 3, 3, 2 widths"),
        ("mg", "cifar10", {"width": [[4, 4, "4"]] * 5}, "width, block 1: expected"),
        ("r_mg", "imagenet", {"depth": 50}, "expected one of 18, 34"),
        ("r_pmg_seg", "imagenet", {"shortcut": "C"}, "'A', 'B'"),
        ("pmg", "rotation", {"network": "r_pmg"}, "has no option 'network'; there are n_layer"),
        ("pmg", "rotation", {"dataset": "scaling"}, "has no option 'dataset'"),
    ],
)
def test_mistakes_are_told_with_what_there_is(network, dataset, options, said):
    with pytest.raises(UserError) as error:
        build(network, dataset, **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


SETTINGS = {entry.settings for networks in NETWORKS.values() for entry in networks.values()}


@pytest.mark.parametrize(
    ("options_of", "option"),
    [
        (function, option)
        for function in sorted(SETTINGS, key=lambda function: function.__name__)
        for option in inspect.signature(function).parameters
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_option_is_checked_by_the_function_that_takes_it(options_of, option):
    for value in (-1, 1.5, "many", {}):
        with pytest.raises(UserError, match=f"^option {option}: expected "):
            options_of(**{option: value})


def test_none_means_the_default():
    nothing = dict.fromkeys(defaults("pmg", "rotation"))
    assert count(skeleton("pmg", "rotation", **nothing), (1, 64, 64)) == count(
        skeleton("pmg", "rotation"), (1, 64, 64)
    )


def test_photographs_may_have_as_many_classes_as_their_files_can_tell_apart():
    assert check_options("r_mg", "imagenet", classes=2**16).classes == np.iinfo(np.uint16).max + 1


@pytest.mark.parametrize("network", ["sg", "r_sg"])
def test_a_single_grid_may_be_as_wide_as_those_of_a_pyramid(network):
    model = skeleton(network, "segmentation", width=1024)
    assert model[0].stems[0].conv.out_channels == 1024


@pytest.mark.parametrize("width", [[8, 4], [6000, 6000]])
def test_a_single_grid_has_as_many_parameters_as_its_pyramid(width):
    single, pyramid = (
        count(skeleton(network, "segmentation", width=width), (1, 64, 64)).parameters
        for network in ("sg", "pmg")
    )
    assert single == pytest.approx(pyramid, rel=0.1)


@pytest.mark.parametrize(("network", "options"), SMALL.items())
@pytest.mark.parametrize(("dataset", "classes"), [("segmentation", 10), ("translation", 1)])
def test_mnist_networks_map_images_to_one_plane_per_class(network, options, dataset, classes):
    model = build(network, dataset, **options)
    assert model(torch.rand(2, 1, 16, 24)).shape == (2, classes, 16, 24)


@pytest.mark.parametrize(("network", "options"), CLASSIFIERS.items())
def test_classifiers_map_images_to_one_number_per_class(network, options):
    model = build(network, "cifar10", classes=7, **options)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    n_layer=st.integers(1, 3),
    blocks=st.integers(0, 3),
    residual=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_depth_of_progressive_networks_and_their_controls(widths, n_layer, blocks, residual):
    options = {"n_layer": n_layer, "blocks": blocks}
    units = (2 * len(widths) - 1 + blocks) * n_layer
    for name in ("pmg", "sg"):
        width = widths if name == "pmg" else 3
        network = "r_" * residual + name
        model = skeleton(network, "scaling", width=width, grids=len(widths), **options)
        size = 2 ** (len(widths) - 1)
        assert longest_path(layers(model, (1, size, size))) == 1 + units * (1 + residual)


@pytest.mark.parametrize("network", ["sg", "r_sg"])
@pytest.mark.parametrize("options", [{}, {"n_layer": 2}, {"width": [16, 8, 8], "blocks": 1}])
def test_controls_have_the_parameters_of_what_they_control(network, options):
    def parameters(name, **options):
        return count(skeleton(name, "segmentation", **options), (1, 64, 64)).parameters

    model = skeleton(network, "segmentation", **options)
    width = model[0].stems[0].conv.out_channels
    goal = parameters(network.replace("sg", "pmg"), **options)
    grids = len(options.get("width", range(4)))
    rest = {k: v for k, v in options.items() if k != "width"}

    def off(w):
        return abs(parameters(network, width=w, grids=grids, **rest) - goal)

    assert off(width) == min(map(off, range(width - 3, width + 4)))
    assert off(width) < 0.05 * goal


def test_canvas_must_be_divisible():
    check_canvas("unet", "rotation", 64)
    check_canvas("sg", "rotation", 63)
    check_canvas("pmg", "rotation", 36, width=[4, 4, 4])
    with pytest.raises(UserError, match="multiple of 8"):
        check_canvas("unet", "rotation", 36)
    with pytest.raises(UserError, match="multiple of 8"):
        check_canvas("umg", "rotation", 36)
    with pytest.raises(UserError, match="32 x 32"):
        check_canvas("mg", "cifar10", 36)


@pytest.mark.parametrize("network", SMALL)
def test_the_smallest_canvas_that_passes_the_check_works(network):
    size = check_options(network, "rotation", **SMALL[network]).settings.size_multiple
    check_canvas(network, "rotation", size, **SMALL[network])
    model = build(network, "rotation", **SMALL[network]).eval()
    assert model(torch.rand(1, 1, size, size)).shape == (1, 1, size, size)


# ------------------------------------------------------------------------ weights


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build("r_pmg", "rotation", width=[4, 3]).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.stems.0.conv.weight"], other["0.stems.0.conv.weight"])


@pytest.mark.parametrize("scheme", ["unit", "released"])
def test_nothing_is_left_uninitialised(scheme):
    for network, dataset, options in (
        ("umg", "rotation", SMALL["umg"]),
        ("r_mg", "cifar10", CLASSIFIERS["r_mg"]),
    ):
        model = build(network, dataset, initialisation=scheme, **options)
        for name, tensor in model.state_dict().items():
            assert tensor.isfinite().all(), name
            assert not name.endswith("num_batches_tracked") or tensor == 0, name


class Scale(nn.Module):
    """A block of the kind that one adds: a bare parameter, and a buffer of any type."""

    def __init__(self, kind=torch.float32):
        super().__init__()
        self.gain = nn.Parameter(torch.empty(4, 1, 1))
        self.register_buffer("constant", torch.ones(4, 1, 1).to(kind))

    def forward(self, x):
        return x * self.gain * self.constant


class DrawnScale(Scale):
    def reset_parameters(self):
        nn.init.uniform_(self.gain, 2, 3)
        self.constant.fill_(1)


class GainedConv(nn.Conv2d):
    """A known layer with a parameter that it does not have elsewhere."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gain = nn.Parameter(torch.empty(1))


@pytest.mark.parametrize("scheme", ["unit", "released"])
def test_what_the_initialisation_does_not_know_draws_itself(add_network, scheme):
    def builder(channels, classes):
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, bias=False),
            nn.GroupNorm(2, 4),
            *(DrawnScale(kind) for kind in (torch.float16, torch.complex64, torch.int64)),
            DrawnScale(torch.bool),
            nn.ConvTranspose2d(4, 4, 2, bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.LSTM(4, 4),
        )

    def drawn():
        torch.manual_seed(1)
        return build("new", "rotation", initialisation=scheme).state_dict()

    add_network(builder)
    first, again = drawn(), drawn()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["1.weight"].eq(1).all() and first["1.bias"].eq(0).all()
    for scale in "2345":
        gain = first[f"{scale}.gain"]
        assert 2 <= gain.min() and gain.max() < 3 and first[f"{scale}.constant"].eq(1).all()


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (lambda: Scale(), "1.gain, 1.constant"),
        (lambda: nn.Sequential(DrawnScale(), Scale(torch.int32)), "1.1.gain, 1.1.constant"),
        (lambda: Scale(torch.bool), "1.gain, 1.constant"),
        (lambda: GainedConv(4, 4, 3), "1.gain"),
        (
            lambda: nn.Sequential(*(Scale() for _ in range(4))),
            "1.0.gain, 1.1.gain, 1.2.gain, 1.3.gain, 1.0.constant and 3 more",
        ),
    ],
)
def test_what_nothing_sets_is_named(add_network, block, names):
    add_network(lambda channels, classes: nn.Sequential(nn.Conv2d(channels, 4, 3), block()))
    with pytest.raises(UserError) as error:
        build("new", "rotation")
    assert f"initial values of {names} in" in str(error.value)
    assert "reset_parameters" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("scheme", ["unit", "released"])
def test_nothing_is_drawn_twice(add_network, monkeypatch, scheme):
    drawn = []

    class Pair(nn.Sequential):
        """Draws what is in it, too."""

        def __init__(self):
            super().__init__(DrawnScale())
            self.gain = nn.Parameter(torch.empty(1))

        def reset_parameters(self):
            nn.init.ones_(self.gain)
            self[0].reset_parameters()

    def note(tensor, *bounds):
        drawn.append(id(tensor))
        return uniform(tensor, *bounds)

    uniform = nn.init.uniform_
    monkeypatch.setattr(nn.init, "uniform_", note)
    add_network(lambda channels, classes: nn.Sequential(nn.BatchNorm2d(4), Pair(), DrawnScale()))
    build("new", "rotation", initialisation=scheme)
    assert len(drawn) == len(set(drawn)) == 2 + (scheme == "released")


def test_initialisation_follows_its_description():
    torch.manual_seed(0)
    unit = build("unet", "segmentation", initialisation="unit")
    released = build("unet", "segmentation", initialisation="released")
    residual = build("r_pmg", "segmentation", initialisation="released")
    for model in (unit, released):
        conv = model.down[2][0].convs[0].conv  # 128 -> 256, 3x3
        assert conv.weight.std().item() == pytest.approx(sqrt(2 / (9 * 256)), rel=0.02)
        assert not conv.bias.any()
        assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    norms = [m for m in released.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([m.weight for m in norms])
    assert scales.mean().item() == pytest.approx(0.5, abs=0.03)
    assert 0 <= scales.min() < 0.01 and 0.99 < scales.max() <= 1
    assert not any(m.bias.any() for m in norms)
    up = released.up[0][0].conv  # 512 -> 256, 2x2
    bound = 1 / sqrt(4 * 512)
    assert 0.99 * bound < up.weight.abs().max() <= bound and up.bias.any()
    assert unit.up[0][0].conv.weight.std().item() == pytest.approx(sqrt(2 / (4 * 256)), rel=0.02)
    for model, eps in ((unit, 1e-3), (residual, 1e-5)):
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm.eps == eps and norm.weight.eq(1).all() and norm.bias.eq(0).all()
    for network, zero in (("vgg", False), ("resnet", True)):
        *_, classifier = build(network, "cifar10", width=[4, 5, 6, 7, 8]).modules()
        assert classifier.bias.eq(0).all() == zero and classifier.weight.any()


def test_dropout_is_active_in_training_only():
    model = build("resnet", "cifar10", dropout=True, width=[4, 8, 8, 8, 8])
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.1, 0.2, 0.3, 0.4]
    image = torch.rand(2, 3, 32, 32)
    model.eval()
    assert torch.equal(model(image), model(image))
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)
    assert not torch.equal(model(image), model(image))
    units = [
        m.dropout for m in model.modules() if isinstance(m, ResidualMultigridUnit) and m.dropout
    ]
    calls = []
    for dropout in units:
        dropout.register_forward_hook(lambda module, *_: calls.append(module))
    model(image)
    assert units and calls == [dropout for dropout in units for _ in range(2)]


@pytest.mark.parametrize(
    ("network", "dataset", "options"),
    [(name, "segmentation", options) for name, options in SMALL.items()]
    + [("umg", "segmentation", options) for options in DEEP_PYRAMIDS]
    + [(name, "cifar10", options) for name, options in CLASSIFIERS.items()],
)
def test_gradients_reach_every_live_parameter_and_no_other(network, dataset, options):
    """Biases before a batch norm do nothing in training: here the statistics are fixed."""
    torch.manual_seed(3)
    model = build(network, dataset, **options).eval()
    spec = resolve_dataset(dataset)
    size = 32
    live = {}
    for layer in layers(model, (spec.channels, size, size)):
        live[layer.name] = layer.live
        live[layer.name.removesuffix("conv") + "bn"] = layer.live
    model(torch.rand(4, spec.channels, size, size)).square().sum().backward()
    for name, parameter in model.named_parameters():
        alive = live[name.rpartition(".")[0]]
        assert (parameter.grad is not None and parameter.grad.any().item()) == alive, name
        assert parameter.requires_grad == alive, name


def test_the_papers_networks_and_their_controls_are_there():
    assert NETWORKS["mnist"].keys() >= {"unet", "umg", "pmg", "r_pmg", "sg", "r_sg"}
    assert NETWORKS["cifar"].keys() >= {"vgg", "resnet", "mg", "r_mg", "pmg", "r_pmg"}
    assert NETWORKS["imagenet"].keys() >= {"r_mg", "r_pmg_seg"}


def test_every_network_trains_with_all_its_parameters_present():
    """What is left out has parameters and statistics in the state dict all the same."""
    names = build("pmg", "rotation", width=[4, 3, 2]).state_dict().keys()
    assert {"6.convs.2.conv.weight", "6.convs.2.bn.running_mean", "7.convs.1.conv.bias"} <= names


# ------------------------------------------------------------------------ export


@pytest.mark.parametrize(
    ("network", "dataset", "shape"),
    [
        ("umg", "segmentation", (2, 1, 16, 16)),
        ("r_pmg", "segmentation", (2, 1, 16, 16)),
        ("r_mg", "cifar10", (2, 3, 32, 32)),
    ],
)
def test_export(network, dataset, shape):
    options = (SMALL if dataset == "segmentation" else CLASSIFIERS)[network]
    model = build(network, dataset, **options).eval()
    image = torch.rand(shape)
    exported = torch.export.export(model, (image,))
    torch.testing.assert_close(exported.module()(image), model(image))


@pytest.mark.parametrize("network", ["pmg", "unet"])
def test_compile_forward_and_backward(network):
    """The graph is captured whole, with its gradients; no compiler is needed for that."""
    model = build(network, "segmentation", **SMALL[network]).eval()
    image = torch.rand(2, 1, 16, 16)
    expected = model(image)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    output = compiled(image)
    output.square().sum().backward()

    torch.testing.assert_close(output, expected)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
