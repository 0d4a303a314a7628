"""The signals that ask a process to end; what it has begun is saved or removed first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = {
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
    signal.SIGHUP: "hung up",  # the terminal was closed, or the connection to it lost
}
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


def heeded() -> list[signal.Signals]:
    """Those that end this process: all, but not SIGHUP where `nohup` says so."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPPING if not (ignored and number == signal.SIGHUP)]


def take_warnings_for_termination() -> None:
    """Let SIGUSR1 and SIGUSR2, by which SGE says that the end is near, count as one SIGTERM.

    It often sends them twice. Heeded also where the shell around ignores them, as in its jobs.
    """

    def terminate(number: int, frame: Any) -> None:
        for warning in WARNINGS:
            signal.signal(warning, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)

    for warning in WARNINGS:
        signal.signal(warning, terminate)


@contextmanager
def collected(once: bool = False) -> Iterator[list[int]]:
    """The numbers of the signals that come meanwhile, which end nothing.

    Args:
        once: only the first of each; a second one does what it would have done.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in heeded()}

    def note(number: int, frame: Any) -> None:
        received.append(number)
        if once:
            signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def postponed() -> Iterator[None]:
    """Handle the signals that come meanwhile at the end.

    An exception of a handler is lost where Python runs it inside a callback, as in a fork.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main one
        return
    received: list[int] = []
    try:
        with collected() as received:
            yield
    finally:
        for number in received:
            signal.raise_signal(number)
