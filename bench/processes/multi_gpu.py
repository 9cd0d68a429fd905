"""One trial on several GPUs of a machine: starts a process for each (``bench.processes.gpu_process``) and joins what they measured.

``python -m bench.processes.multi_gpu`` reads the trial (a ``bench.processes.client.Request``) as a line from standard input, tells on standard
output how it goes on, and leaves its record. It ends with whoever started it, whose end closes the input.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet

from bench.config.trial import TrialConfig
from bench.processes.client import Request
from bench.processes.events import end_with_input, hear, telling
from bench.processes.trial_process import leave
from bench.records.failures import in_words, without_record
from bench.records.memory import PEAKS, Memory
from bench.records.record import RankMemory, TrialRecord
from bench.records.store import load
from bench.training.loop import Epoch

POLL_SECONDS = 0.1


def run_parallel(
    request: Request,
    *,
    on_epoch: Callable[[Epoch], Any] = lambda epoch: None,
    on_step: Callable[[], Any] = lambda: None,
) -> TrialRecord:
    """``bench.trial.run_trial`` on ``request.gpus`` GPUs, among which its threads are divided. Never raises, either.

    On a CPU it runs as many processes, which is good for nothing but tests. The record is that of rank 0, its memory in
    training that of the rank that needed most. Checkpoints are rank 0's, with the random states of all.
    """
    config, count = TrialConfig.model_validate_json(request.config), request.gpus
    with tempfile.TemporaryDirectory(prefix="sam3-bench-") as folder:
        children = [_start(rank, request, Path(folder)) for rank in range(count)]
        failed: list[tuple[int, int]] = []
        watch = Thread(target=_watch, args=(children, failed))
        watch.start()
        try:
            for line in children[0].stdout:
                hear(line, on_epoch, on_step)
            watch.join()
        finally:
            for child in children:
                child.kill()
                child.communicate()
        if failed:
            return _failure(config, failed, Path(folder), count)
        return _joined([_load(Path(folder) / str(rank), config.trial_id) for rank in range(count)])


def _start(rank: int, request: Request, folder: Path) -> subprocess.Popen:
    with (folder / f"{rank}.stderr").open("wb") as complaints:
        command = [sys.executable, "-m", "bench.processes.gpu_process", str(rank), str(folder)]
        output = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=complaints, text=True)
    try:
        child.stdin.write(f"{request.to_json()}\n")
        child.stdin.flush()  # and left open: its end would end the child
    except BrokenPipeError:
        pass  # it died before it had read its trial; _watch sees it
    return child


def _watch(children: list[subprocess.Popen], failed: list[tuple[int, int]]) -> None:
    """Waits for all ranks. Notes which failed first, with their exit codes, and ends the others: they wait in vain."""
    while True:
        codes = [child.poll() for child in children]
        failed += [(rank, code) for rank, code in enumerate(codes) if code]
        if failed:
            for child in children:
                child.kill()
        if failed or None not in codes:
            return
        time.sleep(POLL_SECONDS)


def _failure(config: TrialConfig, failed: list[tuple[int, int]], folder: Path, count: int) -> TrialRecord:
    """The record of the rank that failed first, or one that says how it died: others fail because of it."""
    killed = [(rank, code) for rank, code in failed if code < 0]
    paths = [path for rank in range(count) if (path := folder / str(rank) / f"{config.trial_id}.json").exists()]
    broken = [(path.stat().st_mtime_ns, path) for path in paths if load(path).status != "ok"]
    if broken and not killed:
        path = min(broken)[1]
        record = load(path)
        return record.model_copy(update={"error": f"rank {path.parent.name} of {count}: {record.error}"})
    rank, code = (killed or failed)[0]
    said = (folder / f"{rank}.stderr").read_text(errors="replace")
    how = f"rank {rank} of {count}: {in_words(code)}"
    raw = config.model_dump(mode="json")
    return TrialRecord(trial_id=config.trial_id, status="error", error=without_record(said, how), config=raw)


def _joined(records: list[TrialRecord]) -> TrialRecord:
    first, memory = records[0], records[0].memory or {}
    peaks = [record.memory["training"] for record in records if record.memory and "training" in record.memory]
    if not peaks:
        return first
    largest = max(range(len(peaks)), key=lambda rank: _size(peaks[rank]))
    ranks = RankMemory(largest=largest, training=peaks)
    return first.model_copy(update={"memory": {**memory, "training": peaks[largest]}, "ranks": ranks})


def _size(peak: Memory) -> tuple[int, ...]:
    return tuple(getattr(peak, measure) or 0 for measure in PEAKS)


def _load(folder: Path, trial_id: str) -> TrialRecord:
    """A record with what lies beside its JSON."""
    record = load(folder / f"{trial_id}.json")
    tables = {"image_scores": "images.parquet", "memory_series": "memory.parquet", "samples": "samples.parquet"}
    found = {field: folder / f"{trial_id}.{kind}" for field, kind in tables.items()}
    more = {f: pyarrow.parquet.read_table(path).to_pydict() for f, path in found.items() if path.exists()}
    weights = folder / f"{trial_id}.safetensors"
    return record.model_copy(update={**more, "checkpoint": weights.read_bytes() if weights.exists() else None})


def main() -> int:
    request = Request.from_json(sys.stdin.readline())
    Thread(target=end_with_input, daemon=True).start()
    with telling() as (tell, alive):
        record = run_parallel(request, on_epoch=tell, on_step=alive)
    leave(record, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
