"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

import errno
import os
import sys
import time
from threading import RLock
from types import TracebackType

from tqdm import tqdm

_SECONDS = 10  # between lines


def say(line: str) -> None:
    """Print a line; where nobody reads any more, the work goes on without."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe's reader, a terminal is gone
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Bar(tqdm):
    """A bar of tqdm, but without its thread: where memory is short, the start of one never ends."""

    monitor_interval = 0


# tqdm's own is one between processes, for which Python 3.14 starts a process; if `mg` is killed,
# that one complains of it after the last line.
Bar.set_lock(RLock())


class Progress:
    """Count `unit`s up to `total` (None: unknown) and say at the end how many and how long.

    `note`, if set, is added to the last line. Nothing is added after an exception: let the block
    hold the writing of the results too.
    """

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.note = ""
        self._done = 0

    def __enter__(self) -> "Progress":
        self._start = self._last = time.monotonic()
        self._bar = (
            Bar(desc=self.label, total=self.total, unit=f" {self.unit}", leave=False)
            if sys.stderr.isatty()
            else None
        )
        return self

    def expect(self, total: int) -> None:
        """Set a total that was not known at first."""
        self.total = total
        if self._bar is not None:
            self._bar.reset(total)

    def advance(self, number: int) -> None:
        """Count `number` more."""
        self._done += number
        if self._bar is not None:
            self._bar.update(number)
        elif time.monotonic() - self._last >= _SECONDS:
            self._last = time.monotonic()
            of = f" of {self.total:,}" if self.total else ""
            say(f"{self.label}: {self._done:,}{of} {self.unit}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is None:
            seconds = time.monotonic() - self._start
            note = f", {self.note}" if self.note else ""
            say(f"{self.label}: {self._done:,} {self.unit} in {seconds:.1f} s{note}")
