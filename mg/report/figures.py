"""Figures of a run: learning curves, panels of examples, saliency maps, cost against quality.

Every function writes `prefix`.png and `prefix`.svg and returns the caption, which is also stored in
both files. Examples in panels are always the first of the test set, never chosen by their looks.
"""

import csv
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import ImageOps

from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES, attention_ratio
from mg.evaluation.attention import read as read_maps
from mg.networks import check_channels
from mg.records import read_run
from mg.report import style
from mg.report.names import controls_note, in_order, network_name, task_name, tasks_in_order
from mg.report.tables import Summary, architectures, read_metrics, summarise

Paths = Sequence[str | os.PathLike]

# ------------------------------------------------------------------------------ reading


def read_history(path: str | os.PathLike) -> dict[str, Any]:
    """A history.csv as columns of floats (NaN where empty), with task, label and seed of its place.

    Raises:
        UserError: the file is missing, not a history, or not in models/<task>/<label>/seed<k>/.
    """
    path = Path(path)
    try:
        task, network = path.parts[-4:-2]
        seed = int(path.parent.name.removeprefix("seed"))
        content = path.read_bytes()
        run = path.with_name("run.json")
        written = read_run(run).get("history_crc32") if run.exists() else None
        if written not in (None, zlib.crc32(content)):
            raise ValueError("altered: its checksum differs from that in run.json")
        rows = list(csv.DictReader(content.decode().splitlines()))
        if not rows:
            raise ValueError("no rows")
        columns = {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in ("images", "train_loss", "valid_loss", _progress(rows[0]), "seconds")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{path} is not a readable history.csv in <task>/<label>/seed<k>/ ({error})"
        ) from error
    return {"task": task, "network": network, "seed": seed, **columns}


def _progress(row: dict[str, str]) -> str:
    """The measure of progress that a history has: of classifiers an error, else mean IU."""
    return "valid_top1_error" if "valid_top1_error" in row else "valid_mean_iu"


class Answers(NamedTuple):
    """What a network of one seed predicts, (N, C, H, W)."""

    seed: int
    values: np.ndarray


def read_predictions(paths: Paths, data: hdf5.Dataset) -> dict[str, Answers]:
    """The predictions for the examples of `data`, of each network's lowest seed.

    Raises:
        UserError: a file is damaged, or its predictions are not for this test set.
    """
    task, shape = data.attributes["task"], data.y.shape
    found: dict[str, Answers] = {}
    for path in paths:
        with _predictions(path) as (of, network, seed, stored):
            if of != task or stored.shape[0] < shape[0] or stored.shape[1:] != shape[1:]:
                raise UserError(f"{path} holds predictions for {of}, not for this {task} test set")
            if network not in found or seed < found[network].seed:
                found[network] = Answers(seed, stored[: shape[0]].astype(np.float32))
    return {network: found[network] for network in in_order(found)}


def read_saliency(paths: Paths) -> dict[str, dict[str, Any]]:
    """The saliency maps of one task, of each network's lowest seed; see `mg.evaluation.attention`.

    Raises:
        UserError: a file is damaged, or they are of several tasks.
    """
    stored: dict[str, dict[str, Any]] = {}
    for path in paths:
        maps = read_maps(path)
        if maps["network"] not in stored or maps["seed"] < stored[maps["network"]]["seed"]:
            stored[maps["network"]] = maps
    tasks = {maps["dataset"] for maps in stored.values()}
    if len(tasks) > 1:
        raise UserError(f"saliency maps of {' and '.join(sorted(tasks))} do not go together")
    return {network: stored[network] for network in in_order(stored)}


def _seeds(shown: Iterable[tuple[str, int]]) -> str:
    """A sentence on the seeds of the shown networks."""
    of: dict[int, set[str]] = {}
    for network, seed in shown:
        of.setdefault(seed, set()).add(network)
    if len(of) == 1:
        return f"Shown: seed {next(iter(of))} of each network. "
    parts = [f"{seed} of {_listed(map(network_name, in_order(of[seed])))}" for seed in sorted(of)]
    return f"Shown: seed {'; '.join(parts)}. " if parts else ""


def _listed(words: Iterable[str], last: str = "and") -> str:
    *before, end = words
    return f"{', '.join(before)} {last} {end}" if before else end


def _controls(networks: Iterable[str], paths: Paths) -> str:
    """`controls_note` of networks; what a label stands for is in run.json beside their files."""
    places = {Path(path).with_name("run.json") for path in paths}
    runs = [read_run(place) for place in sorted(places) if place.exists()]
    known = {run["label"]: run.get("network") for run in runs}
    return controls_note({network: known.get(network) for network in networks})


