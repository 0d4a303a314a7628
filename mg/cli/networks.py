"""Sub-commands that tell of networks and check configurations."""

import json
from pathlib import Path

from mg.cli.arguments import add_command, json_object, whole


def add_networks(commands) -> None:
    def run(settings) -> None:
        from mg.report.tables.networks import format_rows, paper_rows

        rows = paper_rows()
        print(json.dumps(rows, indent=2) if settings.format == "json" else format_rows(rows))

    description = "list the paper's networks and their controls, with the published numbers"
    parser = add_command(commands, "networks", run, description)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of the output")


def add_describe(commands) -> None:
    def run(settings) -> None:
        from mg.report.describe import describe

        names = settings.network, settings.dataset
        describe(*names, settings.options, settings.output, settings.size)

    parser = add_command(commands, "describe", run, "draw a network and list its layers")
    parser.add_argument("network", help="name of a network")
    parser.add_argument("dataset", help="name of a task or data set")
    parser.add_argument("--options", type=json_object, default={}, help="as a JSON object")
    parser.add_argument(
        "--size", type=whole(1), help="side of the image in pixels; the data set's if unset"
    )
    parser.add_argument("--output", type=Path, help="prefix of the figure's files")


def add_check(commands) -> None:
    def run(settings) -> None:
        from mg import configuration
        from mg.files import read_object

        config = read_object(settings.file)
        configuration.check(config)
        print(json.dumps(configuration.count(config)))

    description = (
        "check that the parts of a workflow's configuration fit one another; print what its "
        "networks cost for one image, as JSON"
    )
    parser = add_command(commands, "check", run, description)
    parser.add_argument(
        "file",
        type=Path,
        help="the configuration as JSON, every default filled in, as the workflow gives it",
    )
