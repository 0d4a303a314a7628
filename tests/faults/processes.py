"""The command line in processes of their own, and the small run that faults are tried on."""

import hashlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# Loaded once, before any fork.
import mg.data.clutter
import mg.data.imagenet
import mg.evaluation.classify
import mg.evaluation.images
import mg.evaluation.saliency
import mg.report.compare
import mg.report.describe
import mg.report.explorer
import mg.report.figures.classes
import mg.report.figures.cost
import mg.report.figures.curves
import mg.report.figures.receptive_fields
import mg.report.figures.saliency
import mg.report.figures.segmentation
import mg.report.figures.sheets
import mg.report.figures.spatial
import mg.report.pages
import mg.report.show
import mg.report.tables.claims
import mg.report.tables.classification
import mg.report.tables.networks
import mg.report.tables.resources
import mg.report.tables.results
import mg.training.loop  # noqa: F401
from mg import cli
from mg.signals import STOPPING
from mg.training import device

# The tests' own process gives freed memory back: its children, starved, would find room in it.
_KEEP_FREED_MEMORY, device.keep_freed_memory = device.keep_freed_memory, lambda keep: None


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status (negative: killed by that signal), both outputs."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error that a user sees of a mistake."""
        (line,) = self.lines
        return line

    @property
    def lines(self) -> list[str]:
        """All lines on standard error, of which the last tells of a mistake."""
        assert "Traceback" not in self.err and self.code == 2, self.err
        lines = self.err.strip().splitlines()
        assert lines[-1].startswith("mg ") and "error:" in lines[-1]
        return lines


class Running:
    """`mg` in a forked process: as `python -m mg`, without loading the libraries again.

    `before` is called there first; it can take memory, disk or rights away.
    """

    def __init__(self, *arguments, before: Callable[[], None] = lambda: None) -> None:
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        sys.stdout.flush(), sys.stderr.flush()
        # A signal before `mg` begins ends the process, as elsewhere. The handlers are those of the
        # tests' own process: an exception of theirs would go on with the tests in a second one.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        self.pid = os.fork()
        if not self.pid:
            self._become(arguments, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _become(self, arguments: tuple, before: Callable[[], None]) -> NoReturn:
        code = 70
        try:
            for number in STOPPING:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            os.dup2(self.out.fileno(), 1), os.dup2(self.err.fileno(), 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            device.keep_freed_memory = _KEEP_FREED_MEMORY
            before()
            cli.main([str(a) for a in arguments])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush(), sys.stderr.flush()
            finally:
                os._exit(code or 0)

    def said(self, file: str = "err") -> str:
        """What it has written to an output so far."""
        handle = getattr(self, file).fileno()
        return os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")

    def wait_until_said(self, text: str) -> None:
        """Come back when standard error holds `text`; it is an error if that never comes."""
        end = time.monotonic() + 120
        while text not in self.said():
            assert os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def end(self) -> Ended:
        """Wait for it; one that does not end in ten minutes hangs, and is killed."""
        end, pid = time.monotonic() + 600, 0
        while not pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid and time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        return Ended(os.waitstatus_to_exitcode(status), self.said("out"), self.said("err"))


def run_mg(*arguments, before: Callable[[], None] = lambda: None) -> Ended:
    return Running(*arguments, before=before).end()


def command(*arguments) -> list[str]:
    """`mg` as a command for a process that is to be killed."""
    return [sys.executable, "-m", "mg", *map(str, arguments)]


def checksums(*folders: Path) -> dict[Path, str]:
    """The SHA-256 of every file below the folders."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


WIDTHS = '{"width": [4, 4]}'


def train(run: Path, data: Path, *more) -> list:
    """Arguments of a training of a second or two."""
    return [
        *("train", "--network", "pmg", "--task", "translation", "--options", WIDTHS),
        *("--optimizer", "adamw", "--schedule", "one_cycle", "--learning-rate", "0.02"),
        *("--epochs", "2", "--iterations", "4", "--batch", "8", "--threads", "1"),
        *("--device", "cpu", "--train", data, "--output", run, *more),
    ]


NETWORKS = {
    "cifar10": ("mg", '{"width": [[4, 2, 2], [4, 2, 2], [4, 2, 2], [4, 2, 2], [4, 2]]}'),
    "imagenet": ("r_mg", '{"depth": 18, "width": [[8, 4, 2], [8, 4, 2], [8, 4], [8]]}'),
}


def train_classifier(run: Path, task: str, data: Path, *more) -> list:
    """Arguments of a training of a second or two, of one of `NETWORKS`."""
    network, options = NETWORKS[task]
    return [
        *("train", "--network", network, "--task", task, "--options", options),
        *("--preparation", "plain", "--epochs", "1", "--iterations", "2", "--batch", "8"),
        *("--threads", "1", "--device", "cpu", "--train", data, "--output", run, *more),
    ]


def prepare(task: str, split: str, source: Path, output: Path) -> list:
    return [
        *("prepare", "--task", task, "--split", split, "--source", source),
        *("--crop", "32", "--output", output),
    ]


def evaluate(run: Path) -> list:
    return [
        *("evaluate", "--model", run / "model.pt", "--data", run / "test.h5", "--threads", "1"),
        *("--metrics", run / "metrics.json", "--predictions", run / "predictions.h5"),
        *("--device", "cpu"),
    ]


def saliency(run: Path) -> list:
    return [
        *("saliency", "--model", run / "model.pt", "--data", run / "test.h5", "--threads", "1"),
        *("--examples", "2", "--window", "8", "--stride", "8", "--output", run / "saliency.h5"),
        *("--device", "cpu"),
    ]
