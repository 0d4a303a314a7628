"""A faster execution of the multigrid units: the same function of the same weights.

`pyramid.py` says what a network is. Some things are done differently here; outputs differ by
rounding only. `benchmarks/training.py` measures what they bring.

*Neighbours at their resolution.* There, a grid's convolution reads its finer neighbour pooled,
itself, and its coarser neighbour upsampled, concatenated. A convolution is linear in its channels,
so the upsampled part can be computed apart, and without upsampling anything:

    conv([pooled, own, upsampled]) = conv([pooled, own]) + transposed conv(coarser)

Nearest-neighbour upsampling repeats each coarse pixel in a 2x2 square. A 3x3 kernel over such
squares meets at most 2x2 different pixels, so 4 multiply-adds do what 9 did: a transposed
convolution of stride 2, whose 4x4 kernel is the 3x3 kernel spread over a 2x2 square. The upsampled
grid is never written, nor concatenated.

*No biases in training.* Batch norm takes away again what a bias before it adds to all pixels of a
channel, so a training's outputs do not depend on it, and its gradient is zero. Adding it and
finding that zero are two passes over the largest tensors. Only the running mean, which evaluation
uses, knows of it. Such biases stay as they were drawn, where weight decay would shrink them. (Where
another norm, or none, has been put into a unit, its bias counts.)

*Compiled* (torch.compile), a step costs other things. A compiler writes upsampled pixels straight
into the concatenation, so neighbours are upsampled again, but by repeating pixels, of which the
gradient is a sum; that of PyTorch's `interpolate` is scattered. And on a card, where matrices of
16-bit numbers want rows of 8, channels are padded to a multiple of that with zeros, which the
compiler writes together with what made the tensor.

A unit that is changed in `pyramid.py`, so that it computes something else than its faster execution
here, is executed as it is defined there, and a warning says so.
"""

import copy
import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mg.errors import first_line
from mg.networks.pyramid import (
    ConvBN,
    MultigridConv,
    Pyramid,
    UpConv,
    resample_and_concatenate,
)


class SplitMultigridConv(MultigridConv):
    """A `MultigridConv` whose coarser neighbours are read at their own resolution."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        pyramid = pyramid[: len(self.convs)]
        return self.repeated(pyramid) if torch.compiler.is_compiling() else self.apart(pyramid)

    def apart(self, pyramid: Pyramid) -> Pyramid:
        """Coarser neighbours at their resolution."""
        result: Pyramid = [None] * len(pyramid)
        for i in self.wanted:
            x = resample_and_concatenate(pyramid[: i + 1], [i])[i]  # without the coarser one
            unit = self.convs[i]
            if i + 1 == len(pyramid):
                result[i] = unit(x)
                continue
            own, coarser = unit.conv.weight.split([x.shape[1], pyramid[i + 1].shape[1]], 1)
            padding = unit.conv.padding[0]
            bias = None if takes_bias_away(unit) else unit.conv.bias
            x = F.conv2d(x, own, bias, padding=padding)
            x.add_(F.conv_transpose2d(pyramid[i + 1], spread(coarser), stride=2, padding=padding))
            result[i] = _normalise(unit, x)
        return result

    def repeated(self, pyramid: Pyramid) -> Pyramid:
        """Coarser neighbours upsampled and concatenated, for a compiler to fuse."""
        joined = resample_and_concatenate(pyramid, self.wanted, repeat_pixels)
        return [None if x is None else conv(x) for conv, x in zip(self.convs, joined, strict=True)]


class UnbiasedConvBN(ConvBN):
    """A `ConvBN` that adds its bias where it matters: in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        if not takes_bias_away(self):
            return super().forward(x)
        conv = self.conv
        convolve = padded_conv2d if compiled_in_16_bits(x) else F.conv2d
        return _normalise(self, convolve(x, conv.weight, None, conv.stride, conv.padding))


class UnbiasedUpConv(UpConv):
    """An `UpConv` that adds its biases where they matter: in evaluation."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return [
            None if x is None else self.double(up, x) for up, x in zip(self, pyramid, strict=True)
        ]

    @staticmethod
    def double(up: nn.Sequential, x: Tensor) -> Tensor:
        if not takes_bias_away(up):
            return up(x)
        return _normalise(up, F.conv_transpose2d(x, up.conv.weight, None, up.conv.stride))


def takes_bias_away(unit: nn.Sequential) -> bool:
    """Whether the norm of a unit, as it is now, takes away what the convolution's bias adds."""
    return unit.bn.training and _may_go_without_bias(unit)


def _may_go_without_bias(unit: nn.Sequential) -> bool:
    norm = unit.bn
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.track_running_stats
        and norm.momentum is not None
        and unit.conv.bias is not None
    )


def _normalise(unit: nn.Sequential, x: Tensor) -> Tensor:
    """What follows the convolution in a unit: batch norm and perhaps ReLU."""
    if takes_bias_away(unit):
        momentum = unit.bn.momentum  # of the mean; what is there already keeps 1 - momentum
        with torch.no_grad():
            unit.bn.running_mean.add_(unit.conv.bias, alpha=momentum / (1 - momentum))
    x = unit.bn(x)
    return unit.relu(x) if hasattr(unit, "relu") else x


