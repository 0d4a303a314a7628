"""Threads that keep order and do not run ahead; progress on a terminal and in a log."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from mg.data.parallel import in_order
from mg.progress import Progress


def test_a_bar_starts_no_process():
    script = """
import multiprocessing, os, sys
import psutil
from mg.progress import Bar
multiprocessing.set_start_method("forkserver")  # as Python 3.14 does by itself
Bar(total=2, file=open(os.devnull, "w")).update(1)
sys.exit(len(psutil.Process().children()))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_items(workers):
    def slower_at_first(i):
        time.sleep(0.02 if i < 3 else 0)
        return i * i

    assert list(in_order(slower_at_first, range(40), workers)) == [i * i for i in range(40)]


def test_work_is_shared_and_does_not_run_ahead():
    started, threads = [], set()

    def work(i):
        threads.add(threading.get_ident())
        time.sleep(0.002)
        return i

    def items():
        for i in range(100):
            started.append(i)
            yield i

    for i in in_order(work, items(), 3):
        assert len(started) <= i + 1 + 2 * 3
    assert len(threads) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers):
    results = in_order(lambda i: 1 // (3 - i), range(10), workers)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_log_has_a_line_now_and_then_and_a_last_one(capfd, monkeypatch):
    monkeypatch.setattr("mg.progress._SECONDS", 0)
    with Progress("set", 2000, "examples") as progress:
        progress.advance(500)
        progress.advance(1500)
        progress.note = "done"
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["set: 500 of 2,000 examples", "set: 2,000 of 2,000 examples"]
    assert lines[2].startswith("set: 2,000 examples in ") and lines[2].endswith(" s, done")


def test_nothing_is_claimed_after_an_error(capfd):
    with pytest.raises(KeyError), Progress("set", None, "examples"):
        raise KeyError
    assert capfd.readouterr().err == ""


def test_terminal_shows_a_bar():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    code = (
        "from mg.progress import Progress\n"
        "with Progress('set', 10, 'examples') as progress: progress.advance(10)\n"
    )
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True)
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert "0/10" in shown and shown.splitlines()[-1].startswith("set: 10 examples in")
