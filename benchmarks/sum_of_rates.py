"""Is it the sum of the learning rates, not their schedule, that decides how far SGD comes?

    python benchmarks/sum_of_rates.py --output rates      # rates.png, rates.svg; seconds

Draws validation mean IU against the sum of the learning rates of all steps so far, from the kept
histories of trainings by the paper's recipe (SGD) with other schedules and rates: networks of the
paper's width on all of its images and on a twentieth, and the small ones of
benchmarks/paper_recipe.py. results/reference/README.md has what they say.
"""

import argparse
import csv
import json
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from matplotlib.lines import Line2D

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from paper_recipe import CASES, PAPER  # noqa: E402

from mg.networks.registry import resolve_network  # noqa: E402
from mg.report import style  # noqa: E402
from mg.report.names import network_name  # noqa: E402
from mg.training.recipe import schedule_of  # noqa: E402

REFERENCE = ROOT / "results" / "reference"
COLOURS = {"steps": style.BLUE, "exponential": style.VERMILLION}
LINES = {0.0412: ":", 0.1: "-", 0.243: "--"}  # by the highest rate


class Line(NamedTuple):
    """How a training is drawn."""

    label: str
    colour: str
    line: str


def by_rates(schedule: str, rate: float) -> Line:
    return Line(f"{schedule} from {rate}", COLOURS[schedule], LINES[rate])


def small(network: str) -> dict[str, Line]:
    """The trainings of paper_recipe.py that differ in their rates alone, smallest sum first."""
    found = {}
    for case, (_, name, recipe, options) in CASES.items():
        schedule, rate = recipe.schedule, recipe.learning_rate
        alone = recipe == replace(PAPER, schedule=schedule, learning_rate=rate) and not options
        if name == network and alone:
            found[f"paper-recipe/{case}"] = by_rates(own_schedule(network, schedule), rate)
    return dict(sorted(found.items(), key=lambda item: curve(REFERENCE / item[0])[0][-1]))


def own_schedule(network: str, schedule: str = "paper") -> str:
    return schedule_of(schedule, resolve_network(network, "segmentation").residual)


def paper_size(network: str, schedule: str = "paper") -> Line:
    look, schedule = style.LOOKS[network], own_schedule(network, schedule)
    line = ":" if schedule != own_schedule(network) else look.line
    return Line(f"{network_name(network)}, {schedule}", look.colour, line)


def panels() -> dict[str, dict[str, Line]]:
    """{heading: {folder of a training under results/reference: how it is drawn}}."""
    paper, short = "paper-bf16/models/segmentation", "models/segmentation/unet/seed0"
    return {
        "the paper's size, all images": {
            **{
                f"{paper}/{network}/seed0": paper_size(network)
                for network in ("unet", "umg", "sg", "r_sg", "pmg", "r_pmg")
            },
            f"paper-steps/{short}": paper_size("unet", "steps"),
        },
        "U-NET, the paper's size, a twentieth": {
            f"paper-short/{short}": by_rates("exponential", 0.1),
            f"paper-short-steps/{short}": by_rates("steps", 0.1),
            f"paper-short-rate/{short}": by_rates("exponential", 0.243),
        },
        **{f"{network_name(name)}, small": small(name) for name in ("unet", "pmg", "r_pmg")},
    }


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Sum of the rates of all steps, and mean IU, after each epoch of the training in `folder`."""
    with open(folder / "history.csv", newline="") as file:
        epochs = list(csv.DictReader(file))
    iterations = PAPER.iterations  # of all of paper_recipe.py, of which some have no run.json
    if (run := folder / "run.json").exists():
        iterations = json.loads(run.read_text())["settings"]["recipe"]["iterations"]
    sums = accumulate(iterations * float(epoch["learning_rate"]) for epoch in epochs)
    return list(sums), [float(epoch["valid_mean_iu"]) for epoch in epochs]


def draw(prefix: Path) -> None:
    caption = (
        "Mean IU on validation images after each epoch, against the sum of the learning rates of "
        "all steps until then; segmentation, SGD by the paper's recipe, one seed. Steps: the rates "
        "of the paper's residual networks (they fall to a fifth after 30, 60 and 80 % of the "
        "epochs). Exponential: those of its plain ones (at the end a thousandth). Above: the "
        "paper's networks on its data, left 250 of the 1,000 validation images. Below: small ones, "
        "of the default configuration's widths, R-PMG of one block, on a canvas of 32. Dots: the "
        "last epoch."
    )
    with style.settings():
        small_print = style.note_height(caption, 8)
        figure = style.new_figure(8, 5 + small_print)
        grid = {"left": 0.07, "right": 0.99, "top": 0.95, "wspace": 0.08, "hspace": 0.3}
        bottom = (0.5 + small_print) / (5 + small_print)
        axes = figure.subplots(2, 3, sharey=True, gridspec_kw={**grid, "bottom": bottom})
        key = axes[0, 2]
        used = [*axes[0, :2], *axes[1]]
        looks: dict[str, Line] = {}
        for axis, (heading, trainings) in zip(used, panels().items(), strict=True):
            for folder, look in trainings.items():
                sums, quality = curve(REFERENCE / folder)
                axis.plot(sums, quality, look.line, color=look.colour, label=look.label, lw=1.3)
                axis.plot(sums[-1], quality[-1], "o", color=look.colour, markersize=4)
                if axis is not used[0]:
                    looks[look.label] = look
            axis.set(xscale="log", xlim=(30, 2000), ylim=(0, 0.9), title=heading)
            axis.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
            axis.minorticks_off()
        key.axis("off")
        found = used[0].get_legend_handles_labels()
        title = f"above left: {used[0].get_title()}"
        first = {"loc": "upper center", "ncols": 2, "columnspacing": 0.8, "fontsize": 7}
        key.add_artist(key.legend(*found, **first, borderaxespad=0, title=title))
        handles = [
            Line2D([], [], ls=looks[label].line, color=looks[label].colour, lw=1.3, label=label)
            for label in sorted(looks, key=lambda label: (label.split()[0], label))
        ]
        key.legend(handles=handles, loc="lower center", borderaxespad=0, title="the other panels")
        for row in axes:
            row[0].set_ylabel("validation mean IU")
        axes[1, 1].set_xlabel("sum of the learning rates")
        style.note(figure, caption)
        style.save(figure, prefix, caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="without .png and .svg")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
