"""The networks for segmentation and spatial transformation on MNIST (paper, section 4.2).

All map (N, 1, H, W) to logits (N, classes, H, W). `settings.py` has their options; depths are for
the paper's.

    unet   encoder-decoder with skip connections                            11 layers
    umg    U-Net, every level a small pyramid                               11 layers
    pmg    progressive multigrid                                            11 layers (L=1)
    r_pmg  progressive residual multigrid                                   21 layers (L=1)
    sg     pmg with its finest grid only, as wide as its parameters allow   11 layers (L=1)
    r_sg   the same control for r_pmg                                       21 layers (L=1)

sg and r_sg appear in the paper's figure but were not released: here they have the depth and the
units of pmg and r_pmg, one grid, one width throughout, and as close to as many parameters.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mg.networks.option_checks import WIDEST
from mg.networks.pyramid import (
    InputPyramid,
    MultigridConv,
    Pyramid,
    ResidualMultigridUnit,
    TakeGrid,
    UpConv,
    block,
    coarse_to_fine,
    leave_out_unread,
    max_pool,
    progressive_start,
)

# ------------------------------------------------------------------------ U-Net and U-MG


class UNet(nn.Module):
    """Encoder-decoder over pyramids; with one grid per level it is U-Net.

        image ─▶ down ─┬───────────────── skip ────────────────▶ ‖ ─▶ merge ─▶ head
                       └ pool ─▶ down ─┬─── skip ───▶ ‖ ─▶ merge ─▶ up ┘
                                       └ pool ─▶ down ─▶ up ┘

    ‖ concatenates grid by grid, the skip first. Where the next level has fewer grids, the coarsest
    are dropped before pooling.

    Args:
        channels, classes: of the image and the output.
        levels: widths of each level, finest level first; at least two.
        n_layer: multigrid convolutions in each `down` and each `merge`; 1 in the paper.
    """

    def __init__(
        self, channels: int, classes: int, levels: Sequence[Sequence[int]], n_layer: int = 1
    ):
        super().__init__()
        self.n_grids = [len(widths) for widths in levels]

        def convolutions(n_in: Sequence[int], n_out: Sequence[int]) -> nn.Sequential:
            return nn.Sequential(*block(MultigridConv, n_in, n_out, n_layer))

        first = levels[0]
        start = block(MultigridConv, first, first, n_layer - 1)
        self.down = nn.ModuleList([nn.Sequential(InputPyramid(channels, first), *start)])
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for above, widths in pairwise(levels):
            received = above[: len(widths)]
            self.down.append(convolutions(received, widths))
            self.up.insert(0, UpConv(widths, received))
            self.merge.insert(0, convolutions(_joined_widths(above, received), above))
        self.head = MultigridConv(first, [classes] * len(first), kernel=1, relu=False)
        self._leave_out_unread()

    def forward(self, image: Tensor) -> Tensor:
        pyramid, skips = self.down[0](image), []
        for down, n_grids in zip(self.down[1:], self.n_grids[1:], strict=True):
            skips.append(pyramid)
            pyramid = down(max_pool(pyramid[:n_grids]))
        for up, merge in zip(self.up, self.merge, strict=True):
            pyramid = merge(_join(skips.pop(), up(pyramid)))
        return self.head(pyramid)[0]

    def _leave_out_unread(self) -> None:
        """As `pyramid.leave_out_unread`, from the finest grid of the head back through the U."""
        wanted, of_skips = self.head.keep({0}), []
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            wanted = leave_out_unread(merge, wanted)
            of_skips.append(wanted)
            wanted = up.keep({i for i in wanted if i < len(up)})
        for down in reversed(self.down):
            read = leave_out_unread(down, wanted)
            wanted = read | of_skips.pop() if of_skips else read


def _join(skip: Pyramid, deeper: Pyramid) -> Pyramid:
    """Concatenate grid by grid; a grid that the deeper level lacks is the skip's alone."""
    joined = [
        None if any(x is None for x in pair) else torch.cat(pair, 1)
        for pair in zip(skip, deeper, strict=False)
    ]
    return joined + skip[len(deeper) :]


