"""One trial on several GPUs of a machine: a launcher, and a worker for each GPU.

``python -m bench.processes.multi_gpu`` is the launcher. It reads the trial (a ``bench.processes.request.Request``) as a
line from standard input, starts the workers, reports events (``bench.processes.events``) on standard output, joins the
records of the workers and saves the result.

``python -m bench.processes.multi_gpu RANK FOLDER`` is a worker. It reads the same line, meets the others in FOLDER, and
leaves its record in FOLDER/RANK; the worker of rank 0 reports events. RANK is the rank of torch.distributed, which is
the number of the GPU.

Both end with their parent, whose end closes their input.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet
import torch
import torch.distributed as dist

from bench.config.trial import TrialConfig
from bench.processes.events import dispatch_event, exit_with_input, report_events
from bench.processes.request import Request
from bench.processes.trial_process import checkpoints_of, save_record, throttled
from bench.records.failures import in_words, without_record
from bench.records.memory import PEAKS, Memory
from bench.records.record import RankMemory, TrialRecord
from bench.records.store import load
from bench.training.data_parallel import Share
from bench.training.loop import Epoch
from bench.trial import run_trial

POLL_SECONDS = 0.1
BARRIER_TIMEOUT = timedelta(days=1)
"""Time that a worker waits for the others, which may be validating. The launcher notices when one of them dies."""


# --- the launcher -----------------------------------------------------------------------------------------------------


def run_parallel(
    request: Request,
    *,
    on_epoch: Callable[[Epoch], Any] = lambda epoch: None,
    on_step: Callable[[], Any] = lambda: None,
) -> TrialRecord:
    """``bench.trial.run_trial`` on ``request.gpus`` GPUs, among which its threads are divided. It never raises, either.

    On a CPU it starts as many workers, which only tests use. The record is that of rank 0; its memory in training is
    that of the worker with the largest peak. Rank 0 keeps the training states, with the random states of all workers.
    """
    config, count = TrialConfig.model_validate_json(request.config), request.gpus
    with tempfile.TemporaryDirectory(prefix="sam3-bench-") as folder:
        workers = [_start(rank, request, Path(folder)) for rank in range(count)]
        failed: list[tuple[int, int]] = []
        watch = Thread(target=_watch, args=(workers, failed))
        watch.start()
        try:
            for line in workers[0].stdout:
                dispatch_event(line, on_epoch, on_step)
            watch.join()
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
        if failed:
            return _failure(config, failed, Path(folder), count)
        return _joined([_load(Path(folder) / str(rank), config.trial_id) for rank in range(count)])


def _start(rank: int, request: Request, folder: Path) -> subprocess.Popen:
    with (folder / f"{rank}.stderr").open("wb") as stderr:
        command = [sys.executable, "-m", "bench.processes.multi_gpu", str(rank), str(folder)]
        output = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=stderr, text=True)
    try:
        worker.stdin.write(f"{request.to_json()}\n")
        worker.stdin.flush()  # and left open: the worker ends with its input
    except BrokenPipeError:
        pass  # it died before it had read its request; _watch notices it
    return worker


def _watch(workers: list[subprocess.Popen], failed: list[tuple[int, int]]) -> None:
    """Waits for all workers. Notes which failed first, with their exit codes, and kills the others: they would hang."""
    while True:
        codes = [worker.poll() for worker in workers]
        failed += [(rank, code) for rank, code in enumerate(codes) if code]
        if failed:
            for worker in workers:
                worker.kill()
        if failed or None not in codes:
            return
        time.sleep(POLL_SECONDS)


def _failure(config: TrialConfig, failed: list[tuple[int, int]], folder: Path, count: int) -> TrialRecord:
    """The record of the worker that failed first, or a record that says how it died. Others fail because of it."""
    killed = [(rank, code) for rank, code in failed if code < 0]
    broken = []
    for rank in range(count):
        path = folder / str(rank) / f"{config.trial_id}.json"
        if path.exists() and load(path).status != "ok":
            broken.append((path.stat().st_mtime_ns, path))
    if broken and not killed:
        path = min(broken)[1]
        record = load(path)
        return record.model_copy(update={"error": f"rank {path.parent.name} of {count}: {record.error}"})
    rank, code = (killed or failed)[0]
    stderr = (folder / f"{rank}.stderr").read_text(errors="replace")
    how = f"rank {rank} of {count}: {in_words(code)}"
    raw = config.model_dump(mode="json")
    return TrialRecord(trial_id=config.trial_id, status="error", error=without_record(stderr, how), config=raw)


def _joined(records: list[TrialRecord]) -> TrialRecord:
    """The record of rank 0 with the largest training peak of all workers."""
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
    """Loads a record with the files that accompany its JSON."""
    record = load(folder / f"{trial_id}.json")
    tables = {"image_scores": "images.parquet", "memory_series": "memory.parquet", "samples": "samples.parquet"}
    more: dict[str, Any] = {}
    for field, kind in tables.items():
        path = folder / f"{trial_id}.{kind}"
        if path.exists():
            more[field] = pyarrow.parquet.read_table(path).to_pydict()
    for field, kind in {"checkpoint": "safetensors", "snapshot": "snapshot.pickle"}.items():
        path = folder / f"{trial_id}.{kind}"
        if path.exists():
            more[field] = path.read_bytes()
    return record.model_copy(update=more)


def _launch(request: Request) -> int:
    with report_events() as (report_epoch, heartbeat):
        record = run_parallel(request, on_epoch=report_epoch, on_step=heartbeat)
    save_record(record, request)
    return 0


# --- a worker ---------------------------------------------------------------------------------------------------------


def _work(request: Request, rank: int, folder: Path) -> int:
    """Trains this GPU's share of each batch; returns the exit code."""
    config, share = TrialConfig.model_validate_json(request.config), Share(rank, request.gpus)
    backend = "gloo"
    if config.device == "cuda":
        torch.cuda.set_device(rank)
        backend = "nccl"
    meeting = f"file://{folder.resolve()}/meeting"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=share.of, timeout=BARRIER_TIMEOUT)

    with report_events() as (report_epoch, heartbeat):  # the launcher reads those of rank 0 only
        record = run_trial(
            config,
            threads=max(1, request.threads // share.of),
            trials_at_once=request.trials_at_once,
            on_epoch=report_epoch,
            on_step=throttled(heartbeat),
            checkpoints=checkpoints_of(request, share),
            share=share,
        )
    own = folder / str(rank)
    own.mkdir()
    record.save(own)
    if record.status != "ok":
        return 1  # without waiting for the others, which wait for this one
    dist.barrier()
    dist.destroy_process_group()
    return 0


def main(arguments: list[str]) -> int:
    request = Request.from_json(sys.stdin.readline())
    Thread(target=exit_with_input, daemon=True).start()
    if not arguments:
        return _launch(request)
    rank, folder = arguments
    return _work(request, int(rank), Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
