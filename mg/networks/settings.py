"""The options of every network, checked, and the paper's where left out.

A function takes the options of a network, or of two, checks each and gives what their builders in
`mnist.py`, `cifar.py` or `imagenet.py` are called with. Nothing here loads PyTorch: a configuration
is checked without building.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mg.errors import UserError
from mg.networks.option_checks import (
    WIDEST,
    choice,
    how_many,
    nested_widths,
    whole_number,
    widths,
)


class Settings(NamedTuple):
    """Arguments of a builder; the side of its images must be a multiple of `size_multiple`."""

    arguments: dict[str, Any]
    size_multiple: int = 1


# ------------------------------------------------------------------------ maps of pixels


def _levels(levels: list[list[int]], n_layer: int) -> Settings:
    multiple = 2 ** max(d + len(level) - 1 for d, level in enumerate(levels))
    return Settings({"levels": levels, "n_layer": how_many("n_layer", n_layer)}, multiple)


def unet(*, n_layer: int = 1, width: Sequence[int] = (64, 128, 256, 512)) -> Settings:
    """U-Net. `width`: of each level, finest first; `n_layer`: convolutions in a row."""
    return _levels([[w] for w in widths(width, minimum=2)], n_layer)


def umg(
    *, n_layer: int = 1, width: Sequence[int] = (64, 128, 256, 512), grids: int = 3
) -> Settings:
    """U-MG: U-Net whose levels are pyramids, {64,32,16}, {128,64,32}, {256,128}, {512}.

    Args:
        n_layer: convolutions in a row.
        width: of each level's finest grid; coarser grids halve it.
        grids: of a level, fewer where the levels below it run out.
    """
    width, grids = widths(width, minimum=2), how_many("grids", grids)
    n_grids = [min(grids, len(width) - d) for d in range(len(width))]
    if any(w % 2 ** (n - 1) for w, n in zip(width, n_grids, strict=True)):
        raise UserError(
            f"option width: {width} cannot be halved from grid to grid ({n_grids} grids per level)"
        )
    levels = [[w // 2**i for i in range(n)] for w, n in zip(width, n_grids, strict=True)]
    return _levels(levels, n_layer)


def progressive(
    *,
    n_layer: int = 1,
    width: Sequence[int] | None = None,
    grids: int | None = None,
    blocks: int = 3,
) -> Settings:
    """pmg and r_pmg.

    Args:
        n_layer: units per block and per step of the progressive start (L).
        width: of each grid, finest first; default 64, 32, 16, 8.
        grids: their number, at least 2; default 4.
        blocks: full-pyramid blocks after the progressive start.
    """
    width = _of_grids(width, grids)
    return Settings({"widths": width, **_units(n_layer, blocks)}, 2 ** (len(width) - 1))


def _units(n_layer: int, blocks: int) -> dict[str, int]:
    return {
        "n_layer": how_many("n_layer", n_layer),
        "blocks": how_many("blocks", blocks, minimum=0),
    }


def _of_grids(width: Sequence[int] | None, grids: int | None) -> list[int]:
    if grids is not None:
        how_many("grids", grids, minimum=2)
    if width is None:
        width = [64, 32, 16, 8][:grids]
    width = widths(width, minimum=2)
    if grids not in (None, len(width)):
        raise UserError(
            f"options width and grids disagree: {width} are the widths of {len(width)} grids, "
            f"grids is {grids}; 2 to 4 grids have default widths, else give one width per grid"
        )
    return width


def single_grid(
    *,
    n_layer: int = 1,
    width: int | Sequence[int] | None = None,
    grids: int | None = None,
    blocks: int = 3,
) -> Settings:
    """sg and r_sg.

    Args:
        n_layer, grids, blocks: those of the pmg or r_pmg to be matched in depth.
        width: channels throughout. By default, or when it is a list (the `width` of that pmg or
            r_pmg), the number that comes closest to its parameters.
    """
    if isinstance(width, int):
        width = whole_number("width", width, maximum=WIDEST)
        grids = 4 if grids is None else how_many("grids", grids, minimum=2)
    else:
        width = _of_grids(width, grids)
        grids = len(width)
    return Settings({"width": width, "grids": grids, **_units(n_layer, blocks)})


# ------------------------------------------------------------------------ classifiers, 32x32

VGG = [102, 204, 408, 816, 816]
RESNET = [64, 128, 256, 512, 512]
PUBLISHED_WIDTHS = [[64, 32, 16], [128, 64, 32], [256, 128, 64], [512, 256, 128], [512, 384]]
# The files that the authors released for mg and r_mg carry narrower widths than their table.
MG_RELEASED_WIDTHS = [[40, 40, 40], [80, 40, 40], [160, 80, 40], [320, 160, 80], [320, 240]]
R_MG_RELEASED_WIDTHS = [[40, 20, 10], [80, 40, 20], [160, 80, 40], [320, 160, 80], [320, 240]]


def vgg(*, n_layer: int = 1, width: Sequence[int] = VGG) -> Settings:
    """VGG-like. `n_layer`: convolutions per block; `width`: of each of the five blocks."""
    return _blocks([[w] for w in widths(width, length=5)], n_layer)


def _blocks(widths: list[list[int]], n_layer: int) -> Settings:
    return Settings({"widths": widths, "n_layer": how_many("n_layer", n_layer)})


def resnet(*, n_layer: int = 1, width: Sequence[int] = RESNET, dropout: bool = False) -> Settings:
    """ResNet with zero-padded shortcuts.

    Args:
        n_layer: residual blocks per block.
        width: of each of the five blocks.
        dropout: with probability 0, 0.1, 0.2, 0.3, 0.4 in the five blocks, before each
            convolution of a residual block.
    """
    dropout = choice("dropout", dropout, (False, True))
    return Settings({**vgg(n_layer=n_layer, width=width).arguments, "dropout": dropout})


def mg(*, n_layer: int = 1, width: str | Sequence[Sequence[int]] = "published") -> Settings:
    """MG: multigrid VGG.

    Args:
        n_layer: units per block.
        width: of each grid in each block; "published" for those of the paper's table,
            "released" for those in the authors' files.
    """
    return _blocks(_named_widths(width, MG_RELEASED_WIDTHS), n_layer)


def r_mg(*, n_layer: int = 1, width: str | Sequence[Sequence[int]] = "published") -> Settings:
    """R-MG: multigrid ResNet; options as for `mg`."""
    return _blocks(_named_widths(width, R_MG_RELEASED_WIDTHS), n_layer)


def _named_widths(
    width: str | Sequence[Sequence[int]], released: list[list[int]]
) -> list[list[int]]:
    if isinstance(width, str):
        return {"published": PUBLISHED_WIDTHS, "released": released}[
            choice("width", width, ("published", "released"))
        ]
    return nested_widths(width, PUBLISHED_WIDTHS)


def progressive_classifier(
    *, n_layer: int = 1, width: Sequence[Sequence[int]] = PUBLISHED_WIDTHS
) -> Settings:
    """pmg and r_pmg. `n_layer`: units per block, and per step of the progressive start; `width`:
    of each grid in each block.
    """
    return _blocks(nested_widths(width, PUBLISHED_WIDTHS), n_layer)


# ------------------------------------------------------------------------ classifiers, 224x224

R_MG = [[64, 32, 16], [128, 64, 32], [256, 128], [512]]
R_MG_UNITS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}

R_PMG_SEG = [[64, 32, 16, 8], [64, 64, 64, 128], [64, 64, 128, 256], [64, 128, 256, 512]]
R_PMG_SEG_UNITS = {30: [2, 2, 2, 2], 52: [3, 4, 6, 3]}


def r_mg_imagenet(
    *, depth: int = 34, width: Sequence[Sequence[int]] = R_MG, shortcut: str = "A"
) -> Settings:
    """R-MG: multigrid ResNet.

    Args:
        depth: 34 (3, 4, 6, 3 units in the four blocks) or 18 (2 units each).
        width: of each grid in each block.
        shortcut: "A", zero channels appended, or "B", 1x1 convolution, where the width grows.
    """
    return _residual(depth, R_MG_UNITS, width, R_MG, shortcut)


def _residual(
    depth: int,
    units: dict[int, list[int]],
    width: Sequence[Sequence[int]],
    like: list[list[int]],
    shortcut: str,
) -> Settings:
    return Settings(
        {
            "n_units": units[choice("depth", depth, tuple(units))],
            "widths": nested_widths(width, like),
            "shortcut": choice("shortcut", shortcut, ("A", "B")),
        }
    )


def r_pmg_seg(
    *, depth: int = 30, width: Sequence[Sequence[int]] = R_PMG_SEG, shortcut: str = "A"
) -> Settings:
    """PR-MG-SEG.

    Args:
        depth: 30 (2 units per block and step) or 52 (3 per step, then 4, 6, 3 per block).
        width: of each grid: first of the input pyramid, then of blocks 2 to 4. In block 1, the
            progressive start, all active grids take the width of the finest one among them.
        shortcut: "A", zero channels appended, or "B", 1x1 convolution, where the width grows.
    """
    return _residual(depth, R_PMG_SEG_UNITS, width, R_PMG_SEG, shortcut)
