"""Where in the input the outputs come from."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb

from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES, attention_ratio
from mg.report import style
from mg.report.figures.captions import controls_of, seeds_note
from mg.report.figures.panels import check_count, draw_absent, draw_framed, grid, label_row
from mg.report.figures.reading import Paths, read_saliency
from mg.report.names import network_name, task_name

# Hue of each point of interest, as in the paper's figure: green, red, yellow, blue, cyan, magenta,
# orange, in the order of `POINT_NAMES`.
HUES = tuple(angle / 360 for angle in (120, 0, 60, 240, 180, 300, 30))
LEVELS = 10


def saliency_levels(attention: np.ndarray) -> np.ndarray:
    """A map (H, W) in levels from 0 to `LEVELS` (uint8): a value's rank among those not zero."""
    levels = np.zeros(attention.shape, np.uint8)
    nonzero = attention > 0
    if nonzero.any():
        values = np.sort(attention[nonzero])
        rank = np.searchsorted(values, attention[nonzero], side="right") / len(values)
        levels[nonzero] = np.ceil(rank * LEVELS)
    return levels


def saliency_image(attention: np.ndarray, image: np.ndarray, hue: float) -> np.ndarray:
    """A map (H, W) over its input (H, W) as colours (H, W, 3), the paper's way.

    Saturation: the level of the map; value: the inverted input.
    """
    saturation = saliency_levels(attention) / LEVELS
    hues = np.full(attention.shape, hue)
    return hsv_to_rgb(np.stack([hues, saturation, 1 - image.clip(0, 1)], axis=-1))


def saliency_panel(saliency_paths: Paths, prefix: str | os.PathLike, count: int = 3) -> str:
    """Input, output with its points of interest, and the map of each point; a row per network.

    The inputs are those, in the order of the test set, for which most of the networks have maps.

    Args:
        saliency_paths: saliency.h5 files of one task; of several seeds the lowest is shown.

    Raises:
        UserError: a file is damaged, two are of the same run, or they are of several tasks or made
            with several windows.
    """
    check_count(count)
    stored = read_saliency(saliency_paths)
    if not stored:
        raise UserError("no saliency.h5 was given; this figure needs one at least")
    networks = list(stored)
    task = stored[networks[0]]["dataset"]
    places = {n: {int(i): k for k, i in enumerate(stored[n]["index"])} for n in networks}
    indices = sorted({i for place in places.values() for i in place})
    indices.sort(key=lambda i: -sum(i in place for place in places.values()))  # stable
    indices = sorted(indices[:count])
    names = ["input", "output", *POINT_NAMES]
    windows = {(maps["window"], maps["stride"]) for maps in stored.values()}
    if len(windows) > 1:
        raise UserError(
            f"saliency maps with windows and strides {' and '.join(map(str, sorted(windows)))} do "
            "not go together; make the others again with `mg saliency`"
        )
    ((window, stride),) = windows
    caption = (
        f"Where the outputs come from ({task_name(task).lower()}). Each map shows, in the "
        "colour of a point marked on the output, the parts of the input that change the output "
        f"there when {window}×{window} pixels of noise cover them (moved in steps of {stride}): "
        "the more saturated, the more, in ten levels by rank. An empty map: the output there does "
        "not change by 0.1 wherever the noise is. Colours on the digit, wherever it lies, say that "
        "the output follows it; colours elsewhere, that noise on empty places disturbs it. "
        f"{_measured(stored)}Input and output are drawn inverted. The first test images for which "
        "most networks give an output to ask about, that is one with pixels above 0.4. "
        + seeds_note((network, maps["seed"]) for network, maps in stored.items())
        + controls_of(networks, saliency_paths)
    )
    with style.settings():
        rows = [(i, network) for i in indices for network in networks] or [(None, networks[0])]
        figure, axes = grid(
            len(rows), len(names), caption, left=0.55, group=len(networks) if indices else 1
        )
        for axis, name in zip(axes[0], names, strict=True):
            axis.set_title(name, fontsize=7, pad=4)
        for (index, network), row in zip(rows, axes, strict=True):
            label_row(row[0], network_name(network), fontsize=8)
            k = places[network].get(index)
            if k is not None:
                _saliency_row(row, {name: stored[network][name][k] for name in _MAPS})
                continue
            asked = index is None or index in stored[network]["skipped"]
            draw_absent(row[1], "none above\n0.4" if asked else "no map\nmade")
            for other, place in places.items():  # the same test set
                if index in place:
                    draw_framed(row[0], 1 - stored[other]["input"][place[index], 0])
                    break
        return style.save(figure, prefix, caption)


def _measured(stored: dict[str, dict[str, Any]]) -> str:
    """How far the attention of networks follows the digit, in a sentence."""
    ratios = {network: attention_ratio(maps) for network, maps in stored.items()}
    parts = [f"{network_name(n)} {ratio:.2f}" for n, ratio in ratios.items() if ratio is not None]
    if not parts:
        return ""
    return (
        "Over all maps, the share on the digit over that where other images have theirs: "
        f"{', '.join(parts)}; 1 says that it does not matter where the digit lies. "
    )


_MAPS = ("input", "output", "points", "map")


def _saliency_row(row: Sequence[Axes], maps: dict[str, np.ndarray]) -> None:
    image = maps["input"][0]
    draw_framed(row[0], 1 - image)
    draw_framed(row[1], 1 - maps["output"][0])
    for (y, x), hue in zip(maps["points"], HUES, strict=True):
        colour = hsv_to_rgb((hue, 1, 0.9))
        row[1].plot(x, y, "s", ms=3, mfc=colour, mec="black", mew=0.4)
    for axis, attention, hue in zip(row[2:], maps["map"], HUES, strict=True):
        draw_framed(axis, saliency_image(attention, image, hue))
