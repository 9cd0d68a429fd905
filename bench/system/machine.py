"""Cores and memory that this process may use, within its CPU affinity and its control groups.

``taskset``, Slurm and cpusets bind a process to cores. Containers and Slurm also put it into control groups (cgroups,
version 1 or 2), whose limits hold at every level of their hierarchy. The imports of this module are fast.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cores(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Counts the cores that this process may use, at least 1, within its affinity and the quotas of its control groups.

    Fractions are rounded down. With more threads than the quota, the kernel would pause all of them for a part of each
    period, and measured speeds would include the pauses.

    groups: folder in which control groups are mounted. own: file that names the control groups of this process.
    """
    usable: float = _bound()
    for group in _levels("cpu", groups, own):
        quota = _quota(group)
        if quota is not None:
            usable = min(usable, quota)
    return max(1, math.floor(usable))


def cores_in_words() -> str:
    """Returns ``this machine has 16 cores``, or ``this process may use 4 of 96 cores``."""
    usable, there = cores(), os.cpu_count() or 1
    of_all = f"{there} core" if there == 1 else f"{there} cores"
    return f"this machine has {of_all}" if usable == there else f"this process may use {usable} of {of_all}"


def free_bytes(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Returns the memory that this process may still allocate: that of the machine, within its control groups.

    Files that a control group holds in memory count as free, as they do for the machine.
    """
    return max(0, min([psutil.virtual_memory().available, *_left(groups, own)]))


def _bound() -> int:
    """Counts the cores that this process may be scheduled on."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; it obeys PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(group: Path) -> float | None:
    """Returns the CPU time per period in cores; ``None`` without a limit."""
    quota, period = _numbers(group / "cpu.max", 2) or (None, None)  # version 2
    if quota is None:
        (quota,) = _numbers(group / "cpu.cfs_quota_us", 1) or (None,)
        (period,) = _numbers(group / "cpu.cfs_period_us", 1) or (None,)
    return quota / period if quota and period and quota > 0 else None  # -1 is no limit in version 1


def _left(groups: Path, own: Path) -> Iterator[int]:
    """Yields the bytes left below the limit of each control group that has one."""
    names = (("memory.max", "memory.current"), ("memory.high", "memory.current"))  # version 2
    names += (("memory.limit_in_bytes", "memory.usage_in_bytes"),)
    for group in _levels("memory", groups, own):
        for of_limit, of_use in names:
            limit, use = _numbers(group / of_limit, 1), _numbers(group / of_use, 1)
            if limit and use:
                yield limit[0] - use[0] + _files_in_memory(group)


def _files_in_memory(group: Path) -> int:
    """Returns the bytes of cached files, which the kernel can free at once."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        kinds = ("inactive_file", "active_file")
        return sum(int(stat.get(f"total_{kind}", stat.get(kind, 0))) for kind in kinds)  # total_: in version 1
    except (OSError, ValueError):
        return 0


def _levels(controller: str, groups: Path, own: Path) -> Iterator[Path]:
    """Yields the control groups of this process that a controller may limit, each with all groups above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = {groups, groups / "unified"}  # version 2, alone or together with version 1
        elif controller in controllers.split(","):
            mounts = {groups / controllers, groups / controller}
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:  # in a container the path may be the host's; a missing group has no limit
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _numbers(path: Path, count: int) -> tuple[int, ...] | None:
    """Returns the whole numbers in a file; ``None`` for a missing file, and for ``max``, which means no limit."""
    try:
        found = tuple(map(int, path.read_text().split()))
    except (OSError, ValueError):
        return None
    return found if len(found) == count else None