@contextmanager
def _predictions(path: str | os.PathLike) -> Iterator[tuple[str, str, int, h5py.Dataset]]:
    """Task, network, seed and data set of a predictions.h5."""
    with hdf5.results(path, "a file of predictions; make it again with `mg evaluate`") as file:
        attributes = hdf5.read_attributes(file)
        of, network, seed = (attributes[key] for key in ("dataset", "network", "seed"))
        yield str(of), str(network), int(seed), hdf5.part(file, "prediction")


# ------------------------------------------------------------------------------ panels


WIDTH = 7.0  # inches, a page's text width; panels of few columns are narrower
GAP = 0.035
LARGEST = 0.95  # side of an image


def _grid(
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
    width = max(left + columns * (cell + GAP) - GAP + right, 4.6)
    below = legend + style.note_height(caption, width)
    extra = 0.07 if group > 1 else 0
    height = top + rows * (cell + GAP) + (rows - 1) // group * extra + below
    figure = style.new_figure(width, height)
    axes = np.empty((rows, columns), object)
    for r in range(rows):
        y = height - top - (r + 1) * cell - r * GAP - r // group * extra
        for c in range(columns):
            axes[r, c] = _cell(figure, left + c * (cell + GAP), y, cell)
    style.note(figure, caption)
    return figure, axes


def _cell(figure: Figure, x: float, y: float, side: float) -> Axes:
    """Square frameless axes at `x`, `y` inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, y / height, side / width, side / height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return axes


def _at_least_one(count: int) -> None:
    if count < 1:
        raise UserError(f"{count} examples make no figure; ask for at least one")


def _load(path: str | os.PathLike, count: int, channels: int) -> hdf5.Dataset:
    """The first examples of a test set whose targets have so many channels."""
    data = hdf5.load(path, count=count)
    if data.y.shape[1] != channels:
        raise UserError(
            f"{path} is of {data.attributes['task']}, with {data.y.shape[1]}-channel targets; this "
            f"figure is for {channels}-channel ones"
        )
    return data


def _row_label(axes: Axes, text: str, **settings: Any) -> None:
    axes.text(-0.08, 0.5, text, transform=axes.transAxes, ha="right", va="center", **settings)


def _grey(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)


def digit_colours(y: np.ndarray) -> np.ndarray:
    """Classes (10, H, W), 0 or 1, as colours (H, W, 3) on black; several are averaged."""
    colours = np.array([to_rgb(colour) for colour in style.DIGITS])
    total = np.einsum("chw,cr->hwr", y.astype(float), colours)
    return total / y.sum(0).clip(min=1)[:, :, None]


# On white, so that errors are not taken for digits.
RIGHT, MISSED, ADDED, CONFUSED = "#CFCFCF", style.BLUE, style.ORANGE, style.BLACK
ERRORS = {"right": RIGHT, "missed": MISSED, "added": ADDED, "wrong digit": CONFUSED}


def error_colours(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Right, missed, added and confused pixels of (C, H, W) booleans, as colours (H, W, 3)."""
    missed = (truth & ~predicted).any(0)
    added = (predicted & ~truth).any(0)
    image = np.ones((*missed.shape, 3))
    image[truth.any(0)] = to_rgb(RIGHT)
    image[missed] = to_rgb(MISSED)
    image[added] = to_rgb(ADDED)
    image[missed & added] = to_rgb(CONFUSED)
    return image


def segmentation_panel(
    data_path: str | os.PathLike, prediction_paths: Paths, prefix: str | os.PathLike, count: int = 3
) -> str:
    """The first `count` test examples: input and truth, then each network's classes and errors.

    Args:
        data_path: the test set.
        prediction_paths: predictions.h5 files; of several seeds of a network the lowest is shown.

    Raises:
        UserError: a file is damaged, or not of segmentation.
    """
    _at_least_one(count)
    data = _load(data_path, count, channels=len(style.DIGITS))
    predictions = read_predictions(prediction_paths, data)
    caption = (
        "Segmentation: a network has to say which pixels belong to which digit. The first "
        f"{len(data.x)} test images, whatever they look like. Left column: input and, below it, "
        "the true digits. Other columns: the digits that a network predicts and, below them, its "
        "errors. The number is the pixel IU (intersection over union) of the image: of the pixels "
        "that are a digit in truth or prediction, the share that is right; 1 is perfect. "
        + _seeds((network, answers.seed) for network, answers in predictions.items())
        + _controls(predictions, prediction_paths)
    )
    with style.settings():
        figure, axes = _grid(
            2 * len(data.x),
            1 + len(predictions),
            caption,
            left=0.24,
            right=0.24,
            legend=0.5,
            group=2,
        )
        for axis, name in zip(axes[0], ["", *map(network_name, predictions)], strict=True):
            axis.set_title(name, pad=4)
        for i, (upper, lower) in enumerate(axes.reshape(len(data.x), 2, -1)):
            truth = data.y[i] > 0
            _grey(upper[0], data.x[i, 0])
            lower[0].imshow(digit_colours(truth))
            _name_digits(lower[0], truth)
            for above, below, answers in zip(
                upper[1:], lower[1:], predictions.values(), strict=True
            ):
                predicted = answers.values[i] >= 0.5
                above.imshow(digit_colours(predicted))
                _framed(below, error_colours(predicted, truth))
                _score(below, predicted, truth)
            for axis, text, x in (
                (upper[0], "input", -0.12),
                (lower[0], "truth", -0.12),
                (upper[-1], "predicted", 1.12),
                (lower[-1], "errors", 1.12),
            ):
                axis.text(
                    x,
                    0.5,
                    text,
                    rotation=90,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    transform=axis.transAxes,
                )
        bottom = style.note_height(caption, figure.get_size_inches()[0])
        _legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.33)
        _legend(figure, "errors", ERRORS.items(), bottom + 0.11)
        return style.save(figure, prefix, caption)


