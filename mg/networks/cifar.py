"""The classifiers of 32x32 images, CIFAR-10 and CIFAR-100 (paper, section 4.1).

All map (N, 3, 32, 32) to logits (N, classes) through five blocks of `n_layer` units, each block
followed by pyramid pooling, and a linear layer on the one pixel that is left.

               unit                     grids   block 1 (the others are `n_layer` units)
    vgg        convolution              1       L convolutions
    resnet     residual block           1       stem, L units
    mg         multigrid conv           3       input pyramid, L-1 units
    r_mg       residual multigrid unit  3       input pyramid, L units
    pmg        multigrid conv           3       input pyramid, progressive start
    r_pmg      residual multigrid unit  3       input pyramid, progressive start

vgg and resnet are mg and r_mg with one grid: a pyramid of one grid is a feature map. Their options
are in `settings.py`.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import nn

from mg.networks.pyramid import (
    InputPyramid,
    MultigridConv,
    PyramidPool,
    ResidualMultigridUnit,
    TakeGrid,
    Unit,
    block,
    coarse_to_fine,
    progressive_start,
)

SIZE = 32

DROPOUT = [0.0, 0.1, 0.2, 0.3, 0.4]  # per block


def _classifier(
    unit: Unit,
    channels: int,
    classes: int,
    widths: Sequence[Sequence[int]],
    start: Sequence[nn.Module],
    n_layer: int,
    dropout: Sequence[float] | None = None,
) -> nn.Sequential:
    """Input pyramid, `start` (the rest of block 1), four blocks; pooling after each of the five.

    A grid of one pixel has nothing to convolve or to pool: its kernels are 1x1, and pooling
    appends it to its finer neighbour.
    """
    units = [InputPyramid(channels, widths[0]), *start]
    pool = PyramidPool()
    units.append(pool)
    for b, (before, after) in enumerate(pairwise(widths), start=1):
        one_pixel = [SIZE >> (b + i) == 1 for i in range(len(after))]
        settings = {"kernel": [1 if one else 3 for one in one_pixel]}
        if dropout is not None:
            settings["dropout"] = dropout[b]
        units += block(partial(unit, **settings), pool.widths(before), after, n_layer)
        pool = PyramidPool(concat=one_pixel[-1] and len(after) > 1)
        units.append(pool)
    (n_features,) = pool.widths(widths[-1])
    return nn.Sequential(*units, TakeGrid(0), nn.Flatten(), nn.Linear(n_features, classes))


def vgg(channels: int, classes: int, *, widths: list[list[int]], n_layer: int) -> nn.Module:
    """VGG-like."""
    start = block(MultigridConv, widths[0], widths[0], n_layer - 1)
    return _classifier(MultigridConv, channels, classes, widths, start, n_layer)


mg = vgg


def resnet(
    channels: int,
    classes: int,
    *,
    widths: list[list[int]],
    n_layer: int,
    dropout: bool = False,
) -> nn.Module:
    """ResNet with zero-padded shortcuts."""
    rates = DROPOUT if dropout else None
    start = block(ResidualMultigridUnit, widths[0], widths[0], n_layer)
    return _classifier(ResidualMultigridUnit, channels, classes, widths, start, n_layer, rates)


r_mg = resnet


def pmg(channels: int, classes: int, *, widths: list[list[int]], n_layer: int) -> nn.Module:
    """PMG: progressive multigrid."""
    return _progressive(MultigridConv, channels, classes, widths, n_layer)


def r_pmg(channels: int, classes: int, *, widths: list[list[int]], n_layer: int) -> nn.Module:
    """R-PMG: progressive residual multigrid."""
    return _progressive(ResidualMultigridUnit, channels, classes, widths, n_layer)


def _progressive(
    unit: Unit, channels: int, classes: int, widths: list[list[int]], n_layer: int
) -> nn.Sequential:
    start = progressive_start(unit, widths[0], coarse_to_fine(widths[0]), n_layer)
    return _classifier(unit, channels, classes, widths, start, n_layer)
