"""Which initialisation should be the default? Short trainings of the plain networks with each.

    python benchmarks/initialisation.py --mnist resources/mnist

The schemes differ for plain networks only (see mg/networks/initialisation.py). Every case is
trained with each scheme once per seed, on a 32-pixel canvas, and measured on a validation set; the
table gives the mean of the last epoch over the seeds and, in parentheses, the seeds. It takes about
ten minutes on one CPU core. Measured with PyTorch 2.13 on a CPU:

    network  task          initialisation  validation loss          mean IU
    pmg      segmentation  unit            0.0313 (0.0316, 0.0310)  0.379 (0.375, 0.383)
    pmg      segmentation  released        0.0310 (0.0311, 0.0309)  0.383 (0.380, 0.385)
    unet     segmentation  unit            0.0282 (0.0280, 0.0284)  0.455 (0.458, 0.452)
    unet     segmentation  released        0.0288 (0.0294, 0.0282)  0.441 (0.430, 0.453)
    pmg      translation   unit            0.0469 (0.0470, 0.0467)  0.452 (0.455, 0.450)
    pmg      translation   released        0.0481 (0.0468, 0.0493)  0.439 (0.459, 0.419)

No difference beyond that between seeds, which is larger with "released": "unit" is the default.
(Without `output_prior`, a training of 500 such steps learns segmentation sooner with "released":
its random output scales let some classes leave probability one half faster.)
"""

import argparse
import csv
import tempfile
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from mg.data.clutter import Settings, generate_file
from mg.networks.registry import SCHEMES
from mg.training.loop import train
from mg.training.recipe import Recipe
from mg.training.training import Training

NETWORKS = {"unet": [24, 48, 96], "pmg": [16, 8, 8]}
# AdamW's, as the default configuration had it when this was measured, translation cut short.
RECIPE = Recipe(
    "adamw", "one_cycle", 0.02, epochs=6, iterations=125, batch=16, precision="auto",
    output_prior=True,
)  # fmt: skip
CASES = [("pmg", "segmentation"), ("unet", "segmentation"), ("pmg", "translation")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, help="directory of the idx files")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    print("| network | task | initialisation | validation loss | mean IU |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        settings = Settings(canvas=32, digit_size=14)
        for task, (split, count) in product(
            ("segmentation", "translation"), (("train", 10_000), ("valid", 500))
        ):
            generate_file(
                task, split, arguments.mnist, folder / f"{task}-{split}.h5",
                mode="independent", count=count, settings=settings,
            )  # fmt: skip
        for (network, task), scheme in product(CASES, SCHEMES):
            last = []
            for seed in range(arguments.seeds):
                output = folder / f"{network}-{task}-{scheme}-{seed}"
                training = Training(
                    network,
                    task,
                    {"width": NETWORKS[network], "initialisation": scheme},
                    RECIPE,
                    seed,
                    [folder / f"{task}-train.h5"],
                    output,
                    folder / f"{task}-valid.h5",
                )
                train(training, torch.device("cpu"), threads=1, log=lambda line: None)
                with open(output / "history.csv", newline="") as file:
                    last.append(list(csv.DictReader(file))[-1])
            loss = [float(row["valid_loss"]) for row in last]
            iu = [float(row["valid_mean_iu"]) for row in last]
            print(
                f"| {network} | {task} | {scheme} "
                f"| {mean(loss):.4f} ({', '.join(f'{v:.4f}' for v in loss)}) "
                f"| {mean(iu):.3f} ({', '.join(f'{v:.3f}' for v in iu)}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