def _legend(
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


def _name_digits(axis: Axes, truth: np.ndarray) -> None:
    """Write each digit on its pixels, so that the colours need not be told apart."""
    for digit, pixels in enumerate(truth):
        places = np.argwhere(pixels)
        if len(places):
            y, x = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
            outline = [withStroke(linewidth=1.6, foreground="black")]
            axis.text(
                x,
                y,
                str(digit),
                color="white",
                fontsize=6.5,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=outline,
            )


def _score(axis: Axes, predicted: np.ndarray, truth: np.ndarray) -> None:
    union = (predicted | truth).sum()
    iu = (predicted & truth).sum() / union if union else 1
    axis.text(0.96, 0.96, f"{iu:.2f}", fontsize=6, ha="right", va="top", transform=axis.transAxes)


ALL_AT_ONCE = "spatial_transform"  # the task that combines the others
TRANSFORMED = {
    "rotation": "rotated",
    "affine_transform": "stretched",
    "scaling": "scaled",
    "translation": "moved",
}
HEAD = 0.4  # inches above the examples of a task: its name, and those of the columns


def spatial_panel(
    data_paths: Paths, prediction_paths: Paths, prefix: str | os.PathLike, count: int = 4
) -> str:
    """Test examples of the spatial tasks: input, truth, each network's output.

    As in the paper, all transformations at once are on the left, over the whole height, and beside
    them the first `count` examples of each single one; without either, one block shows the others.
    A task of few networks has several examples abreast.

    Args:
        data_paths: the test sets, one per task.
        prediction_paths: predictions.h5 files of these tasks; of several seeds the lowest is shown.

    Raises:
        UserError: a file is damaged, not of a spatial task, or of a task without a test set.
    """
    _at_least_one(count)
    given = {_load(path, 1, channels=1).attributes["task"]: path for path in data_paths}
    tasks = tasks_in_order(given)
    singles = [task for task in tasks if task != ALL_AT_ONCE]
    beside = ALL_AT_ONCE in tasks and bool(singles)
    paths: dict[str, list] = {task: [] for task in tasks}
    networks: dict[str, set[str]] = {task: set() for task in tasks}
    for path in prediction_paths:
        with _predictions(path) as (task, network, *_):
            if task not in paths:
                raise UserError(
                    f"{path} holds predictions for {task}, which no test set is given for"
                )
            paths[task].append(path)
            networks[task].add(network)
    columns = 2 + max(map(len, networks.values()))
    abreast = {task: columns // (2 + len(networks[task])) for task in tasks}
    blocks = [[ALL_AT_ONCE], singles] if beside else [tasks]
    width, margin, between = WIDTH * (1.5 if beside else 1), 0.06, 0.25
    room = width - 2 * margin - between * (len(blocks) - 1)
    step = min(LARGEST + GAP, room / (columns * len(blocks)))
    sets = {task: hdf5.load(given[task], count=count) for task in (singles or tasks)}
    rows = {task: math.ceil(len(data.x) / abreast[task]) for task, data in sets.items()}
    if beside:
        height = sum(HEAD + rows[task] * step for task in singles)
        most = int((height - HEAD) / step + 1e-6) * abreast[ALL_AT_ONCE]
        sets[ALL_AT_ONCE] = hdf5.load(given[ALL_AT_ONCE], count=most)
        rows[ALL_AT_ONCE] = math.ceil(len(sets[ALL_AT_ONCE].x) / abreast[ALL_AT_ONCE])
    predictions = {task: read_predictions(paths[task], sets[task]) for task in tasks}
    shown = [(n, answers.seed) for of in predictions.values() for n, answers in of.items()]
    alike = all(networks[task] == networks[tasks[0]] for task in tasks)
    caption = (
        "Undoing a transformation. The input is a digit that was "
        f"{_transformed(singles, ALL_AT_ONCE in tasks)}; a network has to output it as it was, in "
        "the centre (truth). The first test images, whatever they look like. Outputs run from 0, "
        "black, to 1, white: grey is doubt, and a blur says that the network cannot tell which "
        "digit it saw, or where. "
        + ("" if alike else "A network stands only where it was run. ")
        + _seeds(shown)
        + _controls([network for network, _ in shown], prediction_paths)
    )
    width = max(2 * margin + between * (len(blocks) - 1) + columns * len(blocks) * step, 4.6)
    height = max(sum(HEAD + rows[task] * step for task in block) for block in blocks)
    height += style.note_height(caption, width)
    with style.settings():
        figure = style.new_figure(width, height)
        for k, block in enumerate(blocks):
            left, top = margin + k * (columns * step + between), height
            for task in block:
                place = (left / width, (top - 0.1) / height)
                figure.text(*place, task_name(task), fontsize=8.5, fontweight="bold", va="top")
                top -= HEAD
                apart = columns // abreast[task] * step
                for i in range(len(sets[task].x)):
                    row, aside = divmod(i, abreast[task])
                    corner = (left + aside * apart, top - (row + 1) * step + GAP)
                    axes = _example(figure, corner, step, i, sets[task], predictions[task])
                    if row == 0:
                        titles = ("input", "truth", *map(network_name, predictions[task]))
                        for axis, title in zip(axes, titles, strict=True):
                            axis.set_title(title, pad=2.5, fontsize=7.5)
                top -= rows[task] * step
        style.note(figure, caption)
        return style.save(figure, prefix, caption)


def _example(
    figure: Figure,
    corner: tuple[float, float],
    step: float,
    i: int,
    data: hdf5.Dataset,
    predictions: dict[str, Answers],
) -> list[Axes]:
    """Draw example `i` in a row, `step` inches apart: input, truth, and what each network says."""
    images = [
        data.x[i, 0],
        data.y[i, 0],
        *(answers.values[i, 0] for answers in predictions.values()),
    ]
    axes = [_cell(figure, corner[0] + k * step, corner[1], step - GAP) for k in range(len(images))]
    for axis, image in zip(axes, images, strict=True):
        _grey(axis, image)
    return axes


def _transformed(singles: Sequence[str], all_at_once: bool) -> str:
    """What was done to a digit in the tasks shown."""
    one = _listed((TRANSFORMED.get(task, "changed") for task in singles), "or") if singles else ""
    if not all_at_once:
        return one
    together = f"{_listed(TRANSFORMED.values())} at once"
    return f"{together} (left), or only {one} (right)" if one else together


def _absent(axis: Axes, text: str) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.add_patch(Rectangle((0, 0), 1, 1, fc="#F2F2F2", ec="none"))
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=6, color=style.GREY)


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
        UserError: a file is damaged, or they are of several tasks.
    """
    _at_least_one(count)
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
    window, stride = (stored[networks[0]][key] for key in ("window", "stride"))
    caption = (
        f"Where the outputs come from ({task_name(task).lower()}). Each map shows, in the "
        "colour of a point marked on the output, the parts of the input that change the output "
        f"there when {window}×{window} pixels of noise cover them (moved in steps of {stride}): "
        "the more saturated, the more, in ten levels by rank. An empty map: the output there does "
        "not change by 0.1 wherever the noise is. Colours on the digit, wherever it lies, say that "
        "the output follows it; colours elsewhere, that noise on empty places disturbs it. "
        f"{_measured(stored)}Input and output are drawn inverted. The first test images for which "
        "most networks give an output to ask about, that is one with pixels above 0.4. "
        + _seeds((network, maps["seed"]) for network, maps in stored.items())
        + _controls(networks, saliency_paths)
    )
    with style.settings():
        rows = [(i, network) for i in indices for network in networks] or [(None, networks[0])]
        figure, axes = _grid(
            len(rows), len(names), caption, left=0.55, group=len(networks) if indices else 1
        )
        for axis, name in zip(axes[0], names, strict=True):
            axis.set_title(name, fontsize=7, pad=4)
        for (index, network), row in zip(rows, axes, strict=True):
            _row_label(row[0], network_name(network), fontsize=8)
            k = places[network].get(index)
            if k is not None:
                _saliency_row(row, {name: stored[network][name][k] for name in _MAPS})
                continue
            asked = index is None or index in stored[network]["skipped"]
            _absent(row[1], "none above\n0.4" if asked else "no map\nmade")
            for other, place in places.items():  # the same test set
                if index in place:
                    _framed(row[0], 1 - stored[other]["input"][place[index], 0])
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
    _framed(row[0], 1 - image)
    _framed(row[1], 1 - maps["output"][0])
    for (y, x), hue in zip(maps["points"], HUES, strict=True):
        colour = hsv_to_rgb((hue, 1, 0.9))
        row[1].plot(x, y, "s", ms=3, mfc=colour, mec="black", mew=0.4)
    for axis, attention, hue in zip(row[2:], maps["map"], HUES, strict=True):
        _framed(axis, saliency_image(attention, image, hue))


def _framed(axis: Axes, image: np.ndarray) -> None:
    """Draw an image of light background."""
    _grey(axis, image)
    axis.spines[:].set(visible=True, color=style.PALE, linewidth=0.6)


def dataset_sheet(data_paths: Paths, prefix: str | os.PathLike, count: int = 8) -> str:
    """The first `count` examples of each file: inputs above, targets below."""
    _at_least_one(count)
    loaded = [hdf5.load(path, count=count) for path in data_paths]
    for path, data in zip(data_paths, loaded, strict=True):
        check_channels(data.attributes["task"], data.x.shape[1], data.y.shape[1], path)
    by_task = {data.attributes["task"]: data for data in loaded}
    sets = [by_task[task] for task in tasks_in_order(by_task)]
    columns = max(len(data.x) for data in sets)
    coloured = any(data.y.shape[1] > 1 for data in sets)
    splits = " or ".join(sorted({data.attributes["split"] for data in sets}))
    caption = (
        f"The data, cluttered MNIST: the first {columns} examples of each task's {splits} set, "
        "input above target. Segmentation targets have one channel per digit; every other task "
        "asks for the untouched digit in the middle."
    )
    with style.settings():
        figure, axes = _grid(
            2 * len(sets), columns, caption, left=0.82, top=0.06, legend=0.26 * coloured, group=2
        )
        width = figure.get_size_inches()[0]
        for axis in axes.flat:
            axis.set_visible(False)
        for data, (upper, lower) in zip(sets, axes.reshape(-1, 2, columns), strict=True):
            for axis, x in zip(upper, data.x, strict=False):
                axis.set_visible(True)
                _grey(axis, x[0])
            for axis, y in zip(lower, data.y, strict=False):
                axis.set_visible(True)
                if len(y) > 1:
                    axis.imshow(digit_colours(y))
                else:
                    _grey(axis, y[0])
            _row_label(upper[0], "input", fontsize=7.5)
            _row_label(lower[0], "target", fontsize=7.5)
            name = task_name(data.attributes["task"]).replace(" ", "\n")
            middle = (upper[0].get_position().y0 + lower[0].get_position().y1) / 2
            figure.text(
                0.26 / width,
                middle,
                name,
                rotation=90,
                ha="center",
                va="center",
                fontsize=8,
                linespacing=1.2,
            )
        if coloured:
            bottom = style.note_height(caption, width)
            _legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.1, x=0.82)
        return style.save(figure, prefix, caption)


def prediction_sheet(path: str | os.PathLike, prefix: str | os.PathLike, count: int = 8) -> str:
    """The first `count` outputs in a predictions.h5: classes as colours, or the one channel."""
    _at_least_one(count)
    with _predictions(path) as (task, network, seed, stored):
        outputs = stored[:count].astype(np.float32)
    coloured = outputs.shape[1] > 1
    caption = (
        f"{task_name(task)}: the first {len(outputs)} outputs of {network_name(network)}, seed "
        f"{seed}{'; pixels with an output of at least 0.5' if coloured else ''}. "
        + _controls([network], [path])
    )
    columns = min(8, len(outputs))
    rows = math.ceil(len(outputs) / columns)
    with style.settings():
        figure, axes = _grid(rows, columns, caption, top=0.06, legend=0.26 * coloured)
        for axis in axes.flat[len(outputs) :]:
            axis.set_visible(False)
        for axis, output in zip(axes.flat, outputs, strict=False):
            if coloured:
                axis.imshow(digit_colours(output >= 0.5))
            else:
                _grey(axis, output[0])
        if coloured:
            bottom = style.note_height(caption, figure.get_size_inches()[0])
            _legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.1)
        return style.save(figure, prefix, caption)


def image_sheet(path: str | os.PathLike, prefix: str | os.PathLike, count: int = 24) -> str:
    """`count` images of a classifier's data set, evenly spread over it, each with its class.

    They are drawn as they lie in the file, before they are prepared for a network; photographs
    are cut to a square at the centre.
    """
    from mg.data.imagenet import Photographs, decode  # PyTorch; other figures do without

    _at_least_one(count)
    with hdf5.results(path, "a data set of images; make it again with `mg prepare`") as file:
        listed = hdf5.read_attributes(file)["format"] == hdf5.FILES.format
    data = hdf5.load(path, layout=hdf5.FILES if listed else hdf5.IMAGES)
    numbers = _spread(len(data.x), count)
    classes = data.attributes["classes"]
    name = task_name(data.attributes["task"], _are_digits(classes))
    caption = (
        f"{name}: {len(numbers)} of the {len(data.x):,} images of the "
        f"{data.attributes['split']} set, evenly spread over it, with their classes."
    )
    photographs = Photographs(data, training=False) if listed else None
    with style.settings():
        figure, axes = _cells(len(numbers), caption)
        for axis, number in zip(axes, numbers, strict=True):
            if photographs is None:
                axis.imshow(data.x[number].transpose(1, 2, 0))
            else:
                try:
                    image = decode(photographs.path(number))
                    square = ImageOps.fit(image, (data.attributes["canvas"],) * 2)
                    axis.imshow(np.asarray(square))
                except UserError:
                    _absent(axis, "unreadable")
            axis.text(
                0.5,
                0.02,
                _shortened(classes[data.y[number]]),
                fontsize=5.5,
                ha="center",
                va="bottom",
                transform=axis.transAxes,
                bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8},
            )
        return style.save(figure, prefix, caption)


def probability_sheet(path: str | os.PathLike, prefix: str | os.PathLike, count: int = 24) -> str:
    """The five most probable classes of `count` images in a classifier's predictions.h5.

    They are the images that `image_sheet` shows of the same test set.
    """
    _at_least_one(count)
    with _predictions(path) as (task, network, seed, stored):
        numbers = _spread(len(stored), count)
        rows = stored[numbers].astype(np.float32)
        classes = hdf5.read_attributes(stored.file)["classes"]
        names = [_shortened(str(name)) for name in classes]
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise ValueError(f"{rows.shape} are no probabilities of {len(names)} classes")
    caption = (
        f"{task_name(task, _are_digits(names))}: the most probable classes of {len(rows)} test "
        f"images, evenly spread, by {network_name(network)}, seed {seed}; a full bar is certainty. "
        "Number: of the image."
    )
    with style.settings():
        figure, axes = _cells(len(rows), caption)
        for axis, number, row in zip(axes, numbers, rows, strict=True):
            if np.isnan(row).any():
                _absent(axis, "unreadable")
                continue
            best = np.argsort(-row, kind="stable")[:5]
            axis.set(xlim=(0, 1), ylim=(6, -1))
            axis.add_patch(Rectangle((0, -1), 1, 7, fc="#F7F7F7", ec="none"))
            axis.text(0.03, -0.4, str(number), fontsize=5, color=style.GREY, va="center")
            for place, which in enumerate(best, 0):
                axis.barh(place + 0.7, row[which], height=0.9, color=style.SKY)
                axis.text(0.03, place + 0.7, names[which], fontsize=5.5, va="center")
        return style.save(figure, prefix, caption)


def _are_digits(classes: Sequence[str]) -> bool:
    """Whether classes are those of MNIST's digits in CIFAR's format (see `mg.data.cifar`)."""
    return classes[0] == "digit 0"


def _spread(number: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `number`, evenly spread."""
    count = min(number, count)
    return [i * number // count for i in range(count)]


def _shortened(name: str) -> str:
    """The first of a class's names, short enough for a small image."""
    name = name.split(",")[0]
    return name if len(name) <= 16 else f"{name[:15]}…"


def _cells(number: int, caption: str) -> tuple[Figure, list[Axes]]:
    """`number` small square axes in rows of eight."""
    columns = min(8, number)
    figure, axes = _grid(math.ceil(number / columns), columns, caption, top=0.06)
    for axis in axes.flat[number:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:number])


# ------------------------------------------------------------------------------ curves


def learning_curves(history_paths: Paths, prefix: str | os.PathLike, digits: bool = False) -> str:
    """Loss and validation mean IU against training images seen; one row of panels per task.

    Lines are means over seeds, bands reach one standard deviation to either side.

    Args:
        history_paths: history.csv files in .../<task>/<label>/seed<k>/.
        digits: CIFAR's images are MNIST's digits in its format.
    """
    histories = [read_history(path) for path in history_paths]
    if not histories:
        raise UserError("no history.csv was given; learning curves need at least one")
    tasks = tasks_in_order(h["task"] for h in histories)
    panels = {
        "train_loss": "training loss (nats)",
        "valid_loss": "validation loss (nats)",
        "valid_mean_iu": "validation mean IU",
        "valid_top1_error": "validation top-1 error",
    }
    panels = {
        key: title
        for key, title in panels.items()
        if any(np.isfinite(h[key]).any() for h in histories if key in h)
    }
    looks = style.looks(h["network"] for h in histories)
    runs = {
        (task, network): [h for h in histories if (h["task"], h["network"]) == (task, network)]
        for task in tasks
        for network in looks
    }
    explained = (
        "Loss: cross-entropy per image, lower is better. Top-1 error: share of images whose class "
        "is not ranked first, lower is better. "
        if any("valid_top1_error" in h for h in histories)
        else "Loss: binary cross-entropy per pixel, lower is better. Mean IU (intersection over "
        "union): share of the pixels on in truth or prediction that are right, mean over classes, "
        "higher is better. "
    )
    caption = (
        "Learning curves: how fast a network learns from the images it has seen. "
        "Validation: on images that it was not trained on. "
        + explained
        + _seeds_of_lines(runs)
        + _controls(looks, history_paths)
    )
    with style.settings():
        figure, axes = _plots(
            *(len(tasks), len(panels), 1.65, 1.35, caption),
            gap=0.5,
            right=0.95 * _legend_columns(looks),
            above=0.42,
        )
        for task, row in zip(tasks, axes, strict=True):
            for axis, (key, title) in zip(row, panels.items(), strict=True):
                for network, look in looks.items():
                    _curve(axis, look, [h for h in runs[task, network] if key in h], key)
                axis.set_xlabel("images seen (thousands)")
                if not key.endswith("loss"):
                    axis.set_ylim(0, None)
                elif _log_scale(axis):
                    title = title.replace(")", ", log axis)")
                axis.set_title(title, fontsize=8)
            _heading(row[0], task_name(task, digits), above=17)
        _network_legend(axes[0, -1], looks)
        return style.save(figure, prefix, caption)


def _plots(
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


def _heading(axis: Axes, text: str, above: float = 6) -> None:
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


def _log_scale(axis: Axes) -> bool:
    """Logarithmic with plain numbers at 1, 2 and 5, where the values span a range worth it."""
    low, high = axis.dataLim.intervaly
    if not high > 4 * low > 0:
        return False
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    return True


def _seeds_of_lines(runs: dict[tuple[str, str], list]) -> str:
    """Over how many seeds lines are means; `runs` by task and network."""
    seeds = {key: len(of) for key, of in runs.items() if of}
    numbers = sorted(set(seeds.values()), reverse=True)
    if numbers == [1]:
        return "One seed per network: the spread is not known. "
    band = "bands: one standard deviation to either side. "
    if len(numbers) == 1:
        return f"Lines: means over {numbers[0]} seeds; {band}"
    parts = []
    for task in tasks_in_order(task for task, _ in seeds):
        of: dict[int, list[str]] = {}
        for network in in_order(n for t, n in seeds if t == task):
            of.setdefault(seeds[task, network], []).append(network_name(network))
        most = max(of, key=lambda number: len(of[number]))
        if [*of] != [1]:
            others = [f", {_listed(of[number])} {number}" for number in of if number != most]
            parts.append(f"{task_name(task)} {most}{''.join(others)}")
    alone = "; else one seed" if len(parts) < len({task for task, _ in seeds}) else ""
    return f"Lines: means over seeds ({'; '.join(parts)}{alone}); {band}"


def _curve(axis: Axes, look: style.Look, runs: Sequence[dict[str, Any]], key: str) -> None:
    if not runs:
        return
    length = min(len(run[key]) for run in runs)
    values = np.stack([run[key][:length] for run in runs])
    if not np.isfinite(values).any():
        return
    images = runs[0]["images"][:length] / 1000
    mean = values.mean(axis=0)
    marks = {"marker": look.marker, "markevery": (0.05, 0.25), "ms": 4, "mec": "white", "mew": 0.4}
    axis.plot(images, mean, color=look.colour, ls=look.line, **marks)
    if len(runs) > 1:
        sd = values.std(axis=0, ddof=1)
        axis.fill_between(images, mean - sd, mean + sd, color=look.colour, alpha=0.18, lw=0)


def _legend_columns(looks: dict[str, style.Look]) -> int:
    """How many a legend needs: beside the lowest figure there is room for ten names."""
    return math.ceil(len(looks) / 10)


def _network_legend(axis: Axes, looks: dict[str, style.Look]) -> None:
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
        ncols=_legend_columns(looks),
        columnspacing=1,
        handlelength=2.4,
        borderaxespad=0,
    )


# ------------------------------------------------------------------------------ results


def quality_against_cost(metrics_paths: Paths, prefix: str | os.PathLike) -> str:
    """Mean IU against multiply-adds and against training time; one row of panels per task."""
    summaries = summarise(read_metrics(metrics_paths))
    looks = style.looks(s.network for s in summaries)
    summaries = [s for s in summaries if s.mean("mean_iu") is not None]
    if not summaries:
        raise UserError("no metrics.json with a mean IU was given; this figure needs one at least")
    tasks = tasks_in_order(s.dataset for s in summaries)
    seconds = [s.mean("train_seconds") or 0 for s in summaries]
    unit, per = ("hours", 3600) if max(seconds) >= 7200 else ("minutes", 60)
    devices = sorted({r["device"] for s in summaries for r in s.records if r["device"]})
    several = max(len(s.records) for s in summaries) > 1
    caption = (
        "Quality against cost; the upper left corner is best. Mean IU (intersection over union, "
        "1 is perfect) on the test set, against the multiply-adds of one forward pass, and against "
        f"the time of the training (on {' and '.join(devices) or 'an unknown device'}). "
        + (
            "Bars: one standard deviation over seeds to either side. "
            if several
            else "One seed per network: the spread is not known. "
        )
        + controls_note(architectures(summaries))
    )
    with style.settings():
        figure, axes = _plots(len(tasks), 2, 3.05, 1.7, caption, gap=0.25)
        for task, (left, right) in zip(tasks, axes, strict=True):
            shown = [s for s in summaries if s.dataset == task]
            right.sharey(left)
            right.tick_params(labelleft=False)
            macs = [s.same("macs") and s.same("macs") / 1e6 for s in shown]
            _points(left, shown, macs, looks)
            times = [s.mean("train_seconds") for s in shown]
            _points(right, shown, [time and time / per for time in times], looks)
            left.set(xlabel="multiply-adds per image (millions)", ylabel="mean IU")
            right.set(xlabel=f"training time ({unit})")
            _heading(left, task_name(task))
        return style.save(figure, prefix, caption)


def _points(
    axis: Axes,
    summaries: Sequence[Summary],
    costs: Sequence[float | None],
    looks: dict[str, style.Look],
) -> None:
    """A marker per network at its cost and mean IU, with its name where there is room."""
    places = [
        (x, s.mean("mean_iu"), s) for x, s in zip(costs, summaries, strict=True) if x is not None
    ]
    for x, y, s in places:
        look = looks[s.network]
        axis.errorbar(
            x,
            y,
            yerr=s.sd("mean_iu"),
            color=look.colour,
            marker=look.marker,
            ms=6.5,
            capsize=2.5,
            elinewidth=1,
            mec="white",
            mew=0.6,
        )
    if not places:
        return
    axis.set_xlim(0, 1.2 * max(x for x, _, _ in places))
    axis.margins(y=0.2)
    axis.set_ylim(max(axis.get_ylim()[0], -0.05 * max(y for _, y, _ in places)), None)
    axis.figure.canvas.draw()  # fixes the transformation from data to points
    taken = [axis.transData.transform((x, y)) for x, y, _ in places]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in taken]
    for x, y, s in places:
        name = network_name(s.network)
        px, py = axis.transData.transform((x, y))
        boxes = [
            (px + dx - len(name) * 6.5 * (dx < 0), py + dy - 5, dx, dy)
            for dx, dy in ((8, 8), (8, -8), (-8, 8), (-8, -8), (8, 20), (8, -20), (8, 32))
        ]
        boxes = [(bx, by, bx + len(name) * 6.5, by + 10, dx, dy) for bx, by, dx, dy in boxes]
        free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
        box = (free or boxes)[0]
        taken.append(box[:4])
        axis.annotate(
            name,
            (x, y),
            xytext=(box[4] * 0.72, box[5] * 0.72),  # pixels of 100 dpi to points
            textcoords="offset points",
            fontsize=7.5,
            color="#222222",
            ha="left" if box[4] > 0 else "right",
            va="center",
        )


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def per_class_iu(metrics_paths: Paths, prefix: str | os.PathLike) -> str:
    """Segmentation IU of each digit and network; bars over seeds."""
    summaries = summarise(read_metrics(metrics_paths))
    looks = style.looks(s.network for s in summaries)
    summaries = [s for s in summaries if s.dataset == "segmentation"]
    if not summaries:
        raise UserError("no metrics.json of the segmentation task was given; this figure needs one")
    several = max(len(s.records) for s in summaries) > 1
    caption = (
        "Which digits are hard. Segmentation: intersection over union of each digit over the whole "
        "test set: of the pixels that are this digit in truth or prediction, the share that is "
        "right (1 is perfect). "
        + (
            "Means over seeds; bars: one standard deviation to either side. "
            if several
            else "One seed per network: the spread is not known. "
        )
        + controls_note(architectures(summaries))
    )
    with style.settings():
        shown = {s.network: looks[s.network] for s in summaries}
        right = 1.05 * _legend_columns(shown)
        figure, [[axis]] = _plots(1, 1, 5.4, 1.8, caption, gap=0, right=right)
        step = 0.8 / len(summaries)
        for k, s in enumerate(summaries):
            look = looks[s.network]
            values = np.array([r["per_class_iu"] for r in s.records], float)  # None becomes NaN
            x = np.arange(values.shape[1]) + (k - (len(summaries) - 1) / 2) * step
            sd = values.std(axis=0, ddof=1) if len(values) > 1 else None
            axis.errorbar(
                x,
                values.mean(axis=0),
                yerr=sd,
                color=look.colour,
                marker=look.marker,
                ls="none",
                clip_on=False,
                ms=5,
                elinewidth=1,
                mec="white",
                mew=0.4,
            )
        classes = values.shape[1]
        axis.set(xlabel="digit", ylabel="IU", xticks=range(classes), xlim=(-0.5, classes - 0.5))
        axis.set_ylim(0, None)
        axis.grid(axis="x", visible=False)
        for edge in np.arange(classes - 1) + 0.5:
            axis.axvline(edge, color="#E6E6E6", lw=0.6)
        _heading(axis, task_name("segmentation"))
        _network_legend(axis, shown)
        return style.save(figure, prefix, caption)
