"""Adapters between Ray Tune and the suite's queue of trials: Tune takes trials from it and reports events to it."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from bench.processes.client import ForkServer
from bench.scheduling.ray_tune import worker
from bench.scheduling.ray_tune.connection import Node
from bench.scheduling.ray_tune.health import RayWatch
from bench.scheduling.ray_tune.nodes import is_alive, kill_trial_on
from bench.scheduling.trial_queue import TrialQueue
from bench.training.loop import Epoch


class StopTune(BaseException):
    """Ends Tune from within. It is no ``Exception``: Tune would first stop its trials, one by one, and wait for them."""


class TrialSupply(Searcher):
    """Gives Tune a trial when there is room for one.

    It searches nothing. A ``Searcher`` is Tune's only interface that is called at that moment. Only then may a trial be
    locked: another driver may run it meanwhile, and Ctrl-C has to stop the supply. The empty methods turn off Tune's
    own resuming, since trials are resumed from their records.
    """

    def __init__(self, queue: TrialQueue, points: list[dict[str, Any]], server: ForkServer | None) -> None:
        super().__init__()
        self.queue, self.points, self.server = queue, points, server

    def __getstate__(self) -> dict:
        return {}

    def suggest(self, trial_id: str) -> Any:
        index = self.queue.take()
        if index is not None:
            return {"point": {**self.points[index], "server": self.server and self.server.address}}
        return Searcher.FINISHED if self.queue.exhausted else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class QueueCallback(tune.Callback):
    """Passes Tune's events on to the queue, kills trials that the queue wants killed, and finishes those that ended."""

    def __init__(self, queue: TrialQueue, *, may_lose_nodes: bool, watch: RayWatch = RayWatch(lambda: True)) -> None:
        """watch: knows whether Ray has died. Then Tune's events say nothing about the trials."""
        self.queue, self.may_lose_nodes, self.watch = queue, may_lose_nodes, watch
        self.ignored = threading.Event()
        """Set when the driver no longer waits for Tune: later events do not count."""
        self.nodes: dict[int, str] = {}
        """Node of each trial."""
        self.processes: dict[int, tuple[int, float]] = {}
        """Number and start time of each trial's process."""
        self.killed: set[int] = set()
        self.ended: dict[int, str] = {}
        """How processes ended that left no record."""
        self.lost: set[int] = set()
        """Trials that ended because their fork server died."""
        self.died: dict[int, str] = {}
        """Trials that may have died with their node, and Ray's reason."""

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its callbacks in order to restore them; trials are resumed from their records

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self._check_ray()
        self.queue.tick()
        for trial in trials:
            index = _index(trial)
            if trial.status == "RUNNING" and index not in self.killed and self.queue.kill_reason(index):
                self.killed.add(index)
                ray.kill(trial.temporary_state.ray_actor)
                self._kill_process(index)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._check_ray()
        self.queue.start(_index(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Handles an event that ``worker.trial`` has reported; its keys tell its kind."""
        self._check_ray()
        index = _index(trial)
        if "node" in result:
            self.nodes[index] = result["node"]
        if "files" in result:
            self.queue.receive_files(index, result["files"])
            result["files"].clear()  # Tune would keep the files in memory and write them
        elif "process" in result:
            self.processes[index] = tuple(result["process"])
        elif "ended" in result:
            self.ended[index] = result["ended"]
            if result.get("lost"):
                self.lost.add(index)
        elif "problem" in result:
            self.queue.note(index, result["problem"])
        elif "epoch" in result:
            fields = {field.name: result[field.name] for field in dataclasses.fields(Epoch)}
            self.queue.report_epoch(index, Epoch(**fields))
        else:
            self.queue.heartbeat(index)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._check_ray()
        index = _index(trial)
        reason = self.ended.pop(index, "the process ended without a record")
        if index not in self.lost or not self.queue.retry_once(index, reason):
            self._finish_or_keep(index, reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._check_ray(died=self.watch.dies())
        index = _index(trial)
        self._kill_process(index)  # its worker is dead and no longer waits for it
        self._finish_or_keep(index, _error_of_worker(trial))

    def _check_ray(self, died: bool = False) -> None:
        if died or self.ignored.is_set() or self.watch.has_died():
            raise StopTune

    def _kill_process(self, index: int) -> None:
        """Kills a trial's process directly: its worker is dead, and its fork server may be dead or stopped."""
        if index not in self.processes:
            return
        if self.may_lose_nodes:
            kill_trial_on(self.nodes[index], *self.processes[index])
        else:
            worker.kill_trial(*self.processes[index])

    def _finish_or_keep(self, index: int, reason: str) -> None:
        """Finishes a trial, or keeps it for ``finish_rest`` if it may have died with its node."""
        if self.may_lose_nodes and not self.queue.has_record(index) and not self.queue.kill_reason(index):
            self.died[index] = reason
        else:
            self.queue.finish(index, reason)

    def finish_rest(self, nodes: list[Node], *, last: bool) -> None:
        """Puts trials back that died with their node, unless this is the last attempt; finishes the others that died.

        nodes: those at the start. A trial that has not reported its node yet is put back if any of them has died.
        """
        if not self.died:
            return
        known = {node.node_id for node in nodes}
        alive = {node_id: is_alive(node_id) for node_id in known | set(self.nodes.values())}
        for index, reason in self.died.items():
            candidates = {self.nodes[index]} if index in self.nodes else known
            if not last and not all(alive[node_id] for node_id in candidates):
                self.queue.put_back(index)
            else:
                self.queue.finish(index, reason)


def _error_of_worker(trial: Any) -> str:
    """Why the worker of a trial died: Ray's message, then a line of our own."""
    try:
        message = Path(trial.error_file).read_text(errors="replace").partition("\n")[2].strip()
    except (OSError, TypeError):  # Ray has written no file
        message = ""
    how = "Ray's process that waits for the trial died (often the kernel's doing, when memory runs out)"
    return f"{message}\n{how}".strip()


def _index(trial: Any) -> int:
    return trial.config["point"]["index"]
