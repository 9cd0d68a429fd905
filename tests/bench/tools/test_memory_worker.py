"""The processes of ``compare_memory``: one measures at a time, and none outlives its parent or spoils the others."""

import re
import subprocess
import sys
import time

import psutil
import pytest

from bench.records.memory import MIB
from bench.tools.memory_worker import Task, measured_alone

CHILD = """
import pathlib, psutil, sys, time
task, folder = sys.stdin.readline(), pathlib.Path(sys.argv[1])
number = task.split('"number":')[1].split("}")[0]
with open(folder / "log", "a") as log: log.write(f"built {number}\\n")
print("ready", flush=True)
sys.stdin.readline()
with open(folder / "log", "a") as log: log.write(f"begins {number}\\n")
sys.stderr.write("a warning\\n" * 20000)  # more than a pipe holds
print("timing", flush=True)
sys.stdin.readline()
time.sleep(0.3)
me = psutil.Process()
alike = [c for c in me.parent().children() if c.pid != me.pid and c.status() not in ("stopped", "zombie")]
others = [child for child in alike if child.cmdline() == me.cmdline()]
with open(folder / "log", "a") as log: log.write(f"ends {number} beside {len(others)}\\n")
if number == "1": sys.exit("no memory")
print('{"memory": {"torch_allocated_bytes": ' + number + '}, "seconds": [1.0]}')
"""


def test_models_are_built_beside_each_other_and_measured_alone(tmp_path):
    tasks = [Task(config={"number": number}) for number in range(4)]
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    answers = list(measured_alone(tasks, command, tmp_path / "lock", lambda: None))
    assert [answer.result and answer.result.memory.torch_allocated_bytes for answer in answers] == [0, None, 2, 3]
    assert answers[1].error == "no memory"
    log = (tmp_path / "log").read_text().splitlines()
    alone = [line for line in log if not line.startswith("built")]
    assert alone == [line for n in range(4) for line in (f"begins {n}", f"ends {n} beside 0")]
    assert log.index("built 1") < log.index("begins 2")


def test_the_card_is_waited_for_until_the_context_is_gone(tmp_path):
    """The lock is held until NVML shows what it showed before the process."""
    readings = iter([5 * MIB, 700 * MIB, 600 * MIB, 5 * MIB])
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    list(measured_alone([Task(config={"number": 0})], command, tmp_path / "lock", lambda: next(readings)))
    assert next(readings, None) is None


STOPPED = """
import os, signal
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)  # at once, as during the imports
"""
PARENT = """
import sys, time
from bench.tools.memory_worker import Task, _start
child = _start(Task(config={}), [sys.executable, "-c", sys.argv[1]])
print(child.process.stdout.readline(), flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_stopped_process_ends_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT, STOPPED], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        while child.status() != psutil.STATUS_STOPPED:
            time.sleep(0.02)
        parent.kill()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


ENDS = """
import os, sys
print("ready", flush=True)
sys.stdin.readline(), sys.stdin.readline()
print("timing", flush=True)
sys.stdin.readline()
print('{"memory": {"torch_allocated_bytes": 5}}')
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('print("ready"', "sys.exit('early'); print('ready'", "early"),
        ('print("timing"', "os.kill(os.getpid(), 9); print('timing'", "it ended by signal 9 and without a result"),
        ('print("timing"', "sys.exit(0); print('timing'", "it ended with exit code 0 and without a result"),
        ("print('{", "print('[3]'); sys.exit(0); print('{", "it ended with exit code 0 and without a result"),
        ("print('{", "print('{'); sys.exit('no memory'); print('{", "no memory"),
        ("print('{", "os.write(1, bytes([255, 10])); print('{", ""),
        ("5}}')", "5}}'); print('goodbye')", ""),
    ],
)
def test_whatever_a_process_prints_and_wherever_it_ends_the_others_are_measured(old, new, expected, tmp_path):
    assert old in ENDS
    code = ENDS.replace(old, new, 1)
    tasks = [Task(config={})] * 2
    answers = list(measured_alone(tasks, [sys.executable, "-c", code], tmp_path / "lock", lambda: None))
    assert len(answers) == 2
    for answer in answers:
        assert bool(answer.result) == (not expected) and re.fullmatch(expected, answer.error)
