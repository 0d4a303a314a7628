"""How the receptive field grows with depth, measured: the paper's central argument."""

import os
from itertools import pairwise
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from mg.networks.counting import layers
from mg.networks.registry import build, resolve_dataset
from mg.report import names, style

# Narrow networks have the receptive fields of wide ones, and are measured in seconds.
NARROW = 8
PAPER = ("sg", "unet", "pmg", "r_pmg")
CANVAS = 64  # the paper's
GRIDS = (2, 3, 4, 5, 6)


def receptive_field(
    network: str, dataset: str, options: dict[str, Any], canvas: int | None = None
) -> list[tuple[int, int]]:
    """How far a feature on the finest grid sees, layer by layer, measured by gradients.

    For every layer on the finest grid: the gradient of the centre of its output with respect to
    the image, and the side of the smallest square around all pixels where it is not zero.

    Args:
        network, dataset, options: as for `mg.networks.build`.
        canvas: side of the image in pixels; default that of the data set.

    Returns:
        (depth, side in pixels), by increasing depth.
    """
    spec = resolve_dataset(dataset)
    canvas = canvas or spec.size
    shape = (spec.channels, canvas, canvas)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(network, dataset, **options).eval().requires_grad_(False)
        image = torch.rand(1, *shape, requires_grad=True)
    depths = {
        layer.name: layer.depth
        for layer in layers(model, shape)
        if layer.live and layer.output_shape[-1] == canvas
    }
    features: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: features.update({name: output})
        )
        for name in depths
    ]
    model(image)
    for handle in handles:
        handle.remove()
    sides: dict[int, int] = {}
    for name, feature in features.items():
        centre = feature[0, :, canvas // 2, canvas // 2].sum()
        (gradient,) = torch.autograd.grad(centre, image, retain_graph=True)
        rows, columns = gradient.abs().sum((0, 1)).nonzero(as_tuple=True)
        side = int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1
        sides[depths[name]] = max(side, sides.get(depths[name], 0))
    return sorted(sides.items())


def paper_receptive_fields() -> dict[str, list[tuple[int, int]]]:
    """`receptive_field` of the paper's U-NET, PMG and R-PMG, and of SG.

    Measured on an image so large that its border limits none of them, and whose centre lies, as on
    the paper's canvas, on a corner of the coarsest grid's cells.
    """
    return {
        name: receptive_field(
            name,
            "segmentation",
            {"width": NARROW if name == "sg" else [NARROW] * 4},
            canvas=320,
        )
        for name in PAPER
    }


def receptive_fields_by_grids() -> list[tuple[int, int]]:
    """(depth, side) where the finest grid of a PMG with each number of `GRIDS` first sees them all.

    Each more grid costs one layer: PMG with G grids has its first such layer at depth G + 1.
    """
    return [
        receptive_field(
            "pmg", "segmentation", {"width": [NARROW] * grids, "blocks": 0}, canvas=320
        )[1]
        for grids in GRIDS
    ]


def draw_receptive_fields(path_prefix: str | os.PathLike) -> str:
    """Draw receptive fields over depth, as `path_prefix`.png and .svg; return the caption."""
    entries = paper_receptive_fields()
    growth = receptive_fields_by_grids()
    caption = (
        "Receptive field of features on the finest grid: side of the square of pixels whose "
        "gradient is not zero. Left: the paper's networks, of four grids, and its canvas of "
        f"{CANVAS}, whatever those of this run are; a dotted line bridges layers without a feature "
        f"on the finest grid. Right: the first feature that sees all grids, in PMG with {GRIDS[0]} "
        f"to {GRIDS[-1]} grids: every further grid costs one layer and doubles the receptive "
        "field; without coarser grids a layer adds two pixels. "
        + names.controls_note(dict.fromkeys(entries))
    )
    with style.settings():
        small_print = style.note_height(caption, 7.2)
        figure = style.new_figure(7.2, 3.2 + small_print)
        left, right = figure.subplots(
            1,
            2,
            sharey=True,
            gridspec_kw={
                "left": 0.09,
                "right": 0.985,
                "bottom": (0.42 + small_print) / (3.2 + small_print),
                "top": 0.93,
            },
        )
        for name, look in style.looks(entries).items():
            _plot_field(left, entries[name], look, names.network_name(name))
        look = style.LOOKS["pmg"]
        _plot_field(right, growth, look, "PMG")
        for (depth, side), grids in zip(growth, GRIDS, strict=True):
            right.annotate(
                f"{grids} grids",
                (depth, side),
                xytext=(-7, 3),
                textcoords="offset points",
                ha="right",
            )
        _plot_field(right, entries["sg"], style.LOOKS["sg"], "SG")
        for axes, title in (
            (left, "The paper's networks, layer by layer"),
            (right, "One more grid, one more layer"),
        ):
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axhline(CANVAS, color=style.GREY, linestyle=":", linewidth=1)
            axes.set_title(title, loc="left")
            axes.set_xlabel("depth (layers)")
            axes.legend(loc="lower right")
        left.set_ylabel("receptive field (pixels)")
        left.text(0.7, CANVAS * 1.06, f"canvas, {CANVAS}", color=style.GREY, fontsize=7)
        style.note(figure, caption)
        return style.save(figure, path_prefix, caption)


def _plot_field(axes: Axes, entries: list[tuple[int, int]], look: style.Look, label: str) -> None:
    """Plot (depth, side); a line only where there is a feature in every layer, else dots."""
    for start, end in pairwise(entries):
        line = look.line if end[0] == start[0] + 1 else (0, (1, 2.5))
        axes.plot(
            *zip(start, end, strict=True),
            ls=line,
            lw=1.6 if line == look.line else 1,
            marker=look.marker,
            color=look.colour,
        )
    axes.plot([], [], ls=look.line, marker=look.marker, color=look.colour, label=label)
