"""Learning curves."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mg.errors import UserError
from mg.records import EachOnce
from mg.report import style
from mg.report.figures.captions import controls_of, listed
from mg.report.figures.plots import heading, legend_columns, name_networks, plots
from mg.report.figures.reading import Paths, read_history
from mg.report.names import in_order, network_name, task_name, tasks_in_order


def learning_curves(history_paths: Paths, prefix: str | os.PathLike, digits: bool = False) -> str:
    """Loss, and mean IU or error on the validation set, against training images seen.

    One row of panels per task.

    Lines are means over seeds, bands reach from the lowest seed to the highest.

    Args:
        history_paths: history.csv files in .../<task>/<label>/seed<k>/.
        digits: CIFAR's images are MNIST's digits in its format.

    Raises:
        UserError: there are none, one is damaged, or two are of the same run.
    """
    histories, once = [], EachOnce()
    for path in history_paths:
        histories.append(read_history(path))
        once(path, *(histories[-1][key] for key in ("task", "network", "seed")))
    if not histories:
        raise UserError("no history.csv was given; learning curves need at least one")
    tasks = tasks_in_order(h["task"] for h in histories)
    panels = {
        "train_loss": "training loss (nats)",
        "valid_loss": "validation loss (nats)",
        "valid_mean_iu": "validation mean IU",
        "valid_top1_error": "validation top-1 error (share)",
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
        "union): of the pixels set in truth or prediction the share set in both, mean over "
        "classes, higher is better. "
    )
    caption = (
        "Learning curves: how fast a network learns from the images it has seen. "
        "Validation: on images that it was not trained on. "
        + explained
        + _seeds_of_lines(runs)
        + controls_of(looks, history_paths)
    )
    with style.settings():
        figure, axes = plots(
            *(len(tasks), len(panels), 1.65, 1.35, caption),
            gap=0.5,
            right=0.95 * legend_columns(looks),
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
            heading(row[0], task_name(task, digits), above=17)
        name_networks(axes[0, -1], looks)
        return style.save(figure, prefix, caption)


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
    band = "bands: from the lowest seed to the highest. "
    if len(numbers) == 1:
        return f"Lines: means over {numbers[0]} seeds; {band}"
    parts = []
    for task in tasks_in_order(task for task, _ in seeds):
        of: dict[int, list[str]] = {}
        for network in in_order(n for t, n in seeds if t == task):
            of.setdefault(seeds[task, network], []).append(network_name(network))
        most = max(of, key=lambda number: len(of[number]))
        if [*of] != [1]:
            others = [f", {listed(of[number])} {number}" for number in of if number != most]
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
    every = (0.05, 0.25) if length > 1 else None  # of the line's length
    marks = {"marker": look.marker, "markevery": every, "ms": 4, "mec": "white", "mew": 0.4}
    axis.plot(images, mean, color=look.colour, ls=look.line, **marks)
    if len(runs) > 1:
        band = (values.min(axis=0), values.max(axis=0))  # a deviation could leave what is possible
        axis.fill_between(images, *band, color=look.colour, alpha=0.18, lw=0)
