"""A drawing of a network: its grids over depth."""

import os
from collections import defaultdict
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from mg.networks.counting import IMAGE, Layer, examine, longest_path, total
from mg.networks.registry import resolve_dataset
from mg.report import names, style

OTHER = "other layer"
# Fill and edge per kind of layer; pale fills, so that the black widths stay readable.
BOXES = {
    IMAGE: ("#EEEEEE", style.GREY),
    "conv 3x3": ("#DCEBF6", style.BLUE),
    "conv 1x1": ("#FCF3C8", "#A08A00"),
    "conv 7x7": ("#D5EFE6", style.GREEN),
    "transposed conv 2x2": ("#FBE3D3", style.VERMILLION),
    "linear": ("#F5E3EE", "#A0477A"),
    OTHER: ("#FFFFFF", "#333333"),
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
    network: str,
    dataset: str,
    options: dict[str, Any],
    path_prefix: str | os.PathLike,
    size: int | None = None,
) -> str:
    """Draw the grids of a network over its depth, as `path_prefix`.png and .svg.

    Columns are depth, rows are resolutions, a box is a convolution with its number of output
    channels; arrows say where its input comes from. Returns the caption, which is in the files.

    Args:
        size: side of the image in pixels; the data set's own if None.

    Raises:
        UserError: an unknown network, data set or option, or one that cannot work on images of that
            size; files that cannot be written.
    """
    model, found, shape = examine(network, dataset, options, size)
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
    sizes = sorted({layer.side for layer in found} | {shape[1]}, reverse=True)
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
        crowd[layer.depth, row[layer.side]].append(layer)
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
        _box(axes, *end, str(layer.channels[1]), layer.kind, live)
    return used


def _box(axes, x: float, y: float, height: float, text: str, kind: str, live: bool = True) -> None:
    fill, edge = BOXES.get(kind, BOXES[OTHER])
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
    kinds = {layer.kind if layer.kind in BOXES else OTHER for layer in found if layer.live}
    kinds.add(IMAGE)
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
