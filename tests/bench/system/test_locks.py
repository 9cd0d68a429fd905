"""A lock belongs to one process, and to none once that process is dead."""

import os
import signal
import subprocess
import sys
import threading

from bench.system.locks import ProcessLock, owner_of

HOLD = """
import sys
from pathlib import Path
from bench.system.locks import ProcessLock
print(ProcessLock.acquire(Path(sys.argv[1])) is not None, flush=True)
sys.stdin.read()
"""


def test_only_one_has_a_claim_and_it_says_who(tmp_path):
    path = tmp_path / ".resume" / "abc.lock"
    first = ProcessLock.acquire(path)
    assert first is not None and ProcessLock.acquire(path) is None
    assert owner_of(path).startswith(f"process {os.getpid()} on ")
    first.release()
    assert not path.parent.exists(), "nothing is left behind"
    second = ProcessLock.acquire(path)
    assert second is not None
    second.release()


def test_a_claim_dies_with_its_process(tmp_path):
    path = tmp_path / "abc.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "True\n"
        assert ProcessLock.acquire(path) is None and owner_of(path).startswith(f"process {holder.pid} on ")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock = ProcessLock.acquire(path)
    assert lock is not None
    lock.release()


def test_however_many_try_at_once_one_at_a_time_has_it(tmp_path):
    """Taken and released under each other's eyes: a lock on a file that is being removed must not count."""
    path, inside, worst, had = tmp_path / "locks" / "abc.lock", [0], [0], [0] * 4

    def compete(number):
        while had[number] < 50:
            lock = ProcessLock.acquire(path)
            if lock is None:
                continue
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            had[number] += 1
            inside[0] -= 1
            lock.release()

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert worst == [1] and had == [50] * 4
