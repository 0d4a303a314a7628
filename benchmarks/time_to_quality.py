"""How many images does a recipe need to reach the quality of the paper's schedule?

    python benchmarks/time_to_quality.py --train results/paper/data/segmentation/train.h5 \
        --valid results/paper/data/segmentation/valid.h5 --output results/time-to-quality

The paper's schedule is trained with every seed; the mean of its last validation mean IU is the
goal. Then each fast recipe is trained in full (its rate falls to zero) with fewer and fewer images,
until it misses the goal: a schedule that was cut short would say nothing. Quality is that of the
validation split; the test set is not touched. Trainings that are in the output folder already, with
these settings, are not made again, so the same command goes on after an interruption. Made for a
GPU; not run at the paper's size yet.
"""

import argparse
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from mg.errors import UserError  # noqa: E402
from mg.files import read_json  # noqa: E402
from mg.training.device import choose_device  # noqa: E402
from mg.training.loop import Interrupted, train  # noqa: E402
from mg.training.recipe import Recipe  # noqa: E402
from mg.training.training import Training  # noqa: E402

PAPER = Recipe()
# Rates and decays: among the best tried with an eighth of the images, on validation.
ONE_CYCLE = Recipe(schedule="one_cycle", precision="auto", output_prior=True)
FAST = {
    "adamw": replace(ONE_CYCLE, optimizer="adamw", learning_rate=0.02, weight_decay=0.05),
    "muon": replace(ONE_CYCLE, optimizer="muon", learning_rate=0.035, weight_decay=0.05),
}


def quality(
    settings: argparse.Namespace, device: torch.device, name: str, recipe: Recipe
) -> tuple[list[float], float]:
    """Last validation mean IU of every seed, and mean seconds of a training."""
    reached, seconds = [], []
    for seed in range(settings.seeds):
        output = settings.output / name / f"seed{seed}"
        training = Training(
            settings.network,
            settings.task,
            settings.options,
            recipe,
            seed,
            [settings.train],
            output,
            settings.valid,
        )
        if not training.is_finished():
            train(
                training,
                device,
                threads=settings.threads,
                execution="graph" if device.type == "cuda" else "eager",  # of all: seconds compare
                log=lambda line: print(line, file=sys.stderr, flush=True),
            )
        with open(output / "history.csv", newline="") as file:
            reached.append(float(list(csv.DictReader(file))[-1]["valid_mean_iu"]))
        seconds.append(read_json(output / "run.json")["seconds"])
    return reached, mean(seconds)


def line(name: str, recipe: Recipe, reached: list[float], seconds: float) -> None:
    spread = f" ± {stdev(reached):.4f}" if len(reached) > 1 else ""
    each = ", ".join(f"{value:.4f}" for value in reached)
    print(
        f"| {name} | {recipe.images:,} | {seconds:.0f} | {mean(reached):.4f}{spread} ({each}) |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="HDF5 file to train on")
    parser.add_argument("--valid", type=Path, required=True, help="HDF5 file to measure on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--task", default="segmentation")
    parser.add_argument("--network", default="r_pmg")
    parser.add_argument("--options", type=json.loads, default={}, help="the network's, as JSON")
    parser.add_argument("--recipes", nargs="+", default=FAST, choices=FAST, help="the fast ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=PAPER.epochs, help="of the paper's schedule")
    parser.add_argument("--iterations", type=int, default=PAPER.iterations, help="per epoch")
    parser.add_argument("--batch", type=int, default=PAPER.batch)
    parser.add_argument("--least", type=int, default=16, help="smallest part tried is 1 / this")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    settings = parser.parse_args()
    if settings.least < 2:
        parser.error(f"--least {settings.least}: the largest part tried is a half, so 2 at least")

    device = choose_device(settings.device)
    amount = {"iterations": settings.iterations, "batch": settings.batch}
    paper = replace(PAPER, epochs=settings.epochs, **amount)
    print(
        "| recipe | images | seconds | last validation mean IU (of each seed) |\n|---|---|---|---|"
    )
    goal, seconds = quality(settings, device, "paper", paper)
    line("paper", paper, goal, seconds)
    best: dict[str, Recipe] = {}
    for name in settings.recipes:
        part = 2
        while part <= settings.least:
            fast = replace(FAST[name], epochs=max(1, settings.epochs // part), **amount)
            reached, seconds = quality(settings, device, f"{name}-{part}", fast)
            line(f"{name}, 1/{part}", fast, reached, seconds)
            if mean(reached) < mean(goal):
                break
            part, best[name] = part * 2, fast
    print(f"\nThe goal is {mean(goal):.4f}.")
    for name in settings.recipes:
        if name in best:
            images = best[name].images
            part = f"1/{paper.images / images:.1f} of the paper's"
            print(f"{name} reached it with {images:,} images, {part}.")
        else:
            print(f"{name} did not reach it with half of the images.")


if __name__ == "__main__":
    try:
        main()
    except (UserError, Interrupted) as error:
        sys.exit(f"time_to_quality.py: {error}")
