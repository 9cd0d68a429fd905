"""What a process may use, read from control groups that lie on disk as the kernel shows them, in both versions."""

import os
import subprocess
import sys

import psutil
import pytest
from conftest import REPOSITORY

from bench.system import machine

GIB = 2**30


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """``asked({file: text}, own)`` is cores and free GiB of a process bound to 64 cores; 500 GiB are available."""
    monkeypatch.setattr(machine, "_bound", lambda: 64)
    memory = psutil.virtual_memory()._replace(available=500 * GIB)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory)

    def ask(files: dict[str, str], own: str) -> tuple[int, float]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        (tmp_path / "own").write_text(f"{own}\n")
        place = tmp_path, tmp_path / "own"
        return machine.cores(*place), machine.free_bytes(*place) / GIB

    return ask


ROOM = {"memory.max": f"{8 * GIB}", "memory.current": f"{3 * GIB}"}
SLURM = "slurm/uid_1/job_2/step_0"


@pytest.mark.parametrize(
    ("files", "own", "cores", "free"),
    [
        ({}, "0::/", 64, 500),
        ({"cpu.max": "400000 100000", **ROOM}, "0::/", 4, 5),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "7"}, "0::/", 64, 500),
        ({"cpu.max": "150000 100000"}, "0::/", 1, 500),
        ({"cpu.max": "50000 100000"}, "0::/", 1, 500),
        ({"cpu.max": "9900000 100000"}, "0::/", 64, 500),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "max 100000"}, "0::/a/b", 3, 500),
        ({f"a/{name}": text for name, text in ROOM.items()}, "0::/a/b/c", 64, 5),
        ({**ROOM, "memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB}"}, "0::/", 64, 7),
        ({**ROOM, "memory.high": f"{4 * GIB}"}, "0::/", 64, 1),
        ({**ROOM, "memory.max": f"{2 * GIB}"}, "0::/", 64, 0),
        ({"unified/a/cpu.max": "200000 100000"}, "1:name=systemd:/\n0::/a", 2, 500),
        ({"cpu.max": "400000 100000"}, "0::/../../job", 4, 500),
        ({"cpu.max": "junk", "memory.max": "", "memory.current": "junk"}, "junk\n0::/", 64, 500),
        (
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/a\n3:memory:/a",
            2,
            500,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", 64, 500),
        ({"cpu/cpu.cfs_quota_us": "800000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/docker/1f0c", 8, 500),
        (
            {
                "memory/slurm/uid_1/memory.limit_in_bytes": f"{64 * GIB}",
                "memory/slurm/uid_1/memory.usage_in_bytes": f"{60 * GIB}",
                f"memory/{SLURM}/memory.limit_in_bytes": f"{32 * GIB}",
                f"memory/{SLURM}/memory.usage_in_bytes": f"{16 * GIB}",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": f"{100 * GIB}",
                "memory/slurm/uid_1/memory.stat": f"inactive_file 0\ntotal_inactive_file {2 * GIB}",
            },
            f"3:memory:/{SLURM}",
            64,
            6,
        ),
    ],
    ids=[
        "no limits",
        "limits",
        "max",
        "a fraction",
        "half a core",
        "more than bound",
        "a limit above",
        "a group that is not shown",
        "files in memory",
        "a level that throttles",
        "more used than allowed",
        "beside version 1",
        "outside of the namespace",
        "junk",
        "version 1",
        "version 1 without limits",
        "version 1 with the host's path",
        "version 1, Slurm",
    ],
)
def test_limits_hold_at_every_level_of_both_versions(asked, files, own, cores, free):
    assert asked(files, own) == (cores, free)


def test_where_there_are_no_control_groups_the_machine_is_the_limit(tmp_path):
    assert machine.cores(tmp_path, tmp_path / "none") == machine._bound()
    assert 0 < machine.free_bytes(tmp_path, tmp_path / "none") <= psutil.virtual_memory().total


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_is_bound_to_a_core_uses_one():
    """For real, and through the command line: what Ray and the pools are told comes from the same function."""
    code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    code += "from bench.system import machine; print(machine.cores(), machine.cores_in_words())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    several = (os.cpu_count() or 1) > 1
    words = f"this process may use 1 of {os.cpu_count()} cores" if several else "this machine has 1 core"
    assert done.stdout.strip() == f"1 {words}"


def test_nothing_else_counts_cores_or_memory():
    """A second way to ask would answer for the whole machine."""
    asking = ("cpu_count", "virtual_memory", "sched_getaffinity")
    files = [path for package in ("bench", "models") for path in (REPOSITORY / package).rglob("*.py")]
    found = {path.name for path in files if any(word in path.read_text() for word in asking)}
    assert found == {"machine.py"}


def test_it_imports_nothing_that_takes_long():
    code = "import sys, bench.system.machine; print(sorted({'torch', 'numpy', 'pydantic', 'ray'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
