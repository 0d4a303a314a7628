"""The first examples of a file: data sets, predictions, images with their classes."""

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import ImageOps

from mg.data import hdf5
from mg.errors import UserError
from mg.networks import check_channels
from mg.report import style
from mg.report.figures.captions import controls_of
from mg.report.figures.panels import (
    check_count,
    colour_legend,
    digit_colours,
    draw_absent,
    draw_grey,
    grid,
    label_row,
)
from mg.report.figures.reading import Paths, open_predictions, sets_by_task
from mg.report.names import network_name, task_name, tasks_in_order


def dataset_sheet(data_paths: Paths, prefix: str | os.PathLike, count: int = 8) -> str:
    """The first `count` examples of each file: inputs above, targets below."""
    check_count(count)
    paths = sets_by_task(data_paths)
    sets = {task: hdf5.load(paths[task], count=count) for task in tasks_in_order(paths)}
    for task, data in sets.items():
        check_channels(task, data.x.shape[1], data.y.shape[1], paths[task])
    columns = max(len(data.x) for data in sets.values())
    coloured = any(data.y.shape[1] > 1 for data in sets.values())
    splits = " or ".join(sorted({data.attributes["split"] for data in sets.values()}))
    caption = (
        f"The data, cluttered MNIST: the first {columns} examples of each task's {splits} set, "
        "input above target. Segmentation targets have one channel per digit; every other task "
        "asks for the untouched digit in the middle."
    )
    with style.settings():
        figure, axes = grid(
            2 * len(sets), columns, caption, left=0.82, top=0.06, legend=0.26 * coloured, group=2
        )
        width = figure.get_size_inches()[0]
        for axis in axes.flat:
            axis.set_visible(False)
        pairs = zip(sets.items(), axes.reshape(-1, 2, columns), strict=True)
        for (task, data), (upper, lower) in pairs:
            for axis, x in zip(upper, data.x, strict=False):
                axis.set_visible(True)
                draw_grey(axis, x[0])
            for axis, y in zip(lower, data.y, strict=False):
                axis.set_visible(True)
                if len(y) > 1:
                    axis.imshow(digit_colours(y))
                else:
                    draw_grey(axis, y[0])
            label_row(upper[0], "input", fontsize=7.5)
            label_row(lower[0], "target", fontsize=7.5)
            name = task_name(task).replace(" ", "\n")
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
            colour_legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.1, x=0.82)
        return style.save(figure, prefix, caption)


def prediction_sheet(path: str | os.PathLike, prefix: str | os.PathLike, count: int = 8) -> str:
    """The first `count` outputs in a predictions.h5: classes as colours, or the one channel."""
    check_count(count)
    with open_predictions(path) as (task, network, seed, stored):
        outputs = stored[:count].astype(np.float32)
    coloured = outputs.shape[1] > 1
    caption = (
        f"{task_name(task)}: the first {len(outputs)} outputs of {network_name(network)}, seed "
        f"{seed}{'; pixels with an output of at least 0.5' if coloured else ''}. "
        + controls_of([network], [path])
    )
    columns = min(8, len(outputs))
    rows = math.ceil(len(outputs) / columns)
    with style.settings():
        figure, axes = grid(rows, columns, caption, top=0.06, legend=0.26 * coloured)
        for axis in axes.flat[len(outputs) :]:
            axis.set_visible(False)
        for axis, output in zip(axes.flat, outputs, strict=False):
            if coloured:
                axis.imshow(digit_colours(output >= 0.5))
            else:
                draw_grey(axis, output[0])
        if coloured:
            bottom = style.note_height(caption, figure.get_size_inches()[0])
            colour_legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.1)
        return style.save(figure, prefix, caption)


def image_sheet(path: str | os.PathLike, prefix: str | os.PathLike, count: int = 24) -> str:
    """`count` images of a classifier's data set, evenly spread over it, each with its class.

    They are drawn as they lie in the file, before they are prepared for a network; photographs
    are cut to a square at the centre.
    """
    from mg.data.imagenet_preparation import Photographs, decode  # PyTorch; others do without

    check_count(count)
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
                    draw_absent(axis, "unreadable")
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
    check_count(count)
    with open_predictions(path) as (task, network, seed, stored):
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
                draw_absent(axis, "unreadable")
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
    name = name.split(",")[0].encode(errors="surrogateescape").decode(errors="replace")
    return name if len(name) <= 16 else f"{name[:15]}…"


def _cells(number: int, caption: str) -> tuple[Figure, list[Axes]]:
    """`number` small square axes in rows of eight."""
    columns = min(8, number)
    figure, axes = grid(math.ceil(number / columns), columns, caption, top=0.06)
    for axis in axes.flat[number:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:number])
