"""Which digits are hard to segment."""

import os

import numpy as np

from mg.errors import UserError
from mg.report import style
from mg.report.figures.plots import heading, legend_columns, name_networks, plots
from mg.report.figures.reading import Paths
from mg.report.names import controls_note, task_name
from mg.report.tables.summaries import architectures, read_metrics, summarise


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
        right = 1.05 * legend_columns(shown)
        figure, [[axis]] = plots(1, 1, 5.4, 1.8, caption, gap=0, right=right)
        step = 0.8 / len(summaries)
        for k, s in enumerate(summaries):
            look = looks[s.network]
            ious = np.array([r["per_class_iu"] for r in s.records], float)
            values = np.ma.masked_invalid(ious)  # None: undefined
            x = np.arange(values.shape[1]) + (k - (len(summaries) - 1) / 2) * step
            sd = values.std(axis=0, ddof=1).filled(np.nan) if len(values) > 1 else None
            axis.errorbar(
                x,
                values.mean(axis=0).filled(np.nan),
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
        heading(axis, task_name("segmentation"))
        name_networks(axis, shown)
        return style.save(figure, prefix, caption)
