"""The units on tiny tensors, against formulations that are slow and obvious."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mg.networks.pyramid import (
    ConvBN,
    InputPyramid,
    MultigridConv,
    OnCoarsest,
    PyramidPool,
    ResidualMultigridUnit,
    TakeGrid,
    coarse_to_fine,
    concatenated,
    leave_out_unread,
    progressive_start,
    resample_and_concatenate,
)


def pyramid_of(widths, size=8, batch=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, size >> i, size >> i, generator=random)
        for i, width in enumerate(widths)
    ]


def pooled(x):
    n, c, height, width = x.shape
    out = torch.empty(n, c, -(-height // 2), -(-width // 2))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((2, 3))
    return out


def upsampled(x):
    return torch.stack([x, x], 3).flatten(2, 3).unsqueeze(4).expand(-1, -1, -1, -1, 2).flatten(3)


def joined(pyramid, i):
    parts = [pyramid[i]]
    if i > 0:
        parts = [pooled(pyramid[i - 1]), *parts]
    if i + 1 < len(pyramid):
        parts = [*parts, upsampled(pyramid[i + 1])]
    return torch.cat(parts, 1)


def convolved(x, layer: ConvBN, relu=True):
    """Convolution and batch norm in evaluation mode, written out."""
    weight, k = layer.conv.weight, layer.conv.kernel_size[0]
    x = nn.functional.pad(x, [k // 2] * 4)
    windows = x.unfold(2, k, 1).unfold(3, k, 1)  # N, C, H, W, k, k
    out = torch.einsum("ncyxij,ocij->noyx", windows, weight)
    norm = layer.bn

    def each(values):
        return values.view(1, -1, 1, 1)

    out = (out + each(layer.conv.bias) - each(norm.running_mean)) / each(
        (norm.running_var + norm.eps).sqrt()
    )
    out = out * each(norm.weight) + each(norm.bias)
    return out.clamp(min=0) if relu else out


def randomised(module, seed=1):
    """`module` in evaluation mode with every parameter and statistic drawn at random."""
    torch.manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.9) if tensor.ndim == 1 else tensor.normal_(0, 0.3)
    return module.eval()


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_resample_and_concatenate(widths):
    pyramid = pyramid_of(widths, size=16)
    result = resample_and_concatenate(pyramid)
    assert [x.shape[1] for x in result] == concatenated(widths)
    assert_same(result, [joined(pyramid, i) for i in range(len(widths))])


def test_only_wanted_grids_are_made():
    result = resample_and_concatenate(pyramid_of([2, 2, 2]), [1])
    assert [x is None for x in result] == [True, False, True]


@torch.no_grad()
def test_multigrid_convolution():
    unit = randomised(MultigridConv([3, 2, 4], [5, 4, 3], [3, 3, 1]))
    pyramid = pyramid_of([3, 2, 4])
    expected = [convolved(joined(pyramid, i), unit.convs[i]) for i in range(3)]
    assert_same(unit(pyramid), expected)


@torch.no_grad()
def test_dropped_grid_is_not_even_upsampled():
    unit = randomised(MultigridConv([3, 2, 4], [5, 4], relu=False))
    pyramid = pyramid_of([3, 2, 4])
    expected = [convolved(joined(pyramid[:2], i), unit.convs[i], relu=False) for i in range(2)]
    assert_same(unit(pyramid), expected)
    pyramid[2] = None
    assert_same(unit(pyramid), expected)


@pytest.mark.parametrize("shortcut", ["A", "B"])
@torch.no_grad()
def test_residual_unit_and_its_shortcuts(shortcut):
    """Grid 1 grows, grid 2 keeps its width, grid 3 shrinks, grid 4 is dropped."""
    n_in, n_out = [2, 3, 4, 2], [5, 3, 2]
    unit = randomised(ResidualMultigridUnit(n_in, n_out, shortcut=shortcut))
    pyramid = pyramid_of(n_in, size=16)

    first = [convolved(joined(pyramid[:3], i), unit.first.convs[i]) for i in range(3)]
    sums = [convolved(joined(first, i), unit.second.convs[i], relu=False) for i in range(3)]
    if shortcut == "A":
        sums[0][:, :2] += pyramid[0]
    else:
        sums[0] += convolved(pyramid[0], unit.shortcuts[0], relu=False)
    sums[1] += pyramid[1]
    sums[2] += convolved(pyramid[2], unit.shortcuts[2], relu=False)

    assert_same(unit(pyramid), [x.clamp(min=0) for x in sums])


@torch.no_grad()
def test_on_one_grid_units_are_a_convolution_and_a_residual_block():
    (x,) = pyramid_of([3])
    conv = randomised(MultigridConv([3], [4]))
    assert_same(conv([x]), [conv.convs[0](x)])
    block = randomised(ResidualMultigridUnit([3], [3], relu=False))
    assert_same(block([x]), [block.second.convs[0](block.first.convs[0](x)) + x])


@torch.no_grad()
def test_units_leave_their_input_as_it_is():
    unit = randomised(ResidualMultigridUnit([2, 2], [2, 2]))
    pyramid = pyramid_of([2, 2])
    unit(pyramid)
    assert_same(pyramid, pyramid_of([2, 2]))


@torch.no_grad()
def test_input_pyramid_averages_the_image():
    unit = randomised(InputPyramid(3, [4, 2, 5]))
    image = torch.rand(2, 3, 16, 16)
    for i, (grid, stem) in enumerate(zip(unit(image), unit.stems, strict=True)):
        window = 2**i
        blocks = image.unfold(2, window, window).unfold(3, window, window)
        torch.testing.assert_close(grid, convolved(blocks.mean((4, 5)), stem))


def test_progressive_start_admits_finer_grids_step_by_step():
    units = progressive_start(MultigridConv, [8, 4, 2], coarse_to_fine([8, 4, 2]), n_layer=2)
    assert [unit.waiting for unit in units] == [2, 2, 1, 1, 0, 0]
    pyramid = pyramid_of([8, 4, 2])
    for unit in units:
        before, pyramid = pyramid, unit(pyramid)
        for old, new in zip(before[: unit.waiting], pyramid[: unit.waiting], strict=True):
            assert new is old
    assert [x.shape for x in pyramid] == [x.shape for x in pyramid_of([8, 4, 2])]


@pytest.mark.parametrize(
    ("concat", "sizes", "widths"), [(False, [4, 2, 1], [3, 2, 4]), (True, [4, 2], [3, 2 + 4])]
)
def test_pyramid_pooling(concat, sizes, widths):
    unit = PyramidPool(concat)
    pyramid = pyramid_of([3, 2, 4])
    result = unit(pyramid)
    assert [x.shape[1:] for x in result] == [(w, s, s) for w, s in zip(widths, sizes, strict=True)]
    assert unit.widths([3, 2, 4]) == widths
    torch.testing.assert_close(result[0], pooled(pyramid[0]))
    if concat:
        torch.testing.assert_close(result[1], torch.cat([pooled(pyramid[1]), pyramid[2]], 1))


def test_odd_sizes_are_pooled_with_their_border():
    (x,) = pyramid_of([2], size=7)
    torch.testing.assert_close(PyramidPool()([x])[0], pooled(x))


@torch.no_grad()
def test_what_nobody_reads_is_left_out_without_changing_the_result():
    units = [
        *progressive_start(MultigridConv, [4, 3, 2], coarse_to_fine([4, 3, 2]), 1),
        ResidualMultigridUnit([4, 3, 2], [4, 3, 2]),
        ResidualMultigridUnit([4, 3, 2], [4, 3]),
        MultigridConv([4, 3], [1], relu=False),
        TakeGrid(0),
    ]
    network = randomised(nn.Sequential(*units))
    pyramid = pyramid_of([4, 3, 2])
    expected = network(pyramid)
    executed = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, x, y, name=name: executed.append(name))

    leave_out_unread(units)

    assert torch.equal(network(pyramid), expected)
    everything = {name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    assert everything - set(executed) == {"3.second.convs.2.conv", "4.second.convs.1.conv"}
    assert isinstance(units[0], OnCoarsest)
