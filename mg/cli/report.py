"""Sub-commands that make tables, figures and pages, and tell of results."""

import argparse
import sys
from pathlib import Path

from mg.cli.arguments import (
    CLASSIFICATION,
    add_command,
    add_files,
    add_kinds,
    whole,
)
from mg.data.tasks import TASKS


def add_table(commands) -> None:
    kinds = add_kinds(commands, "table", "write a table as CSV, Markdown, LaTeX and HTML")

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

    parser = add_command(kinds, "results", results, "measures of the networks on tasks of pixels")
    add_files(parser, "metrics", "metrics.json files")
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
    parser = add_command(kinds, "classification", classification, description)
    add_files(parser, "metrics", "metrics.json files")
    parser.add_argument(
        "--tasks", nargs="+", choices=CLASSIFICATION, help="the tasks; those of the files if unset"
    )
    _expected_option(parser)
    _digits_option(parser)
    _table_options(parser, run=True)

    def networks(settings) -> None:
        from mg.report.tables.networks import paper_rows, run_rows, write_network_table

        write_network_table(
            [*run_rows(settings.metrics), *paper_rows()],
            prefix=settings.output,
            caption=settings.caption,
        )

    description = "sizes of the paper's networks, ours beside the published, and of a run's"
    parser = add_command(kinds, "networks", networks, description)
    add_files(parser, "metrics", "metrics.json files of a run", required=False)
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

    parser = add_command(kinds, "claims", claims, "what the paper says, held against a run")
    add_files(parser, "metrics", "metrics.json files")
    add_files(parser, "saliency", "saliency.h5 files", required=False)
    _table_options(parser, run=True)

    def resources(settings) -> None:
        from mg.report.tables.resources import write_resources_table

        write_resources_table(
            settings.benchmarks, settings.runs, prefix=settings.output, caption=settings.caption
        )

    parser = add_command(kinds, "resources", resources, "time and memory of a run")
    parser.add_argument(
        "--benchmarks", type=Path, required=True, help="folder of Snakemake's benchmark files"
    )
    add_files(parser, "runs", "run.json files", required=False)
    _table_options(parser)


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


def add_figure(commands) -> None:
    kinds = add_kinds(commands, "figure", "draw a figure as PNG and SVG")

    def add(name: str, run, description: str, *files: str, examples: bool = False):
        """A figure that is drawn from these files, perhaps of the first examples only."""
        parser = add_command(kinds, name, run, description)
        for kind in files:
            add_files(parser, kind, _FIGURE_FILES[kind])
        if examples:
            parser.add_argument("--examples", type=whole(1), help="how many, from the first")
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


def add_page(commands) -> None:
    description = "write a page (HTML) that needs nothing but itself"
    kinds = add_kinds(commands, "page", description)

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

    parser = add_command(kinds, "overview", overview, "what was run and what came out")
    add_files(parser, "metrics", "metrics.json files")
    add_files(parser, "saliency", "saliency.h5 files", required=False)
    add_files(parser, "figures", "SVG files to show", required=False)
    add_files(parser, "links", "files to link to", required=False)
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

    parser = add_command(kinds, "run", run, "configuration and environment")
    parser.add_argument("--configuration", type=Path, required=True, help="YAML file to show")
    add_files(parser, "runs", "run.json files", required=False)
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
    parser = add_command(kinds, "explorer", explorer, description)
    add_files(parser, "data", "test sets to explore")
    add_files(parser, "predictions", "predictions.h5 files")
    add_files(parser, "saliency", "saliency.h5 files", required=False)
    parser.add_argument("--examples", type=whole(1), default=24, help="to explore, from the first")
    _page_options(parser)


def _page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")


def add_show(commands) -> None:
    def run(settings) -> None:
        from mg.report import show

        print(show.show(settings.file))
        if settings.images:
            show.show_images(settings.file, settings.images)

    parser = add_command(commands, "show", run, "say what a file of a run holds")
    parser.add_argument("file", type=Path, help="HDF5, JSON, CSV or model file")
    parser.add_argument(
        "--images", type=Path, help="also draw its first images: prefix of PNG, SVG"
    )


def add_compare(commands) -> None:
    def run(settings) -> None:
        from mg.report import compare

        text, differs = compare.report(settings.ours, settings.theirs)
        print(text)
        if differs:
            sys.exit(1)

    description = "say which numbers of two runs differ by more than seeds explain"
    parser = add_command(commands, "compare", run, f"{description}; the exit status is then 1")
    parser.add_argument("ours", type=Path, help="folder of a run, such as results/demo")
    parser.add_argument(
        "theirs", type=Path, help="folder of another, or of runs among which one has the same name"
    )
