"""Ctrl-C once asks, twice stops; SIGTERM stops and is still known as such when it comes out."""

import os
import signal

import pytest

from bench.system import interrupt
from bench.system.interrupt import Interrupts, Terminated


def test_ctrl_c_asks_first_and_stops_then():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as found, Interrupts() as interrupts:
        assert not interrupts.stop_requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.stop_requested
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(found.value, Terminated) and signal.getsignal(signal.SIGINT) is before


def test_sigterm_is_known_as_such_even_if_a_library_raises_its_own_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), Interrupts():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_listens_again_after_a_library_has_put_its_own_handler_in():
    with Interrupts() as interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.install_handlers()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.stop_requested


def test_without_patience_the_first_ctrl_c_stops_and_what_a_library_swallows_is_not_lost():
    with pytest.raises(KeyboardInterrupt), Interrupts(graceful=False) as interrupts:
        with interrupts.graceful_stop():
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.check()
        assert interrupts.stop_requested and not interrupts.graceful
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass  # as a library may
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)  # it is on its way out
        interrupts.check()


def test_a_way_out_that_takes_too_long_can_be_cut_short(monkeypatch):
    left = []
    monkeypatch.setattr(interrupt.os, "_exit", left.append)
    monkeypatch.setattr(interrupt, "STOP_SECONDS", -1.0)
    with pytest.raises(Terminated), Interrupts():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert left == [130]
