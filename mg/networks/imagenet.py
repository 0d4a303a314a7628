"""The classifiers of 224x224 images, ImageNet (paper, section 4.1).

Both map (N, 3, 224, 224) to logits (N, classes). Every grid of the input pyramid begins with a
7x7 convolution and a max-pool, which divide its size by four. Their options are in `settings.py`.

    r_mg        R-MG-34 (18)   grids shrink from block to block, as in a ResNet
                grid 1   56  64   28 128   14 256   7 512
                grid 2   28  32   14  64    7 128
                grid 3   14  16    7  32
    r_pmg_seg   PR-MG-30-SEG (52)   no pooling: the finest grid keeps its size to the end
                grid 1   56  64   56  64   56  64   56  64
                grid 2   28  64   28  64   28  64   28 128
                grid 3   14  64   14  64   14 128   14 256
                grid 4    7  64    7 128    7 256    7 512
"""

from functools import partial
from itertools import pairwise

from torch import nn

from mg.networks.pyramid import (
    ConvBN,
    InputPyramid,
    PyramidPool,
    ResidualMultigridUnit,
    TakeGrid,
    block,
    leave_out_unread,
    progressive_start,
)


def _stem(n_in: int, n_out: int) -> nn.Sequential:
    """(N, n_in, H, W) -> (N, n_out, H/4, W/4)."""
    return nn.Sequential(ConvBN(n_in, n_out, 7, stride=2), nn.MaxPool2d(3, 2, padding=1))


def _classify(grid: int, n_features: int, classes: int) -> list[nn.Module]:
    return [
        TakeGrid(grid),
        nn.AdaptiveAvgPool2d(1),  # over 7x7
        nn.Flatten(),
        nn.Linear(n_features, classes),
    ]


def r_mg(
    channels: int,
    classes: int,
    *,
    n_units: list[int],
    widths: list[list[int]],
    shortcut: str,
) -> nn.Module:
    """R-MG: multigrid ResNet; `n_units` in the four blocks."""
    unit = partial(ResidualMultigridUnit, shortcut=shortcut)
    units = [InputPyramid(channels, widths[0], _stem)]
    units += block(unit, widths[0], widths[0], n_units[0])
    for (before, after), n in zip(pairwise(widths), n_units[1:], strict=True):
        # The third grid of block 2 has 7x7 pixels and is halved no further.
        pool = PyramidPool(concat=len(after) < len(before))
        units += [pool, *block(unit, pool.widths(before), after, n)]
    return nn.Sequential(*units, *_classify(0, widths[-1][0], classes))


def r_pmg_seg(
    channels: int,
    classes: int,
    *,
    n_units: list[int],
    widths: list[list[int]],
    shortcut: str,
) -> nn.Module:
    """PR-MG-SEG: progressive residual multigrid whose grids keep their sizes, as for segmentation.

    The classifier reads the coarsest grid.
    """
    unit = partial(ResidualMultigridUnit, shortcut=shortcut)
    image, *widths = widths
    steps = [[image[-g]] * g for g in range(1, len(image) + 1)]
    units = progressive_start(unit, image, steps, n_units[0])
    for (before, after), n in zip(pairwise([steps[-1], *widths]), n_units[1:], strict=True):
        units += block(unit, before, after, n)
    coarsest = len(image) - 1
    leave_out_unread(units, {coarsest})
    return nn.Sequential(
        InputPyramid(channels, image, _stem), *units, *_classify(coarsest, widths[-1][-1], classes)
    )
