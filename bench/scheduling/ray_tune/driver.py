"""The driver's side of Ray Tune: connects to Ray, runs Tune, and observes that both live."""

import gc
import itertools
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from uuid import uuid4

import ray
from ray import tune

from bench.config.expand import Trial
from bench.datasets.core.sources import Source
from bench.processes.client import ForkServer
from bench.scheduling import cluster
from bench.scheduling.ray_tune import worker
from bench.scheduling.ray_tune.actors import CheckpointStore, actor_on
from bench.scheduling.ray_tune.adapters import QueueCallback, StopTune, TrialSupply
from bench.scheduling.ray_tune.connection import connected
from bench.scheduling.ray_tune.health import RayWatch
from bench.scheduling.ray_tune.nodes import check_nodes, start_fork_servers, this_machine_is_a_node
from bench.scheduling.resources import Resources
from bench.scheduling.trial_queue import TrialQueue
from bench.system.files import OwnFolder
from bench.system.interrupt import Interrupts
from bench.system.process_tree import ProcessTree
from bench.training import training_state

POLL_SECONDS = 0.25
LEAVE_SECONDS = 10
"""Time that Tune has to return when the driver stops."""
ATTEMPTS = 3
"""Number of times that a trial is started whose node dies."""


class RayDied(Exception):
    """Ray died while trials ran; its text says how."""


class RayExecutor(ExitStack):
    """Runs trials on Ray, to which it is connected until its exit."""

    def __init__(self, resources: Resources, trials: Sequence[Trial], tree: ProcessTree) -> None:
        """trials: their code and small weight files are sent to a cluster. tree: tracks Ray's processes on this
        machine. Raises ``ConfigError`` where Ray cannot be started or joined."""
        super().__init__()
        self.resources, self.tree = resources, tree
        self.nodes = self.enter_context(connected(resources, list(trials), tree))
        self._fork_servers: list[Any] = []

    def check_nodes(
        self, trials: Sequence[Trial], configs: Sequence[str], sources: Sequence[Source], validated_by: str | None
    ) -> cluster.Preflight:
        """Inspects every node of a cluster, and starts a fork server on each.

        configs: trials (as JSON) for whose models the fork servers import. Raises ``ConfigError``.
        """
        self._fork_servers = start_fork_servers(self.nodes, configs)
        return check_nodes(self.nodes, trials, self.resources, sources, validated_by)

    def run(self, queue: TrialQueue, interrupts: Interrupts, server: ForkServer | None) -> None:
        """Runs every trial in a process of its own with ``resources.threads`` cores and, on GPUs, one or several.

        server: forks these processes on this machine; on a cluster there is one on each node (``check_nodes``).
        Leaves one record for each trial that no other driver runs. A trial whose node died is started on another one.
        If Ray itself dies, ``queue.died`` says how, and the processes of all trials are dead when this returns.
        """
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        on_cluster = self.resources.address is not None
        own_processes = () if on_cluster else self.tree.track_children()
        try:
            with (
                RayWatch(this_machine_is_a_node, own_processes) as watch,
                _checkpoint_store(queue) if on_cluster else nullcontext() as store,
            ):
                self._run_attempts(queue, self._points(queue, store), server, interrupts, watch)
        except RayDied as died:
            gc.freeze()  # Tune's objects call Ray when they are collected, in any thread, and would wait for ever
            queue.died = str(died)
            self.tree.kill()

    def _points(self, queue: TrialQueue, store: str | None) -> list[dict[str, Any]]:
        """What a worker needs for each trial; Tune sends it as the trial's configuration."""
        slots = {node.node_id: (node.name, min(len(queue.trials), node.slots)) for node in self.nodes}
        common = {
            "folder": str(queue.folder.resolve()) if self.resources.address is None else None,
            "directory": os.getcwd(),
            "threads": self.resources.threads,
            "gpus": max(1, self.resources.gpus_per_trial),
            "places": slots,
            "checkpoint_seconds": queue.checkpoint_seconds,
            "checkpoints": training_state.FOLDER,
            "checkpoint_store": store,
        }
        points = []
        for index, trial in enumerate(queue.trials):
            own = {"index": index, "trial_id": trial.trial_id, "trial": trial.config.model_dump_json()}
            points.append({**own, **common})
        return points

    def _run_attempts(
        self,
        queue: TrialQueue,
        points: list[dict[str, Any]],
        server: ForkServer | None,
        interrupts: Interrupts,
        watch: RayWatch,
    ) -> None:
        """Runs Tune until the queue is exhausted; again where nodes died. Raises ``RayDied``."""
        resources = self.resources
        for attempt in itertools.count(1):
            callback = QueueCallback(queue, may_lose_nodes=resources.address is not None, watch=watch)
            if server is None:
                made = OwnFolder()
            else:  # the server removes its folder even if this driver is killed
                made = tempfile.TemporaryDirectory(dir=server.folder, ignore_cleanup_errors=True)
            with made as scratch:
                tuner = tune.Tuner(
                    tune.with_resources(worker.trial, {"cpu": resources.threads, "gpu": resources.gpus_per_trial}),
                    tune_config=tune.TuneConfig(
                        search_alg=TrialSupply(queue, points, server),
                        max_concurrent_trials=sum(min(len(points), node.slots) for node in self.nodes),
                        num_samples=len(points),
                        reuse_actors=True,  # it only waits for a process of the trial; a new one imports for a second
                    ),
                    run_config=tune.RunConfig(storage_path=str(scratch), verbose=0, callbacks=[callback]),
                )
                _fit(tuner, callback, interrupts, watch)
            callback.finish_rest(self.nodes, last=attempt >= ATTEMPTS)
            if queue.exhausted:
                break


def _fit(tuner: tune.Tuner, callback: QueueCallback, interrupts: Interrupts, watch: RayWatch) -> None:
    """Runs Tune in a thread, so that this thread handles signals at once and observes whether Ray lives.

    A call of Ray may block both. Raises ``RayDied``, and what Tune raises.
    """
    raised: list[Exception] = []
    problem: str | None = None

    def fit() -> None:
        try:
            tuner.fit()
        except StopTune:
            pass
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=fit, name="Tune", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not (problem := watch.problem()):
            thread.join(POLL_SECONDS)
            interrupts.check()
    finally:
        callback.ignored.set()
        if not watch.has_died():  # else the thread may wait within Ray for ever
            thread.join(LEAVE_SECONDS)
    if problem := problem or watch.problem():
        raise RayDied(problem)
    if raised:
        raise raised[0]


@contextmanager
def _checkpoint_store(queue: TrialQueue) -> Iterator[str]:
    """Starts an actor on this machine that stores the training states of trials on nodes; yields its name."""
    name = f"checkpoint-store-{uuid4().hex}"  # a search has one for each of its rounds
    here = ray.get_runtime_context().get_node_id()
    folder = str(queue.folder.resolve())
    actor = actor_on(here, CheckpointStore, name).remote(folder, training_state.FOLDER)
    yield name
    del actor  # it ends with its last reference
