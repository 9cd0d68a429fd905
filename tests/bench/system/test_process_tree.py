"""The processes that a driver has started are ended without fail, whoever their parent is by now."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import wait_for

from bench.system.process_tree import MARK, ProcessTree, is_dead, kill_group

SLEEP = ["sleep", "60"]
PARENT = """
import subprocess, sys, time
print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def begin():
    """Starts a process that does not outlive its test."""
    started = []

    def start(command, **options):
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def parent(begin, seconds, **options):
    """A process that lives for some seconds, and its child, which lives for longer."""
    started = begin([sys.executable, "-c", PARENT, str(seconds)], stdout=subprocess.PIPE, text=True, **options)
    return started, psutil.Process(int(started.stdout.readline()))


def test_an_orphan_is_ended_and_what_was_started_before_or_elsewhere_is_not(begin):
    other = begin(SLEEP)
    with ProcessTree() as tree:
        dead, orphan = parent(begin, 0)
        dead.wait()
        orphan.suspend()
        hidden = begin(SLEEP, env={"PATH": os.environ["PATH"]})  # as one that has overwritten its environment
        tree.track_children()
        tree.kill()
    assert hidden.wait(5) == -signal.SIGKILL and is_dead(orphan) and other.poll() is None


def test_its_mark_is_gone_when_it_is_left(monkeypatch):
    monkeypatch.delenv(MARK, raising=False)
    with ProcessTree():
        outer = os.environ[MARK]
        with ProcessTree():
            assert os.environ[MARK] != outer
        assert os.environ[MARK] == outer
    assert MARK not in os.environ


def test_the_end_of_a_leader_is_that_of_its_group_even_if_it_is_stopped(begin):
    leader, child = parent(begin, 60, start_new_session=True)
    leader.send_signal(signal.SIGSTOP)
    kill_group(psutil.Process(leader.pid))
    wait_for(lambda: is_dead(child), seconds=10)
    kill_group(child)  # of the dead nothing is asked
    kill_group(None)


@pytest.mark.parametrize("end", ["of the parent", "of the listener"])
def test_a_process_ends_with_its_parent_and_with_who_listens(begin, end):
    code = "import os; from bench.system.process_tree import exit_with_parent; parent = os.getppid(); "
    code += "print(os.getpid(), flush=True); exit_with_parent(parent, 1)"
    if end == "of the listener":
        child = begin([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(10) == 1
    else:
        shell = begin(["sh", "-c", f"{sys.executable} -c '{code}'; true"], stdout=subprocess.PIPE, text=True)
        process = psutil.Process(int(shell.stdout.readline()))
        shell.kill()
        wait_for(lambda: is_dead(process), seconds=10)


def test_who_counts_as_dead(begin):
    child = begin(SLEEP)
    process = psutil.Process(child.pid)
    assert is_dead(None) and not is_dead(process)
    child.kill()
    wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert is_dead(process)
    child.wait()
    assert is_dead(process)
