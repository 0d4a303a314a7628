"""The faster execution computes what the plain modules define."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F

from mg.networks import build, execution, pyramid, resolve_dataset
from mg.networks.counting import count
from mg.networks.execution import (
    SplitMultigridConv,
    accelerate,
    padded_conv2d,
    repeat_pixels,
    spread,
)
from mg.networks.pyramid import upsample

NETWORKS = [
    ("pmg", "segmentation", {"width": [6, 5, 4, 3]}),
    ("pmg", "translation", {"width": [6, 4], "n_layer": 2}),
    ("r_pmg", "segmentation", {"width": [6, 5, 4]}),
    ("umg", "segmentation", {"width": [8, 12, 16]}),
    ("umg", "segmentation", {"width": [8, 8, 8, 8], "grids": 4}),
    ("unet", "segmentation", {"width": [4, 6, 8]}),
    ("r_sg", "translation", {"width": 6}),
    ("r_mg", "cifar100", {"width": [[8, 4, 2], [8, 4, 2], [8, 6, 4], [8, 6, 4], [8, 6]]}),
    ("r_pmg", "cifar100", {"width": [[8, 4, 2], [8, 4, 2], [8, 6, 4], [8, 6, 4], [8, 6]]}),
]


@pytest.fixture(autouse=True)
def tried_anew():
    """Units are tried in every test, and what one changed does not outlast it."""
    execution.is_the_same_function.cache_clear()
    yield
    execution.is_the_same_function.cache_clear()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_spread_kernels_read_the_grid_as_kernels_read_it_upsampled(kernel):
    random = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=random)
    weight = torch.randn(5, 3, kernel, kernel, dtype=torch.float64, generator=random)
    upsampled = torch.nn.functional.interpolate(x, scale_factor=2.0)
    plain = torch.nn.functional.conv2d(upsampled, weight, padding=kernel // 2)
    split = torch.nn.functional.conv_transpose2d(x, spread(weight), stride=2, padding=kernel // 2)
    assert torch.allclose(split, plain, rtol=0, atol=1e-12)


def test_repeated_pixels_are_upsampled_ones_in_the_same_memory_format():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    repeated = repeat_pixels(x)
    assert torch.equal(repeated, upsample(x))
    assert repeated.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("n_in, n_out", [(1, 10), (8, 16), (86, 86)])
def test_padded_channels_change_nothing(n_in, n_out):
    random = torch.Generator().manual_seed(n_in)
    x = torch.randn(2, n_in, 5, 6, dtype=torch.float64, generator=random, requires_grad=True)
    weight = torch.randn(n_out, n_in, 3, 3, dtype=torch.float64, generator=random)
    weight.requires_grad_()
    results = []
    for convolve in (torch.nn.functional.conv2d, padded_conv2d):
        output = convolve(x, weight, None, (1, 1), (1, 1))
        factors = torch.linspace(-1, 1, output.numel()).view_as(output)
        results.append((output, *torch.autograd.grad((output * factors).sum(), (x, weight))))
    for plain, padded in zip(*results, strict=True):
        assert torch.allclose(padded, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training, compiled", [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("network, dataset, options", NETWORKS)
def test_outputs_and_gradients_are_those_of_the_plain_modules(
    network, dataset, options, training, compiled, monkeypatch
):
    if compiled:  # what is executed then, on a card in 16 bits
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        monkeypatch.setattr(execution, "compiled_in_16_bits", lambda x: True)
    torch.manual_seed(0)
    plain = build(network, dataset, **options).double().train(training)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith("bias"):  # all are drawn as zero
                parameter.normal_()
    fast = accelerate(copy.deepcopy(plain))
    assert list(fast.state_dict()) == list(plain.state_dict())
    spec = resolve_dataset(dataset)
    size = 16 if spec.family == "mnist" else spec.size
    image = torch.randn(4, spec.channels, size, size, dtype=torch.float64)
    results = []
    for model in (plain, fast):
        output = model(image)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        tested = model.eval()(image)  # with the statistics that training left
        results.append({"output": output, "tested": tested, **gradients, **buffers})
    expected, found = results
    biases = {name for name in expected if name.endswith("conv.bias")}
    assert found.keys() == expected.keys() - biases  # that is, before a batch norm
    if training:
        assert all(torch.allclose(expected.pop(n), torch.zeros(()).double()) for n in biases)
    expected = {name: value for name, value in expected.items() if name in found}
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-8, atol=1e-8), name


def bilinear(monkeypatch):
    def upsample(x):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear")

    monkeypatch.setattr(pyramid.resample_and_concatenate, "__defaults__", (None, upsample))


def dilated(monkeypatch):
    made = pyramid.ConvBN.__init__

    def init(self, *arguments, **options):
        made(self, *arguments, **options)
        self.conv.dilation, self.conv.padding = (2, 2), (2, 2)

    monkeypatch.setattr(pyramid.ConvBN, "__init__", init)


def of_other_names(monkeypatch):
    made = pyramid.ConvBN.__init__

    def init(self, *arguments, **options):
        made(self, *arguments, **options)
        self.add_module("norm", self._modules.pop("bn"))

    monkeypatch.setattr(pyramid.ConvBN, "__init__", init)


def sharper(monkeypatch):
    def forward(self, pyramid):
        return [None if x is None else 2 * up(x) for up, x in zip(self, pyramid, strict=True)]

    monkeypatch.setattr(pyramid.UpConv, "forward", forward)


@pytest.mark.parametrize(
    "change, kept",
    [
        (bilinear, {"MultigridConv"}),
        (dilated, {"MultigridConv", "ConvBN"}),
        (of_other_names, {"MultigridConv", "ConvBN"}),
        (sharper, {"UpConv"}),
    ],
)
def test_a_unit_that_is_changed_is_executed_as_it_is_defined(change, kept, monkeypatch):
    """Whoever edits `pyramid.py` trains what it says."""
    change(monkeypatch)
    torch.manual_seed(0)
    plain = build("umg", "translation", width=[4, 6], grids=2).double().train()
    with pytest.warns(RuntimeWarning, match="executed as it is defined") as warned:
        fast = accelerate(copy.deepcopy(plain))
    assert {str(warning.message).split()[0] for warning in warned} == kept
    kinds = {type(module).__name__ for module in fast.modules()}
    assert kinds & {unit.__name__ for unit in execution.FASTER} == kept
    image = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    for training in (True, False):
        found, expected = (model.train(training)(image) for model in (fast, plain))
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("error")
def test_units_as_they_are_are_executed_faster_and_trying_them_draws_nothing():
    model = build("umg", "translation", width=[4, 6], grids=2)
    before = torch.random.get_rng_state()
    accelerate(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not {type(module) for module in model.modules()} & {*execution.FASTER}


def test_blocks_that_are_not_of_these_networks_stay_as_they_are():
    """Without bias, or normalised before the convolution: a bias after a batch norm does count."""
    conv = torch.nn.Conv2d(1, 4, 1, bias=False)
    plain = torch.nn.Sequential(OrderedDict(conv=conv, bn=torch.nn.BatchNorm2d(4)))
    first = OrderedDict(bn=torch.nn.BatchNorm2d(4), conv=torch.nn.Conv2d(4, 4, 1))
    model = torch.nn.Sequential(plain, torch.nn.Sequential(first))
    accelerate(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


NORMS = {
    "group": lambda n: torch.nn.GroupNorm(1, n),
    "instance": torch.nn.InstanceNorm2d,
    "none": lambda n: torch.nn.Identity(),
    "averaging": lambda n: torch.nn.BatchNorm2d(n, momentum=None),
    "batch only": lambda n: torch.nn.BatchNorm2d(n, track_running_stats=False),
    "frozen": torch.nn.BatchNorm2d,
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("network", ["pmg", "umg"])
def test_the_bias_before_another_norm_counts(network, norm):
    torch.manual_seed(0)
    plain = build(network, "segmentation", width=[4, 6]).double()
    for module in list(plain.modules()):
        if hasattr(module, "bn"):
            module.bn = NORMS[norm](module.bn.num_features).double().train(norm != "frozen")
            torch.nn.init.normal_(module.conv.bias)
    fast = accelerate(copy.deepcopy(plain))
    image = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    for _ in range(2):  # a pass leaves the statistics as they should be for the next
        expected, found = plain(image), fast(image)
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)
    for name, value in plain.named_buffers():
        assert torch.allclose(fast.get_buffer(name), value, rtol=1e-8, atol=1e-8), name
    if norm in ("group", "instance", "none"):
        trained = {name for name, p in fast.named_parameters() if p.requires_grad}
        assert trained == {name for name, p in plain.named_parameters() if p.requires_grad}


def test_a_convolution_without_bias_is_executed_as_it_is():
    plain = build("pmg", "segmentation", width=[4, 6])
    for module in plain.modules():
        if hasattr(module, "bn"):
            module.conv.register_parameter("bias", None)
    image = torch.randn(4, 1, 8, 8)
    expected = copy.deepcopy(plain)(image)
    assert torch.allclose(accelerate(plain)(image), expected, rtol=1e-4, atol=1e-5)


def test_it_is_executed_and_the_definition_is_counted():
    model = build("pmg", "segmentation", width=[6, 4])
    before = count(model, (1, 16, 16))
    accelerate(model)
    assert any(type(module) is SplitMultigridConv for module in model.modules())
    assert count(model, (1, 16, 16)) == before
    model(torch.zeros(1, 1, 16, 16))  # counting left the model as it was
    assert not any("forward" in vars(module) for module in model.modules())