def repeat_pixels(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: (N, C, H, W) -> (N, C, 2 H, 2 W), channels-last.

    What it is concatenated with is channels-last too. With one part that is not, the whole would
    not be either, and a convolution's backward pass wants it so: a copy.
    """
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1)[:, :, None, :, None, :]
    return x.expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def padded_conv2d(x: Tensor, weight: Tensor, bias: None, *geometry) -> Tensor:
    """`F.conv2d` without bias, computed with numbers of channels that are multiples of 8."""
    n_out, n_in = weight.shape[:2]
    more_out, more_in = -n_out % 8, -n_in % 8
    if more_in:
        x = F.pad(x, (0, 0, 0, 0, 0, more_in))
        x = x.contiguous(memory_format=torch.channels_last)  # which one channel, padded, is not
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
    x = F.conv2d(x, weight, bias, *geometry)
    return _FirstChannels.apply(x, n_out) if more_out else x


class _FirstChannels(torch.autograd.Function):
    """`x[:, :n]`, with a gradient that stays channels-last: a compiler writes it in one pass."""

    @staticmethod
    def forward(context, x: Tensor, n: int) -> Tensor:
        context.more = x.shape[1] - n
        return x[:, :n]

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return F.pad(gradient, (0, 0, 0, 0, 0, context.more)), None


def compiled_in_16_bits(x: Tensor) -> bool:
    """Whether what computes with `x` is being compiled for a card's matrices of 16-bit numbers."""
    return torch.compiler.is_compiling() and x.is_cuda and torch.is_autocast_enabled("cuda")


def spread(weight: Tensor) -> Tensor:
    """Kernels (n_out, n_in, k, k) over an upsampled grid as transposed kernels over the grid.

    `conv2d(upsample(x), weight, padding=k // 2)` equals `conv_transpose2d(x, spread(weight),
    stride=2, padding=k // 2)`, for odd k.

    Returns:
        (n_in, n_out, k + 1, k + 1)
    """
    reversed_ = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return F.avg_pool2d(reversed_, 2, 1, divisor_override=1)  # sums of 2x2


FASTER = {MultigridConv: SplitMultigridConv, ConvBN: UnbiasedConvBN, UpConv: UnbiasedUpConv}


def accelerate(model: nn.Module) -> nn.Module:
    """Let `model` and everything in it be executed faster; parameters and their names stay.

    Biases that training leaves out require no gradient any more. In training, a forward pass must
    be followed by its backward pass before the next (PyTorch says so if it is not).
    """
    for module in model.modules():
        if type(module) in FASTER and is_the_same_function(type(module)):
            module.__class__ = FASTER[type(module)]
        units = {UnbiasedConvBN: [module], UnbiasedUpConv: module}.get(type(module), ())
        for unit in units:
            if _may_go_without_bias(unit):
                unit.conv.bias.requires_grad_(False)
    return model


# A small unit of each kind, the widths that it is given, and the faster ways to execute it.
_TRIALS = {
    MultigridConv: (lambda: MultigridConv([2, 3, 1], [2, 1, 2]), [2, 3, 1], ("apart", "repeated")),
    ConvBN: (lambda: ConvBN(2, 3), [2], ("forward",)),
    UpConv: (lambda: UpConv([2, 3], [3, 1]), [2, 3], ("forward",)),
}


@functools.cache
def is_the_same_function(plain: type[nn.Module]) -> bool:
    """Whether a unit, as `pyramid.py` defines it now, computes what its faster execution does.

    It is tried on a small one, in training and in evaluation. A warning says if it does not.
    """
    make, widths, ways = _TRIALS[plain]
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=random, device="cpu") + 0.5

    pyramid = [drawn(2, width, 8 >> i, 8 >> i) for i, width in enumerate(widths)]
    x = pyramid[0] if plain is ConvBN else pyramid
    try:
        with torch.random.fork_rng(devices=[]):  # trainings draw from this generator
            unit = make().to("cpu", torch.float64)
        for value in unit.state_dict().values():
            value.copy_(drawn(*value.shape))
        for training in (True, False):
            expected = _outputs_and_state(unit.train(training), "forward", x)
            unit.__class__ = FASTER[plain]
            found = [_outputs_and_state(unit, way, x) for way in ways]
            unit.__class__ = plain
            if not all(
                torch.allclose(a, b, rtol=1e-9, atol=1e-9)
                for values in found
                for a, b in zip(expected, values, strict=True)
            ):
                raise ValueError("other values")
    except Exception as error:  # a definition can be changed in every way there is
        warnings.warn(
            f"{plain.__name__} does not compute what its faster execution does, "
            f"{FASTER[plain].__name__} in {__name__} ({first_line(error)}); it is executed as it "
            "is defined, more slowly",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


@torch.no_grad()
def _outputs_and_state(unit: nn.Module, way: str, x: Tensor | Pyramid) -> list[Tensor]:
    """What a copy of a unit gives, executed in a way, and what is left in it."""
    unit = copy.deepcopy(unit)
    outputs = getattr(unit, way)(x)
    return [*(outputs if isinstance(outputs, list) else [outputs]), *unit.state_dict().values()]
