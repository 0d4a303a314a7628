"""Axes of plots, their headings and the names of networks beside them."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mg.report import style
from mg.report.names import network_name


def plots(
    rows: int,
    columns: int,
    panel_width: float,
    panel_height: float,
    caption: str,
    *,
    gap: float,
    right: float = 0.1,
    above: float = 0.27,
) -> tuple[Figure, np.ndarray]:
    """Axes of equal size with room for labels, a heading per row, and the caption; in inches."""
    left, between = 0.6, above + 0.45
    width = left + columns * panel_width + (columns - 1) * gap + right
    below = style.note_height(caption, width) + 0.42
    height = above + rows * panel_height + (rows - 1) * between + below
    figure = style.new_figure(width, height)
    axes = np.empty((rows, columns), object)
    for r in range(rows):
        y = height - above - (r + 1) * panel_height - r * between
        for c in range(columns):
            x = left + c * (panel_width + gap)
            axes[r, c] = figure.add_axes(
                (x / width, y / height, panel_width / width, panel_height / height)
            )
    style.note(figure, caption)
    return figure, axes


def heading(axis: Axes, text: str, above: float = 6) -> None:
    """Write `text` over a row of plots, `above` points above them."""
    axis.annotate(
        text,
        (0, 1),
        xytext=(-32, above),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        fontweight="bold",
    )


def legend_columns(looks: dict[str, style.Look]) -> int:
    """How many a legend needs: beside the lowest figure there is room for ten names."""
    return math.ceil(len(looks) / 10)


def name_networks(axis: Axes, looks: dict[str, style.Look]) -> None:
    """Name the networks, right of `axis`."""
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            ls=look.line,
            marker=look.marker,
            ms=4.5,
            label=network_name(network),
        )
        for network, look in looks.items()
    ]
    axis.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.03, 1.02),
        ncols=legend_columns(looks),
        columnspacing=1,
        handlelength=2.4,
        borderaxespad=0,
    )
