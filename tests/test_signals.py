"""Signals that ask to end: which are heeded, and when."""

import os
import re
import signal
import subprocess
import sys

import pytest

from mg.signals import STOPPING, WARNINGS, heeded, postponed


@pytest.fixture
def hang_up():
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_heeded_but_not_under_nohup(hang_up):
    hang_up(signal.SIG_DFL)
    assert {*heeded()} == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    hang_up(signal.SIG_IGN)
    assert {*heeded()} == {signal.SIGTERM, signal.SIGINT}


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_counts_as_one_sigterm_however_often_it_comes(number):
    """Also where those around ignore it, as in a job of SGE (workflow/profiles/sge)."""
    step = f"""
import os, signal
from mg import cli

class Parser:
    def parse_args(self, arguments):
        try:
            os.kill(os.getpid(), {number:d})
        finally:
            os.kill(os.getpid(), {number:d})
            print("cleaned up")

cli.build_parser = Parser
cli.main([])
"""
    job = f"trap '' USR1 USR2; exec {sys.executable} -c \"$0\""
    done = subprocess.run(["bash", "-c", job, step], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "cleaned up\n")
    assert done.stderr == "mg: terminated\n"


@pytest.mark.parametrize("then", ["time.sleep(60)", "pass"])
@pytest.mark.parametrize("number", [*STOPPING, *WARNINGS])
def test_a_signal_that_comes_where_nothing_can_be_raised_is_not_lost(number, then):
    """In the callback of a weak reference, as of h5py; the step may be done before it counts."""
    step = f"""
import os, time, weakref
from mg import cli

class Parser:
    def parse_args(self, arguments):
        something = type("Something", (), {{}})()
        seen = weakref.ref(something, lambda _: os.kill(os.getpid(), {number:d}))
        del something
        {then}
        return type("Settings", (), {{"command": "step", "run": lambda settings: None}})()

cli.build_parser = Parser
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", step], capture_output=True, text=True, timeout=50)
    ends = signal.SIGTERM if number in WARNINGS else number
    assert done.returncode == 128 + ends
    assert re.fullmatch(f"mg( step)?: {STOPPING[ends]}\n", done.stderr)


def test_a_postponed_signal_is_handled_at_the_end(hang_up):
    said = []
    hang_up(lambda number, frame: said.append("handled"))
    with postponed():
        os.kill(os.getpid(), signal.SIGHUP)
        said.append("in the block")
    assert said == ["in the block", "handled"]
    os.kill(os.getpid(), signal.SIGHUP)
    assert said[2:] == ["handled"]
