"""The command `mg`: one sub-command per step of the workflow, each usable by hand.

Every sub-command parses, calls one function of the package, and leaves the work to it. Modules are
imported where they are used, so that `mg --help` and light commands start at once.
"""

import argparse
import os
import signal
import sys
from typing import NoReturn

from mg.cli import data, evaluation, networks, report, training
from mg.cli.arguments import fail
from mg.errors import UserError, short_of_files, short_of_memory, short_of_threads
from mg.signals import STOPPING, interrupt_by_signals, raise_no_more, take_warnings_for_termination


def main(arguments: list[str] | None = None) -> None:
    """Run `mg`; a user's mistake ends in one line and status 2, a signal in status 128 + number.

    Where nobody reads standard output any more (`mg … | head`), the status is that of SIGPIPE.
    """
    _repair_streams()
    stopped: list[int] = []
    name = "mg"
    try:
        interrupt_by_signals(stopped)
        take_warnings_for_termination()
        settings = build_parser().parse_args(arguments)
        settings.arguments = sys.argv[1:] if arguments is None else arguments
        name = f"mg {settings.command}"
        settings.run(settings)
        sys.stdout.flush()
        if stopped:  # by one that a library has kept to itself
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        raise_no_more()
        # That of PyTorch's loaders raises again, of a killed worker, whenever another one ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if stopped:  # whatever a library has made of the interrupt
            sys.exit(fail(f"{name}: {STOPPING[stopped[0]]}", 128 + stopped[0]))
        if isinstance(error, BrokenPipeError):  # of standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        if message := _users_message(error):
            sys.exit(fail(f"{name}: error: {message}", 2))
        raise


def _repair_streams() -> None:
    """Standard output and error that can be written: closed ones lead nowhere.

    Names of files that are no text are shown escaped, as on standard error.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    sys.stdout.reconfigure(errors="backslashreplace")


def _users_message(error: BaseException) -> str | None:
    """What to tell of an error that is not a fault of this program; None if it is one."""
    if short_of_memory(error):
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


class _Parser(argparse.ArgumentParser):
    """A wrong command line ends in one line too, naming the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mg`."""
    parser = _Parser(prog="mg", description="Multigrid Neural Architectures, step by step.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        *(data.add_fetch, data.add_generate, data.add_prepare),
        *(networks.add_networks, networks.add_describe),
        training.add_train,
        *(evaluation.add_evaluate, evaluation.add_predict, evaluation.add_saliency),
        *(report.add_table, report.add_figure, report.add_page, report.add_show),
        networks.add_check,
        report.add_compare,
    ):
        add(commands)
    return parser
