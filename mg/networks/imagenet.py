"""The classifiers of 224x224 images, ImageNet (paper, section 4.1).

Both map (N, 3, 224, 224) to logits (N, classes). Every grid of the input pyramid begins with a
7x7 convolution and a max-pool, which divide its size by four.

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

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import nn

from mg.networks import options
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

R_MG = [[64, 32, 16], [128, 64, 32], [256, 128], [512]]
R_MG_UNITS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}

R_PMG_SEG = [[64, 32, 16, 8], [64, 64, 64, 128], [64, 64, 128, 256], [64, 128, 256, 512]]
R_PMG_SEG_UNITS = {30: [2, 2, 2, 2], 52: [3, 4, 6, 3]}


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
    depth: int = 34,
    width: Sequence[Sequence[int]] = R_MG,
    shortcut: str = "A",
) -> nn.Module:
    """R-MG: multigrid ResNet.

    Args:
        depth: 34 (3, 4, 6, 3 units in the four blocks) or 18 (2 units each).
        width: of each grid in each block.
        shortcut: "A", zero channels appended, or "B", 1x1 convolution, where the width grows.
    """
    n_units = R_MG_UNITS[options.choice("depth", depth, tuple(R_MG_UNITS))]
    unit = partial(ResidualMultigridUnit, shortcut=shortcut)
    widths = options.nested_widths(width, R_MG)
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
    depth: int = 30,
    width: Sequence[Sequence[int]] = R_PMG_SEG,
    shortcut: str = "A",
) -> nn.Module:
    """PR-MG-SEG: progressive residual multigrid whose grids keep their sizes, as for segmentation.

    The classifier reads the coarsest grid.

    Args:
        depth: 30 (2 units per block and step) or 52 (3 per step, then 4, 6, 3 per block).
        width: of each grid: first of the input pyramid, then of blocks 2 to 4. In block 1, the
            progressive start, all active grids take the width of the finest one among them.
        shortcut: "A", zero channels appended, or "B", 1x1 convolution, where the width grows.
    """
    n_units = R_PMG_SEG_UNITS[options.choice("depth", depth, tuple(R_PMG_SEG_UNITS))]
    unit = partial(ResidualMultigridUnit, shortcut=shortcut)
    image, *widths = options.nested_widths(width, R_PMG_SEG)
    steps = [[image[-g]] * g for g in range(1, len(image) + 1)]
    units = progressive_start(unit, image, steps, n_units[0])
    for (before, after), n in zip(pairwise([steps[-1], *widths]), n_units[1:], strict=True):
        units += block(unit, before, after, n)
    coarsest = len(image) - 1
    leave_out_unread(units, {coarsest})
    return nn.Sequential(
        InputPyramid(channels, image, _stem), *units, *_classify(coarsest, widths[-1][-1], classes)
    )
