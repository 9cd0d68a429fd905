"""Ctrl-C once asks, twice stops; SIGTERM stops and is still known as such when it comes out."""

import os
import signal

import pytest

from bench.interrupt import Interrupts, Terminated


def test_ctrl_c_asks_first_and_stops_then():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as found, Interrupts() as interrupts:
        assert not interrupts.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
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
        interrupts.listen()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
