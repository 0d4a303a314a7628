"""Signals that ask to end: which are heeded, and when."""

import os
import signal

import pytest

from mg.signals import heeded, postponed


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


def test_a_postponed_signal_is_handled_at_the_end(hang_up):
    said = []
    hang_up(lambda number, frame: said.append("handled"))
    with postponed():
        os.kill(os.getpid(), signal.SIGHUP)
        said.append("in the block")
    assert said == ["in the block", "handled"]
    os.kill(os.getpid(), signal.SIGHUP)
    assert said[2:] == ["handled"]
