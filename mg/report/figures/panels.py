"""Square images in rows and columns, and what is written beside them."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mg.data import hdf5
from mg.errors import UserError
from mg.report import style

WIDTH = 7.0  # inches, a page's text width; panels of few columns are narrower
GAP = 0.035
SMALLEST, LARGEST = 0.05, 0.95  # side of an image


def grid(
    rows: int,
    columns: int,
    caption: str,
    *,
    left: float = 0.06,
    right: float = 0.06,
    top: float = 0.24,
    legend: float = 0.0,
    group: int = 1,
) -> tuple[Figure, np.ndarray]:
    """Square frameless axes with the caption below; margins in inches.

    `legend` is the height left free between axes and caption; groups of `group` rows stand apart.
    """
    cell = min(LARGEST, (WIDTH - left - right) / columns - GAP)
    if cell < SMALLEST:
        raise UserError(
            f"{columns} images do not fit beside each other on a figure of {WIDTH} inches; ask for "
            "fewer examples, points or networks"
        )
    width = max(left + columns * (cell + GAP) - GAP + right, 4.6)
    below = legend + style.note_height(caption, width)
    extra = 0.07 if group > 1 else 0
    height = top + rows * (cell + GAP) + (rows - 1) // group * extra + below
    figure = style.new_figure(width, height)
    axes = np.empty((rows, columns), object)
    for r in range(rows):
        y = height - top - (r + 1) * cell - r * GAP - r // group * extra
        for c in range(columns):
            axes[r, c] = square(figure, left + c * (cell + GAP), y, cell)
    style.note(figure, caption)
    return figure, axes


def square(figure: Figure, x: float, y: float, side: float) -> Axes:
    """Square frameless axes at `x`, `y` inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, y / height, side / width, side / height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return axes


def check_count(count: int) -> None:
    """Refuse to draw fewer than one example."""
    if count < 1:
        raise UserError(f"{count} examples make no figure; ask for at least one")


def load_examples(path: str | os.PathLike, count: int, channels: int) -> hdf5.Dataset:
    """The first examples of a test set whose targets have so many channels."""
    data = hdf5.load(path, count=count)
    if data.y.shape[1] != channels:
        raise UserError(
            f"{path} is of {data.attributes['task']}, with {data.y.shape[1]}-channel targets; this "
            f"figure is for {channels}-channel ones"
        )
    return data


def label_row(axes: Axes, text: str, **settings: Any) -> None:
    """Write `text` left of a row's first image."""
    axes.text(-0.08, 0.5, text, transform=axes.transAxes, ha="right", va="center", **settings)


def draw_grey(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W) from 0, black, to 1, white."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)


def draw_framed(axes: Axes, image: np.ndarray) -> None:
    """Draw an image of light background."""
    draw_grey(axes, image)
    axes.spines[:].set(visible=True, color=style.PALE, linewidth=0.6)


def draw_absent(axes: Axes, text: str) -> None:
    """Say in the place of an image why there is none."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.add_patch(Rectangle((0, 0), 1, 1, fc="#F2F2F2", ec="none"))
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=6, color=style.GREY)


def colour_legend(
    figure: Figure, title: str, entries: Iterable[tuple], y: float, x: float = 0.06
) -> None:
    """Colours with their names in one line, at `x`, `y` inches."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, title, fontsize=7.5, va="center_baseline")
    figure.legend(
        handles=[Patch(fc=c, ec="#444444", lw=0.5, label=str(name)) for name, c in entries],
        loc="center left",
        bbox_to_anchor=((x + 0.42) / width, y / height),
        ncols=10,
        handlelength=1,
        handleheight=1,
        columnspacing=1.1,
        handletextpad=0.4,
        borderaxespad=0,
        borderpad=0,
    )


def digit_colours(y: np.ndarray) -> np.ndarray:
    """Classes (10, H, W), 0 or 1, as colours (H, W, 3) on black; several are averaged."""
    colours = np.array([to_rgb(colour) for colour in style.DIGITS])
    total = np.einsum("chw,cr->hwr", y.astype(float), colours)
    return total / y.sum(0).clip(min=1)[:, :, None]
