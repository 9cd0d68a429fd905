"""Whether Ray lives is known without waiting for Ray."""

import subprocess
import threading

import psutil
import pytest

from bench.scheduling.ray_tune import health
from bench.scheduling.ray_tune.health import RayWatch


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(health, "ASK_SECONDS", 0.01)


@pytest.fixture
def clock(monkeypatch):
    """``clock[0]`` is what the watch takes the monotonic clock to say."""
    now = [1000.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    return now


def look(watch, clock, seconds):
    """What the watch finds in so many seconds, asked every second."""
    for _ in range(seconds):
        clock[0] += 1
        if found := watch.problem():
            return found
    return None


def test_a_process_of_ray_that_has_died_is_named_at_once_with_how():
    with subprocess.Popen(["sleep", "60"]) as child:
        watch = RayWatch(lambda: True)
        watch.watched = {"raylet": psutil.Process(child.pid)}
        assert watch.problem() is None and not watch.has_died()
        child.kill()
        child._waitpid_lock.acquire()  # nobody else waits for it, as Ray does not
        while not watch.has_died():
            pass
        assert watch.problem() == f"Ray's raylet (process {child.pid}) was killed by SIGKILL"
        child._waitpid_lock.release()


def test_silence_has_a_limit_but_only_while_somebody_listens(clock):
    silent = threading.Event()
    with RayWatch(lambda: silent.wait(60) or True) as watch:
        assert look(watch, clock, 20) is None
        clock[0] += 3600  # this process was stopped for an hour
        assert watch.problem() is None and look(watch, clock, 23) is None
        assert look(watch, clock, 1) == "Ray has not answered for 45 s" and watch.has_died()
        silent.set()


def test_an_answer_ends_a_silence(clock):
    ask = threading.Semaphore(0)
    with RayWatch(lambda: ask.acquire(timeout=60)) as watch:
        for _ in range(3):
            assert look(watch, clock, 40) is None
            ask.release()
            assert watch._answered.wait(10)
        ask.release(100)


def test_a_machine_that_ray_takes_for_dead_is_not_waited_for_and_errors_are_no_answers(clock):
    def raises():
        raise RuntimeError("no connection")

    with RayWatch(raises) as watch:
        assert look(watch, clock, 44) is None and not watch.dies()
        assert look(watch, clock, 3) == "Ray has not answered for 45 s"
    watch = RayWatch(lambda: False)
    assert watch.dies() and watch.problem() == "Ray takes this machine for dead: its raylet does not answer"
