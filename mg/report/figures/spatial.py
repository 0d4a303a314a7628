"""What networks answer to transformed digits."""

import math
import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mg.data import hdf5
from mg.errors import UserError
from mg.report import style
from mg.report.figures.captions import controls_of, listed, seeds_note
from mg.report.figures.panels import (
    GAP,
    LARGEST,
    WIDTH,
    check_count,
    draw_grey,
    load_examples,
    square,
)
from mg.report.figures.reading import (
    Answers,
    Paths,
    open_predictions,
    read_predictions,
    sets_by_task,
)
from mg.report.names import network_name, task_name, tasks_in_order

TRANSFORMED = {
    "rotation": "rotated",
    "affine_transform": "stretched",
    "scaling": "scaled",
    "translation": "moved",
}
ALL_AT_ONCE = "spatial_transform"  # the task that combines these
COMBINED = ("rotation", "affine_transform", "scaling", "translation")
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
    check_count(count)
    given = sets_by_task(data_paths)
    for path in given.values():
        load_examples(path, 1, channels=1)  # refuses those of digits told apart
    tasks = tasks_in_order(given)
    singles = [task for task in tasks if task != ALL_AT_ONCE]
    beside = ALL_AT_ONCE in tasks and bool(singles)
    paths: dict[str, list] = {task: [] for task in tasks}
    networks: dict[str, set[str]] = {task: set() for task in tasks}
    for path in prediction_paths:
        with open_predictions(path) as (task, network, *_):
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
        + seeds_note(shown)
        + controls_of([network for network, _ in shown], prediction_paths)
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
    axes = [square(figure, corner[0] + k * step, corner[1], step - GAP) for k in range(len(images))]
    for axis, image in zip(axes, images, strict=True):
        draw_grey(axis, image)
    return axes


def _transformed(singles: Sequence[str], all_at_once: bool) -> str:
    """What was done to a digit in the tasks shown."""
    one = listed((TRANSFORMED.get(task, "changed") for task in singles), "or") if singles else ""
    if not all_at_once:
        return one
    together = f"{listed(TRANSFORMED[task] for task in COMBINED)} at once"
    return f"{together} (left), or only {one} (right)" if one else together
