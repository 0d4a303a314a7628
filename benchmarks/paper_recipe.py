"""What in the paper's recipe makes how much of its results? One change at a time.

    python benchmarks/paper_recipe.py --train train.h5 --valid valid.h5 --output FOLDER

Most ask why plain networks end far behind R-PMG, the last ones why R-PMG ends where it does.
Trainings of 240,000 images on segmentation, networks as narrow as in the default configuration,
measured on a validation set after the last epoch; interrupted, the same command goes on. On one CPU
core each takes eight to fifteen minutes. results/reference/README.md has what was found,
docs/performance.md ("Time to quality") how to make the files.
"""

import argparse
import csv
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from mg.errors import UserError  # noqa: E402
from mg.training.loop import Interrupted, train  # noqa: E402
from mg.training.recipe import Recipe  # noqa: E402
from mg.training.training import Training  # noqa: E402

PAPER = Recipe(batch=16, precision="auto")
STEPS, EXPONENTIAL = (replace(PAPER, schedule=schedule) for schedule in ("steps", "exponential"))
# The rates of `steps` add up to 2.43 times those of `exponential`. Each with the sum of the other:
LOW_STEPS = replace(STEPS, learning_rate=0.0412)
HIGH_EXPONENTIAL = replace(EXPONENTIAL, learning_rate=0.243)
HIGH_STEPS = replace(STEPS, learning_rate=0.243)  # 2.43 times more once again
OPTIONS = {
    "unet": {"width": [24, 48, 96], "initialisation": "released"},
    "pmg": {"width": [16, 8, 8], "initialisation": "released"},
    "r_pmg": {"width": [16, 8, 8], "blocks": 1},
}


class FreeBatchNorm(Recipe):
    """No weight decay of scales and shifts, which are the parameters with one dimension.

    The benchmark's own, as `KeptMomentum`: run.json does not know of them.
    """

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = super().build_optimizer(model)
        parameters = optimizer.param_groups[0]["params"]
        optimizer.param_groups[0]["params"] = [p for p in parameters if p.ndim > 1]
        free = [p for p in parameters if p.ndim == 1]
        optimizer.add_param_group({"params": free, "weight_decay": 0.0})
        return optimizer


class KeptMomentum(Recipe):
    """Momentum is kept from epoch to epoch, where the authors' code forgets it."""

    forgets_momentum = False


CASES = {  # name: what is changed, network, recipe, options
    "unet": ("nothing", "unet", PAPER, {}),
    "unet-unit": ("initialisation: unit", "unet", PAPER, {"initialisation": "unit"}),
    "unet-steps": ("schedule: steps", "unet", STEPS, {}),
    "unet-decay": ("weight_decay: 0.00005", "unet", replace(PAPER, weight_decay=5e-5), {}),
    "unet-free": ("no decay of batch norm", "unet", FreeBatchNorm(**asdict(PAPER)), {}),
    "pmg": ("nothing", "pmg", PAPER, {}),
    "pmg-steps": ("schedule: steps", "pmg", STEPS, {}),
    "r_pmg": ("nothing", "r_pmg", PAPER, {}),
    "r_pmg-exponential": ("schedule: exponential", "r_pmg", EXPONENTIAL, {}),
    "unet-high": ("learning_rate: 0.243", "unet", HIGH_EXPONENTIAL, {}),
    "unet-steps-low": ("schedule: steps, learning_rate: 0.0412", "unet", LOW_STEPS, {}),
    "unet-steps-high": ("schedule: steps, learning_rate: 0.243", "unet", HIGH_STEPS, {}),
    "pmg-high": ("learning_rate: 0.243", "pmg", HIGH_EXPONENTIAL, {}),
    "pmg-steps-low": ("schedule: steps, learning_rate: 0.0412", "pmg", LOW_STEPS, {}),
    "pmg-steps-high": ("schedule: steps, learning_rate: 0.243", "pmg", HIGH_STEPS, {}),
    "r_pmg-low": ("learning_rate: 0.0412", "r_pmg", LOW_STEPS, {}),
    "r_pmg-high": ("learning_rate: 0.243", "r_pmg", HIGH_STEPS, {}),
    "r_pmg-exponential-high": (
        "schedule: exponential, learning_rate: 0.243",
        "r_pmg",
        HIGH_EXPONENTIAL,
        {},
    ),
    "r_pmg-momentum": ("momentum kept over epochs", "r_pmg", KeptMomentum(**asdict(PAPER)), {}),
    # What two GPUs do to batch norm.
    "r_pmg-halves": ("accumulate: 2", "r_pmg", replace(PAPER, accumulate=2), {}),
    "r_pmg-float32": ("precision: float32", "r_pmg", replace(PAPER, precision="float32"), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="HDF5 file")
    parser.add_argument("--valid", type=Path, required=True, help="HDF5 file")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--task", default="segmentation")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=150)
    arguments = parser.parse_args()
    length = {"epochs": arguments.epochs, "iterations": arguments.iterations}
    print(
        "| network | changed | training loss | validation loss | mean IU |\n|---|---|---|---|---|"
    )
    for name in arguments.cases:
        changed, network, recipe, options = CASES[name]
        recipe = replace(recipe, **length)
        history = arguments.output / name / "history.csv"
        training = Training(
            network,
            arguments.task,
            OPTIONS[network] | options,
            recipe,
            arguments.seed,
            [arguments.train],
            history.parent,
            arguments.valid,
        )
        if not training.is_finished():
            train(
                training,
                torch.device("cpu"),
                threads=1,
                log=lambda line: print(line, file=sys.stderr),
            )
        with open(history, newline="") as file:
            last = list(csv.DictReader(file))[-1]
        loss, valid, iu = (last[key] for key in ("train_loss", "valid_loss", "valid_mean_iu"))
        print(
            f"| {network} | {changed} | {float(loss):.4f} | {float(valid):.4f} | {float(iu):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except (UserError, Interrupted) as error:
        sys.exit(f"paper_recipe.py: {error}")
