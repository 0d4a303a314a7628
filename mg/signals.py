"""The signals that ask a process to end; what it has begun is saved or removed first."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

STOPPING = {
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
    signal.SIGHUP: "hung up",  # the terminal was closed, or the connection to it lost
}
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)

_AGAIN_SECONDS = 0.05  # long after what could not be interrupted, and soon for whoever asked


def heeded() -> list[signal.Signals]:
    """Those that end this process: all, but not SIGHUP where `nohup` says so."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPPING if not (ignored and number == signal.SIGHUP)]


def interrupt_by_signals(received: list[int]) -> None:
    """Let the signals that end the process raise KeyboardInterrupt from now on.

    Python drops an exception where nothing could catch it, as in the callback of a weak reference,
    of which h5py has many. The signal is raised again then, a moment later.

    Args:
        received: is given the number of each that comes.
    """
    report = sys.unraisablehook

    def stop(number: int, frame: Any) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if received and issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            report(unraisable)

    sys.unraisablehook = dropped
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(received[-1]))
    for number in heeded():
        signal.signal(number, stop)


def raise_no_more() -> None:
    """Forget a signal that is still to be raised again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def take_warnings_for_termination() -> None:
    """Let SIGUSR1 and SIGUSR2, by which SGE says that the end is near, count as one SIGTERM.

    It often sends them twice. Heeded also where the shell around ignores them, as in its jobs.
    """
    warned: list[int] = []

    def terminate(number: int, frame: Any) -> None:
        warned.append(number)
        if len(warned) == 1:
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
