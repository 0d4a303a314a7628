"""Heed every Ctrl-C. Snakemake 9.27 passes over one that comes while it writes a line of its log:
its handler catches KeyboardInterrupt, and a run that was told to end begins its next job.
"""

import functools
import signal
import threading
from types import FrameType

from snakemake.logging import ColorizingTextHandler


def heed() -> None:
    """Let an interrupt that comes while a line is written take effect after it."""
    write = ColorizingTextHandler.emit
    if hasattr(write, "__wrapped__"):  # a module of another workflow did so already
        return

    @functools.wraps(write)
    def emit(handler, record) -> None:
        if threading.current_thread() is not threading.main_thread():
            return write(handler, record)
        received: list[tuple[int, FrameType | None]] = []
        before = signal.signal(signal.SIGINT, lambda *what: received.append(what))
        try:
            write(handler, record)
        finally:
            signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])

    ColorizingTextHandler.emit = emit
