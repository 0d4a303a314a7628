"""A faster execution of the multigrid units: the same function of the same weights.

`pyramid.py` says what a network is. There, a grid's convolution reads its finer neighbour pooled,
itself, and its coarser neighbour upsampled, concatenated. A convolution is linear in its channels,
so the upsampled part can be computed apart, and without upsampling anything:

    conv([pooled, own, upsampled]) = conv([pooled, own]) + transposed conv(coarser)

Nearest-neighbour upsampling repeats each coarse pixel in a 2x2 square. A 3x3 kernel over such
squares meets at most 2x2 different pixels, so 4 multiply-adds do what 9 did: a transposed
convolution of stride 2, whose 4x4 kernel is the 3x3 kernel spread over a 2x2 square. The upsampled
grid is never written, nor concatenated; rounding differs, nothing else. `benchmarks/training.py`
measures what it brings.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mg.networks.pyramid import MultigridConv, Pyramid, resample_and_concatenate


class SplitMultigridConv(MultigridConv):
    """A `MultigridConv` whose coarser neighbours are read at their own resolution."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        pyramid = pyramid[: len(self.convs)]
        result: Pyramid = [None] * len(pyramid)
        for i in self.wanted:
            x = resample_and_concatenate(pyramid[: i + 1], [i])[i]  # without the coarser one
            if i + 1 == len(pyramid):
                result[i] = self.convs[i](x)
                continue
            conv, *others = self.convs[i]
            own, coarser = conv.weight.split([x.shape[1], pyramid[i + 1].shape[1]], 1)
            padding = conv.padding[0]
            x = F.conv2d(x, own, conv.bias, padding=padding)
            x.add_(F.conv_transpose2d(pyramid[i + 1], spread(coarser), stride=2, padding=padding))
            for module in others:
                x = module(x)
            result[i] = x
        return result


def spread(weight: Tensor) -> Tensor:
    """Kernels (n_out, n_in, k, k) over an upsampled grid as transposed kernels over the grid.

    `conv2d(upsample(x), weight, padding=k // 2)` equals `conv_transpose2d(x, spread(weight),
    stride=2, padding=k // 2)`, for odd k.

    Returns:
        (n_in, n_out, k + 1, k + 1)
    """
    reversed_ = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return F.avg_pool2d(reversed_, 2, 1, divisor_override=1)  # sums of 2x2


def accelerate(model: nn.Module) -> nn.Module:
    """Let `model` and everything in it be executed faster; parameters and their names stay."""
    for module in model.modules():
        if type(module) is MultigridConv:
            module.__class__ = SplitMultigridConv
    return model
