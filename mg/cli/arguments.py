"""What the sub-commands share: how they are added, and kinds of arguments."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mg.data.tasks import TASKS
from mg.networks.registry import DATASETS
from mg.progress import say

CLASSIFICATION = tuple(name for name in DATASETS if name not in TASKS)
ARCHIVES = tuple(name for name, spec in DATASETS.items() if spec.family == "cifar")


def fail(message: str, status: int) -> int:
    """Say why a command ends; its status is given back."""
    say(message)
    return status


def add_command(commands, name: str, run, description: str) -> argparse.ArgumentParser:
    """A sub-command that does `run` with its settings."""
    parser = commands.add_parser(
        name,
        help=description,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_kinds(commands, name: str, description: str):
    """The sub-commands of a command, one for each kind of what it makes."""
    parser = commands.add_parser(name, help=description, description=description)
    return parser.add_subparsers(dest="kind", required=True, metavar="KIND")


def json_object(text: str) -> dict[str, Any]:
    """Without entries that are null: they stand for the default."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object such as {{"n_layer": 2}}')
    return {name: entry for name, entry in value.items() if entry is not None}


_LARGEST = 2**31 - 1


def whole(least: int) -> Callable[[str], int]:
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


def add_files(parser: argparse.ArgumentParser, name: str, help: str, required: bool = True) -> None:
    """An option of one or more paths, or, if they are not required, of any number."""
    if required:
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=help)
    else:
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=help)


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=whole(1), help="processor threads; PyTorch's choice if unset"
    )


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=whole(0), default=0, help="processes that decode ImageNet's images ahead"
    )
