"""A page to explore a run: task, example and point; every network's answer and its saliency map.

The page needs nothing but itself. Its images are arrays of bytes, deflated, in base64;
`templates/explorer.js` unpacks and draws them.
"""

import base64
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mg.data import hdf5
from mg.data.tasks import resolve_task
from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES
from mg.files import write_text
from mg.report import render, style
from mg.report.figures.reading import Paths, read_predictions, read_saliency, sets_by_task
from mg.report.figures.saliency import HUES, LEVELS, saliency_levels
from mg.report.figures.segmentation import ERRORS
from mg.report.names import in_order, network_name, task_name, tasks_in_order


def write_explorer(
    data_paths: Paths,
    prediction_paths: Paths,
    output: str | os.PathLike,
    *,
    saliency_paths: Paths = (),
    count: int = 24,
    run: str | None = None,
) -> None:
    """Write the page: the first `count` test examples of each task, and those with saliency maps.

    Args:
        data_paths: the test sets, one per task.
        prediction_paths: predictions.h5 files; of several seeds of a network the lowest is shown.
        output: the page.
        saliency_paths: saliency.h5 files.
        run: name of the configuration.

    Raises:
        UserError: a file is damaged, predictions or maps belong to none of the test sets, or maps
            are of other inputs.
    """
    if count < 1 or not data_paths:
        raise UserError("the explorer needs at least one test set (--data) and one example")
    sets = sets_by_task(data_paths)
    predictions = _by_task(prediction_paths, sets)
    maps = _by_task(saliency_paths, sets)
    tasks = [
        _explorable(sets[task], predictions[task], maps[task], count)
        for task in tasks_in_order(sets)
    ]
    networks = in_order({label for task in tasks for label in task["networks"]})
    content = {
        "tasks": tasks,
        "networks": [{"label": label, "name": network_name(label)} for label in networks],
        "points": [
            {"name": name, "hue": round(360 * hue)}
            for name, hue in zip(POINT_NAMES, HUES, strict=True)
        ],
        "levels": LEVELS,
        "digits": style.DIGITS,
        "errors": list(ERRORS.items()),
    }
    title = f"Explore run {run}" if run else "Explore a run"
    write_text(output, render.fill("explorer.html", title=title, content=content))


def _by_task(paths: Paths, sets: dict[str, Any]) -> dict[str, list]:
    """Files of predictions or maps by the task that their attributes name."""
    found: dict[str, list] = {task: [] for task in sets}
    for path in paths:
        with hdf5.results(path, "a file of predictions or maps; make it again") as file:
            task = hdf5.read_attributes(file)["dataset"]
        if task not in found:
            raise UserError(f"{path} is of {task}, which no test set is given for")
        found[task].append(path)
    return found


def _explorable(
    data_path: str | os.PathLike, prediction_paths: Paths, saliency_paths: Paths, count: int
) -> dict[str, Any]:
    """One task as the page's script reads it."""
    maps = read_saliency(saliency_paths)
    used = sorted({int(i) for stored in maps.values() for i in stored["index"]})
    data = hdf5.load(data_path, count=max([count, *(i + 1 for i in used)]))
    for label, stored in maps.items():
        if not _are_of(stored, data.x):
            raise UserError(
                f"the saliency maps of {label} are not of the inputs in {data_path}; give the test "
                "set that they were made of, or make them again with `mg saliency`"
            )
    predictions = read_predictions(prediction_paths, data)
    shown = sorted({*range(min(count, len(data.x))), *used})
    networks = {}
    for label in in_order([*predictions, *maps]):
        answers = predictions.get(label)
        networks[label] = {
            "output": _packed(_bytes(answers.values[shown])) if answers else None,
            "maps": _maps(maps[label], shown) if label in maps else None,
        }
    return {
        "name": task_name(resolve_task(data.attributes["task"])),
        "height": data.x.shape[2],
        "width": data.x.shape[3],
        "channels": data.y.shape[1],
        "index": shown,
        "input": _packed(_bytes(data.x[shown])),
        "truth": _packed(_bytes(data.y[shown])),
        "networks": networks,
    }


def _are_of(maps: dict[str, Any], x: np.ndarray) -> bool:
    """Whether maps were made of the inputs `x` (N, 1, H, W), those that their indices name."""
    index = maps["index"]
    within = ((index >= 0) & (index < len(x))).all()
    return bool(within) and np.array_equal(maps["input"], x[index])


def _maps(stored: dict[str, Any], shown: Sequence[int]) -> dict[str, Any]:
    """Points (K, 7, 2) as (y, x) and levels (K, 7, H, W) of K examples, given by their place."""
    levels = np.zeros(stored["map"].shape, np.uint8)
    for place in np.ndindex(levels.shape[:2]):
        levels[place] = saliency_levels(stored["map"][place])
    skipped = [int(i) for i in stored["skipped"]]
    return {
        "places": [shown.index(int(i)) for i in stored["index"]],
        "skipped": [place for place, i in enumerate(shown) if i in skipped],
        "points": stored["points"].tolist(),
        "levels": _packed(levels),
        "window": int(stored["window"]),
        "stride": int(stored["stride"]),
    }


def _bytes(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as bytes; at least 128 exactly where the value is at least 0.5."""
    return np.floor(np.asarray(values, np.float32) * 255 + 0.5).astype(np.uint8)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
