"""The origin of a record: code, packages, machine, weights and data."""

import hashlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import bench
from bench.datasets import Data
from bench.datasets.core import cache
from bench.records.record import Provenance

PACKAGES = ("torch", "sam3", "timm", "peft", "numpy", "pysodmetrics", "ray")
COMMIT = "SAM3_BENCH_COMMIT"
"""Environment variable with the commit of the code, for a copy of it on a node of a cluster."""
SOURCES = ("bench", "models", "ablations", "pyproject.toml")


def provenance(device: torch.device, trials_at_once: int) -> Provenance:
    """Returns the origin of a trial before it reads weights and data."""
    on_gpu = device.type == "cuda"
    commit, dirty = _commit()
    return Provenance(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        host_cpu=_cpu_name(),
        threads=torch.get_num_threads(),
        trials_at_once=trials_at_once,
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        driver=_driver() if on_gpu else None,
        cuda=torch.version.cuda if on_gpu else None,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        versions={name: _version(name) for name in PACKAGES},
    )


def commit_in_words() -> str:
    """Returns the value of ``$SAM3_BENCH_COMMIT``: the commit, and ``dirty`` after it if sources were changed."""
    commit, dirty = _commit()
    return f"{commit or ''} dirty" if dirty else commit or ""


def with_inputs(known: Provenance, weight_files: list[Path], data: Data) -> Provenance:
    """Adds the weights and data of the trial."""
    return known.model_copy(
        update={
            "weights": {path.name: file_sha256(path) for path in weight_files},
            "dataset_fingerprint": data.fingerprint,
            "source_fingerprint": data.source_fingerprint,
            "set_fingerprints": data.set_fingerprints,
            "images": {
                name: len(split) for name, split in {"train": data.train, "val": data.val, **data.tests}.items()
            },
        }
    )


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file. It is cached by size and time, because hashing 3.4 GB takes seconds."""
    status = path.stat()
    key = ["sha256", str(path.resolve()), status.st_size, status.st_mtime_ns]

    def compute() -> str:
        state = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                state.update(chunk)
        return state.hexdigest()

    return cache.remembered(key, compute)


def _commit() -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout of this code, and whether sources were changed since."""
    root = Path(bench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        commit, _, state = os.environ.get(COMMIT, "").partition(" ")
        return (commit, state == "dirty") if commit else (None, None)
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *SOURCES)
    return commit, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    """Returns the name of the processor and the instructions that torch uses, because results depend on them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        name = next(models, platform.machine())
    except OSError:
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _driver() -> str | None:
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else None
