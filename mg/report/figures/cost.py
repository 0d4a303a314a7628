"""Quality against cost."""

import os
from collections.abc import Sequence

from matplotlib.axes import Axes

from mg.errors import UserError
from mg.report import style
from mg.report.figures.plots import heading, plots
from mg.report.figures.reading import Paths
from mg.report.names import controls_note, network_name, task_name, tasks_in_order
from mg.report.tables.summaries import Summary, architectures, read_metrics, summarise


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
        figure, axes = plots(len(tasks), 2, 3.05, 1.7, caption, gap=0.25)
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
            heading(left, task_name(task))
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
            for dy in (8, -8, 20, -20, 32, -32)
            for dx in (8, -8)
        ]
        boxes = [(bx, by, bx + len(name) * 6.5, by + 10, dx, dy) for bx, by, dx, dy in boxes]
        inside = [box for box in boxes if _holds(axis, box)]
        free = [box for box in inside if not any(_overlap(box, other) for other in taken)]
        box = (free or inside or boxes)[0]
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


def _holds(axis: Axes, box: Sequence[float]) -> bool:
    area = axis.bbox
    return area.x0 < box[0] and box[2] < area.x1 and area.y0 < box[1] and box[3] < area.y1


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
