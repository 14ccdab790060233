"""Signals as wishes: which are caught, which come twice, and which stay ignored."""

from __future__ import annotations

import os
import signal

import pytest

from simsiam.engine import stopping
from simsiam.engine.stopping import StopAsked, stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_may_say_it_twice(number: signal.Signals) -> None:
    with stop_requests() as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert request.signal_number == number
        with pytest.raises(StopAsked):
            stopping.check()
    stopping.check()  # nobody listens any more


def test_a_second_ctrl_c_stops_at_once() -> None:
    def twice() -> None:
        with stop_requests():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_within_another_is_one_wish() -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner is outer
        assert outer.asked
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
