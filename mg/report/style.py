"""One look for every figure and table: names, colours, markers, sizes, and how files are saved."""

import os
import textwrap
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mg.files import atomic_path
from mg.report.names import in_order

# Okabe & Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#777777", "#DDDDDD"

# Ten classes need more than the eight: white, a grey and a brown are added and black, the
# background, is left out. Panels also write the digit beside it, so that colour is never alone.
DIGITS = (
    "#FFFFFF",
    ORANGE,
    SKY,
    GREEN,
    YELLOW,
    BLUE,
    VERMILLION,
    PURPLE,
    "#9A9A9A",
    "#8A5A2B",
)


class Look(NamedTuple):
    """How a network is drawn."""

    colour: str
    marker: str
    line: str


# Cold colours for single grids, warm ones for multigrid, dashes for residual networks.
LOOKS = {
    "unet": Look(BLACK, "s", "-"),
    "umg": Look(PURPLE, "h", "-"),
    "sg": Look(SKY, "v", "-"),
    "r_sg": Look(BLUE, "^", "--"),
    "pmg": Look(VERMILLION, "o", "-"),
    "r_pmg": Look(ORANGE, "D", "--"),
    "vgg": Look(BLACK, "s", "-"),
    "resnet": Look(GREY, "X", "--"),
    "mg": Look(GREEN, "o", "-"),
    "r_mg": Look(YELLOW, "p", "--"),
    "p_mg": Look(VERMILLION, "o", "-"),
    "pr_mg": Look(ORANGE, "D", "--"),
    "r_pmg_seg": Look(ORANGE, "D", "--"),
}


# For networks that are not in the paper: markers of their own, so that lines are not needed.
OTHERS = [
    Look(colour, marker, (":", "-.")[i % 2])
    for marker in "<>*dP"
    for i, colour in enumerate((GREEN, BLUE, ORANGE, GREY, SKY, VERMILLION, BLACK, PURPLE, YELLOW))
]


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """The looks of a figure's networks, no two the same as long as there are looks left.

    A network has the look of `LOOKS`, or one that follows from its label, unless one before it in
    the order of every figure has that already. Give all of a run, shown or not: it keeps its look.
    """
    found: dict[str, Look] = {}
    for label in in_order(labels):
        first = zlib.crc32(label.encode()) % len(OTHERS)
        choice = [*([LOOKS[label]] if label in LOOKS else []), *OTHERS[first:], *OTHERS[:first]]
        found[label] = next((look for look in choice if look not in found.values()), choice[0])
    return found


SETTINGS = {
    "font.family": "sans-serif",
    # The first comes with matplotlib: the same picture everywhere. The others are as wide: for
    # viewers of the SVG files without it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "image.interpolation": "nearest",
    "svg.fonttype": "none",  # text stays text: searchable, editable
    "svg.hashsalt": "mg",  # the same file for the same data
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches. Draw on it within `settings()`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def settings() -> AbstractContextManager:
    """Context in which every figure is drawn and saved."""
    return matplotlib.style.context(["default", SETTINGS])  # whatever the user's matplotlibrc says


def note_height(text: str, width: float) -> float:
    """Inches that `note` needs below a figure of `width` inches."""
    return 0.13 * len(_wrapped(text, width)) + 0.14


def note(figure: Figure, text: str) -> None:
    """Write small print at the bottom, over the whole width."""
    width, height = figure.get_size_inches()
    lines = _wrapped(text, width)
    top = (note_height(text, width) - 0.06) / height
    figure.text(
        0.06 / width,
        top,
        "\n".join(lines),
        fontsize=6.5,
        color="#444444",
        va="top",
        linespacing=1.3,
    )


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), int((width - 0.12) * 20))


def save(figure: Figure, prefix: str | os.PathLike, caption: str) -> str:
    """Write `prefix`.png (200 dpi) and `prefix`.svg, the caption inside; give the caption back.

    Neither file holds a date: the same data give the same bytes.
    """
    caption = " ".join(caption.split())
    png = Path(f"{prefix}.png")
    with atomic_path(png) as temporary:
        figure.savefig(temporary, dpi=200, metadata={"Description": caption, "Software": None})
    with atomic_path(png.with_suffix(".svg")) as temporary:
        metadata = {"Description": caption, "Date": None, "Creator": None}
        figure.savefig(temporary, metadata=metadata)
    return caption