def _joined_widths(skip: Sequence[int], deeper: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(skip, deeper, strict=False)] + list(skip[len(deeper) :])


def unet(
    channels: int, classes: int, *, levels: Sequence[Sequence[int]], n_layer: int
) -> nn.Module:
    """U-Net, one grid per level; also U-MG, several."""
    return UNet(channels, classes, levels, n_layer)


umg = unet

# ------------------------------------------------------------------------ PMG, R-PMG and controls


def _progressive(
    unit: type, channels: int, classes: int, widths: list[int], n_layer: int, blocks: int
) -> nn.Sequential:
    """pmg and r_pmg.

        block 1           progressive start         {64,32,16,8}
        `blocks` blocks                             {64,32,16,8}
        drop blocks       down to the finest grid   {64,32,16}, {64,32}, {classes}

    A block is `n_layer` units; a block with fewer grids drops the coarsest in its first unit.
    """
    units = progressive_start(unit, widths, coarse_to_fine(widths), n_layer)
    dropping = [widths[:g] for g in range(len(widths) - 1, 1, -1)]
    for before, after in pairwise([widths] * (blocks + 1) + dropping):
        units += block(unit, before, after, n_layer)
    units += _output_block(unit, widths[:2], classes, n_layer)
    units.append(TakeGrid(0))
    leave_out_unread(units)
    return nn.Sequential(InputPyramid(channels, widths), *units)


def _output_block(unit: type, n_in: list[int], classes: int, n_layer: int) -> list[nn.Module]:
    """A block of `classes` channels on the finest grid; its last unit has no ReLU.

    Of a residual network that is a convolution of 1x1, of others one of 3x3.
    """
    kernel = 1 if issubclass(unit, ResidualMultigridUnit) else 3
    inner = block(unit, n_in, [classes], n_layer - 1)
    last = unit([classes] if inner else n_in, [classes], kernel, relu=False)
    return [*inner, last]


def pmg(channels: int, classes: int, *, widths: list[int], n_layer: int, blocks: int) -> nn.Module:
    """Progressive multigrid network."""
    return _progressive(MultigridConv, channels, classes, widths, n_layer, blocks)


def r_pmg(
    channels: int, classes: int, *, widths: list[int], n_layer: int, blocks: int
) -> nn.Module:
    """Progressive residual multigrid network. The output unit is 1x1."""
    return _progressive(ResidualMultigridUnit, channels, classes, widths, n_layer, blocks)


def _single_grid(
    unit: type,
    channels: int,
    classes: int,
    width: int | list[int],
    grids: int,
    n_layer: int,
    blocks: int,
) -> nn.Sequential:
    """sg and r_sg: as many units in a row as pmg or r_pmg have on their longest path."""

    def network(w: int) -> nn.Sequential:
        units = block(unit, [w], [w], (2 * grids - 2 + blocks) * n_layer)
        units += _output_block(unit, [w], classes, n_layer)
        return nn.Sequential(InputPyramid(channels, [w]), *units, TakeGrid(0))

    if not isinstance(width, int):
        with torch.device("meta"):
            goal = _parameters(_progressive(unit, channels, classes, width, n_layer, blocks))
            above = bisect_left(range(WIDEST), goal, lo=2, key=lambda w: _parameters(network(w)))
            width = min(above - 1, above, key=lambda w: abs(_parameters(network(w)) - goal))
    return network(width)


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def sg(
    channels: int, classes: int, *, width: int | list[int], grids: int, n_layer: int, blocks: int
) -> nn.Module:
    """Single-grid control of `pmg`: its depth and units on the finest grid alone."""
    return _single_grid(MultigridConv, channels, classes, width, grids, n_layer, blocks)


def r_sg(
    channels: int, classes: int, *, width: int | list[int], grids: int, n_layer: int, blocks: int
) -> nn.Module:
    """Single-grid control of `r_pmg`."""
    return _single_grid(ResidualMultigridUnit, channels, classes, width, grids, n_layer, blocks)
