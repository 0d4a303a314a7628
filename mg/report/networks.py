"""Networks as people see them: a drawing of the grids over depth, a table of the layers, and how
the receptive field grows with depth."""

import csv
import io
import os
from collections import defaultdict
from itertools import pairwise
from math import prod
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from torch import nn

from mg.files import write_text
from mg.networks.counting import IMAGE, Layer, Shape, layers, longest_path, total
from mg.networks.registry import build, resolve_dataset, skeleton
from mg.report import names, style


def describe(
    network: str, dataset: str, options: dict[str, Any], path_prefix: str | os.PathLike | None
) -> None:
    """Print the table of layers; with `path_prefix`, also draw the network.

    Writes `path_prefix`.csv (the layers) and `path_prefix`.png and .svg (the drawing).

    Raises:
        UserError: an unknown network, data set or option; files that cannot be written.
    """
    rows = layer_table(network, dataset, options)
    print(format_layers(rows), end="")
    if path_prefix is None:
        return
    write_text(f"{path_prefix}.csv", _csv(rows))
    draw_network(network, dataset, options, path_prefix)


# ------------------------------------------------------------------------------ layers


def layer_table(network: str, dataset: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per layer in order of execution, for the size of image that the data set has.

    Keys: name, type, in, out (channels), kernel, stride, size (height x width of the output),
    depth (position on the longest path), parameters (those of its batch norm included),
    multiply_adds (for one image), live (False for layers that cannot influence the output).

    Raises:
        UserError: an unknown network, data set or option.
    """
    model, found, _ = _examine(network, dataset, options)
    return [
        {
            "name": layer.name,
            "type": _kind(layer),
            "in": layer.input_shape[0],
            "out": layer.output_shape[0],
            "kernel": getattr(layer.module, "kernel_size", (1,))[0],
            "stride": getattr(layer.module, "stride", (1,))[0],
            "size": f"{_size(layer)}x{_size(layer)}",
            "depth": layer.depth,
            "parameters": _parameters(model, layer),
            "multiply_adds": layer.multiply_adds,
            "live": layer.live,
        }
        for layer in found
    ]


def format_layers(rows: list[dict[str, Any]]) -> str:
    """The table of layers as text, with a line of totals."""
    sums = {key: sum(row[key] for row in rows) for key in ("parameters", "multiply_adds")}
    sums["depth"] = max(row["depth"] for row in rows if row["live"])
    cells = [
        [
            "layer",
            "type",
            "in",
            "out",
            "k",
            "stride",
            "size",
            "depth",
            "parameters",
            "multiply-adds",
        ]
    ]
    for row in [*rows, {"name": "total", **sums}]:
        values = [row.get(key, "") for key in rows[0] if key != "live"]
        text = [f"{value:,}" if isinstance(value, int) else value for value in values]
        cells.append(text + ([] if row.get("live", True) else ["cannot influence the output"]))
    sizes = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = []
    for line in cells:
        left, right = line[:2], line[2:]
        parts = [text.ljust(size) for text, size in zip(left, sizes, strict=False)]
        parts += [text.rjust(size) for text, size in zip(right, sizes[2:], strict=False)]
        lines.append("  ".join([*parts, *line[len(sizes) :]]).rstrip())
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]) + "\n"


def _csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _examine(network: str, dataset: str, options: dict) -> tuple[nn.Module, list[Layer], Shape]:
    spec = resolve_dataset(dataset)
    shape = (spec.channels, spec.size, spec.size)
    model = skeleton(network, dataset, **options)
    return model, layers(model, shape), shape


def _kind(layer: Layer) -> str:
    if isinstance(layer.module, nn.Linear):
        return "linear"
    k = layer.module.kernel_size[0]
    name = "transposed conv" if isinstance(layer.module, nn.ConvTranspose2d) else "conv"
    return f"{name} {k}x{k}"


def _size(layer: Layer) -> int:
    return layer.output_shape[-1] if len(layer.output_shape) > 1 else 1


def _parameters(model: nn.Module, layer: Layer) -> int:
    """Of the layer and of the batch norm beside it."""
    siblings = model.get_submodule(layer.name.rpartition(".")[0])
    modules = [layer.module]
    if isinstance(getattr(siblings, "bn", None), nn.BatchNorm2d):
        modules.append(siblings.bn)
    return sum(prod(p.shape) for module in modules for p in module.parameters())


# ------------------------------------------------------------------------------ drawing

# Fill and edge per kind of layer; pale fills, so that the black widths stay readable.
BOXES = {
    IMAGE: ("#EEEEEE", style.GREY),
    "conv 3x3": ("#DCEBF6", style.BLUE),
    "conv 1x1": ("#FCF3C8", "#A08A00"),
    "conv 7x7": ("#D5EFE6", style.GREEN),
    "transposed conv 2x2": ("#FBE3D3", style.VERMILLION),
    "linear": ("#F5E3EE", "#A0477A"),
}
ARROWS = {
    "same grid": "#555555",
    "pooled": style.BLUE,
    "upsampled": style.VERMILLION,
    "residual shortcut": style.GREEN,
}
BOX_WIDTH, BOX_HEIGHT = 0.66, 0.46  # in columns and rows
COLUMN, ROW = 0.42, 0.62  # inches
ARC = 0.27  # inches


def draw_network(
    network: str, dataset: str, options: dict[str, Any], path_prefix: str | os.PathLike
) -> str:
    """Draw the grids of a network over its depth, as `path_prefix`.png and .svg.

    Columns are depth, rows are resolutions, a box is a convolution with its number of output
    channels; arrows say where its input comes from. Returns the caption, which is in the files.

    Raises:
        UserError: an unknown network, data set or option; files that cannot be written.
    """
    model, found, shape = _examine(network, dataset, options)
    counts = total(model, found)
    depth = longest_path(found)
    title = names.network_name(network)
    settings = ", ".join(f"{key} {value}" for key, value in options.items())
    task = names.task_name(resolve_dataset(dataset).name)
    facts = (
        f"{counts.parameters / 1e6:.2f} M parameters, {counts.multiply_adds / 1e9:.2f} G "
        f"multiply-adds, depth {depth}"
    )
    caption = (
        f"{title} for {task}{' (' + settings + ')' if settings else ''}: {facts}. Columns: depth "
        "(convolutions and linear layers from the image). Rows: resolution. Boxes: convolutions "
        "with their number of channels; dashed: without influence on the output. "
        + names.controls_note({network: None})
    )
    sizes = sorted({_size(layer) for layer in found} | {shape[1]}, reverse=True)
    columns = max(layer.depth for layer in found) + 1
    width = max(columns * COLUMN + 0.9, 6.2)
    height = len(sizes) * ROW + 1.55
    with style.settings():
        figure = style.new_figure(width, height)
        axes = figure.add_axes((0.75 / width, 0.95 / height, 1 - 0.9 / width, 1 - 1.55 / height))
        spare = (width - 0.9) / COLUMN - columns
        axes.set_xlim(-0.5, columns - 0.5 + spare)
        axes.set_ylim(len(sizes) - 0.5, -0.5)
        axes.set_yticks(range(len(sizes)), [f"{s} × {s}" for s in sizes])
        axes.set_xticks(range(0, columns, 1 if columns < 32 else 2))
        axes.set_xlabel("depth")
        axes.tick_params(length=0)
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
        for row in range(len(sizes)):
            axes.axhline(row, color="#F2F2F2", linewidth=14, zorder=0)
        figure.text(
            0.12 / width, 1 - 0.24 / height, f"{title}  ·  {task}", fontsize=10, weight="bold"
        )
        figure.text(0.12 / width, 1 - 0.42 / height, facts, fontsize=8, color="#444444")
        arrows = _draw_graph(axes, found, sizes, shape[0])
        _draw_legend(figure, found, arrows)
        return style.save(figure, path_prefix, caption)


def _draw_graph(axes, found: list[Layer], sizes: list[int], channels: int) -> set[str]:
    """Draw boxes and arrows; return the kinds of arrows."""
    row = {size: i for i, size in enumerate(sizes)}
    crowd: dict[tuple[int, int], list[Layer]] = defaultdict(list)
    for layer in found:
        crowd[layer.depth, row[_size(layer)]].append(layer)
    place = {
        layer.name: (x, y + 0.3 * (i - (len(group) - 1) / 2), BOX_HEIGHT / len(group) ** 0.8)
        for (x, y), group in crowd.items()
        for i, layer in enumerate(group)
    }
    occupied = set(crowd)
    used = set()
    for size in sizes:  # the input pyramid: the image at the scales at which it is read
        readers = [
            layer for layer in found if IMAGE in layer.reads and layer.input_shape[-1] == size
        ]
        if readers:
            _box(axes, 0, row[size], BOX_HEIGHT, str(channels), IMAGE)
        for layer in readers:
            used.add(_arrow(axes, (0, row[size], BOX_HEIGHT), place[layer.name], occupied))
    for layer in found:
        end, live = place[layer.name], layer.live
        for source in layer.reads:
            if source != IMAGE:
                used.add(_arrow(axes, place[source], end, occupied, live=live))
        for source in layer.adds:
            used.add(_arrow(axes, place[source], end, occupied, shortcut=True, live=live))
        _box(axes, *end, str(layer.output_shape[0]), _kind(layer), live)
    return used


def _box(axes, x: float, y: float, height: float, text: str, kind: str, live: bool = True) -> None:
    fill, edge = BOXES.get(kind, BOXES["conv 3x3"])
    box = FancyBboxPatch(
        (x - BOX_WIDTH / 2, y - height / 2),
        BOX_WIDTH,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=fill if live else "white",
        edgecolor=edge if live else style.GREY,
        linewidth=0.9,
        linestyle="-" if live else (0, (2, 1.5)),
        zorder=3,
    )
    axes.add_patch(box)
    axes.text(
        x,
        y,
        text,
        ha="center",
        va="center_baseline",
        fontsize=7 if len(text) < 4 else 6,
        color=style.BLACK if live else style.GREY,
        zorder=4,
    )


def _arrow(axes, start, end, occupied: set, shortcut: bool = False, live: bool = True) -> str:
    """Draw one connection; return its kind, a key of `ARROWS`."""
    (x0, y0, h0), (x1, y1, h1) = start, end
    span, level = x1 - x0, round(y0) == round(y1)
    begin, finish, bend = (x0 + BOX_WIDTH / 2, y0), (x1 - BOX_WIDTH / 2, y1), 0.0
    hidden = any((x, round(y0)) in occupied for x in range(x0 + 1, x1))
    if level and span > 1 and (shortcut or hidden):  # an arc over the boxes between
        aside = 0.0 if shortcut else 0.2
        begin, finish = (x0 + aside, y0 - h0 / 2), (x1 - aside, y1 - h1 / 2)
        bend = -ARC / (span * COLUMN)
    elif shortcut and not level:
        finish = (x1, y1 - h1 / 2)
    kind = "same grid" if level else "pooled" if y1 > y0 else "upsampled"
    kind = "residual shortcut" if shortcut else kind
    axes.add_patch(
        FancyArrowPatch(
            begin,
            finish,
            arrowstyle="-|>,head_length=2.6,head_width=1.3",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0.5,
            linewidth=0.8,
            color=ARROWS[kind] if live else "#BBBBBB",
            # Long diagonals, as in U-MG, step back behind the short ones.
            alpha=0.4 if not level and span + abs(y1 - y0) > 3.5 else 1,
            clip_on=False,
            zorder=2,
        )
    )
    return kind


def _draw_legend(figure: Figure, found: list[Layer], arrows: set[str]) -> None:
    kinds = {_kind(layer) for layer in found if layer.live} | {IMAGE}
    boxes = [
        Patch(facecolor=fill, edgecolor=edge, label=kind.replace("x", " × "))
        for kind, (fill, edge) in BOXES.items()
        if kind in kinds
    ]
    if not all(layer.live for layer in found):
        boxes.append(
            Patch(
                facecolor="white", edgecolor=style.GREY, linestyle="--", label="without influence"
            )
        )
    lines = [
        Line2D([], [], color=colour, linewidth=1.4, label=kind)
        for kind, colour in ARROWS.items()
        if kind in arrows
    ]
    height = figure.get_figheight()
    for handles, bottom in ((boxes, 0.27), (lines, 0.07)):
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.02, bottom / height),
            ncols=len(handles),
            handlelength=1.3,
            columnspacing=1.2,
            handletextpad=0.5,
            borderaxespad=0,
            borderpad=0,
        )


# ------------------------------------------------------------------------------ receptive fields

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
