"""Runs trials side by side on Ray Tune: as many at once as there are GPUs or, on a CPU, cores for them; on this machine
or on the nodes of an existing cluster.

Ray only schedules. Points, identity, resuming, records and tables are ours and need no Ray. A cluster's nodes need not
see the results folder: the files of a record come back through Ray.
"""

import dataclasses
import gc
import io
import itertools
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

# Before Ray is loaded. No call may start another Ray when ours has died, and Ray may not end this process for want of
# its GCS: ``RayWatch`` is sooner, and says so.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "3600")

import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.datasets.core.sources import Source
from bench.processes.client import ForkServer, place_for_sockets
from bench.records.provenance import COMMIT, commit_in_words
from bench.scheduling import cluster, ray_actors, ray_worker
from bench.scheduling.ray_health import RayWatch
from bench.scheduling.resources import Resources
from bench.scheduling.trial_queue import Work
from bench.system import command
from bench.system.files import OwnFolder
from bench.system.interrupt import Interrupts
from bench.system.machine import cores
from bench.system.process_tree import Family
from bench.training import training_state
from bench.training.loop import Epoch

SOCKETS_BELOW = len("/ray/session_2025-12-02_12-00-00_000000_4194304/sockets/plasma_store")
"""Bytes that Ray adds to its temporary folder."""
OBJECT_STORE_BYTES = 100 * 2**20  # only small dictionaries go through Ray
CONNECT_SECONDS = 5
ALIVE_SECONDS = 60
POLL_SECONDS = 0.25
LEAVE_SECONDS = 10
"""How long Tune and Ray may take to come to their end when they are told to."""
ATTEMPTS = 3
"""How often a trial is started whose node dies."""
ASKING_GPUS = 0.01
"""Share of a GPU with which a node is asked whether it has one: without any, Ray hides them."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a trial without a GPU sees none, also after Ray changes its default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # and so is Ctrl-C
}
SPARED = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""A fork server whose starter is gone ends by itself, with its trials, and removes its folder. Ray would kill it and
leave the folder."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that has room for a trial."""

    node_id: str
    name: str
    slots: int  # trials that it runs at once


class RayDied(Exception):
    """What has become of Ray while trials ran."""


@contextmanager
def connected(resources: Resources, trials: list[Trial], family: Family) -> Iterator[list[Node]]:
    """Ray for the body, started on this machine or joined at ``resources.address``, and its nodes that fit a trial.

    family: knows the processes that a Ray on this machine starts, and ends what is left of one that has died.
    Raises ``ConfigError`` where that fails, and for a cluster without such a node.
    """
    os.environ.update(QUIET)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        staged = stack.enter_context(OwnFolder()) if resources.address else None
        own = stack.enter_context(_own_folder())
        stack.enter_context(redirect_stdout(io.StringIO()))  # Tune prints tables, and Ray its complaints, at any time
        stack.callback(_shut_down, family)
        try:
            if resources.address is None:
                local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
                # "local": else it would join whatever cluster was started on this machine last
                ray.init(address="local", num_cpus=cores(), num_gpus=resources.gpus, **own, **local, **quiet)
            else:
                _answers(resources.address)
                cluster.stage(trials, staged)
                variables = {**QUIET, **SPARED, COMMIT: commit_in_words()}
                environment = {"working_dir": str(staged), "env_vars": variables}
                ray.init(address=resources.address, runtime_env=environment, **quiet)
        except Exception as error:  # Ray raises what it likes, and the user can but read it
            raise ConfigError(*_why_not(error, resources.address)) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray has put its own in
        family.note()
        nodes = [node for node in _nodes(resources) if node.slots]
        if not nodes:
            needs = f"{resources.threads} cores" + f", {resources.gpus_per_trial} GPUs" * bool(resources.gpus_per_trial)
            raise ConfigError(f"--address {resources.address}: no node there has what a trial needs ({needs})")
        yield nodes


def _shut_down(family: Family) -> None:
    """Ray's own way out, which may wait for ever for a Ray that is dead, and so may what it does when Python ends."""
    thread = threading.Thread(target=ray.shutdown, name="shut down Ray", daemon=True)
    thread.start()
    thread.join(LEAVE_SECONDS)
    if thread.is_alive():
        family.end()
        thread.join(LEAVE_SECONDS)
    if thread.is_alive():
        command.skip_exit_handlers()


@contextmanager
def _own_folder() -> Iterator[dict[str, str]]:
    """Settings of a Ray that is started here, so that the paths of its sockets are short enough. Where ``$TMPDIR`` is
    too long for them, its files are in a folder that is removed afterwards; elsewhere Ray leaves them.

    ``$RAY_TMPDIR`` is Ray's own setting and is left to it.
    """
    usual = tempfile.gettempdir()
    if os.environ.get("RAY_TMPDIR"):
        yield {}
    elif place_for_sockets(SOCKETS_BELOW) == Path(usual):
        yield {"_temp_dir": str(Path(usual, "ray"))}  # as Ray would choose, but for a TMPDIR that is empty
    else:
        with OwnFolder("/tmp") as folder:
            yield {"_temp_dir": str(folder)}


def _answers(address: str) -> None:
    """Raises ``OSError`` where nobody listens: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _why_not(error: Exception, address: str | None) -> list[str]:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address is None:
        return [f"Ray does not start: {reason}", "  -> add --executor serial, which needs no Ray"]
    remedy = "start one with 'ray start --head' and join it with 'ray start --address=HOST:PORT' (docs/cluster.md)"
    return [f"--address {address}: no Ray cluster to be reached there: {reason}", f"  -> {remedy}"]


def _nodes(resources: Resources) -> list[Node]:
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
            found.append(Node(node["NodeID"], name, resources.slots(has.get("CPU", 0), has.get("GPU", 0))))
    return sorted(found, key=lambda node: node.name)


def ask(
    nodes: list[Node],
    trials: list[Trial],
    resources: Resources,
    sources: Sequence[Source] = (),
    validated_by: str | None = None,
) -> cluster.Readiness:
    """Asks every node of a cluster what it lacks, before any trial starts.

    Raises ``ConfigError`` with one line for each node that lacks something.
    """
    configs = [trial.config.model_dump_json() for trial in trials]
    asked = {node: _ask_one(node, configs, resources, sources, validated_by) for node in nodes}
    waiting = list(asked.values())
    with RayWatch(_is_a_node) as watch:
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            if problem := watch.problem():
                raise ConfigError(f"--address {resources.address}: {problem}")
    looks, silent = {}, []
    for node, answer in asked.items():
        try:
            looks[node.name] = ray.get(answer)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            silent.append(f"  node {node.name}: cannot run the suite: {lines[-1].strip()}")
    if silent:
        raise ConfigError("not every node can run these trials:", *silent)
    return cluster.readiness(looks, [trial.trial_id for trial in trials])


def _ask_one(
    node: Node, configs: list[str], resources: Resources, sources: Sequence[Source], validated_by: str | None
) -> Any:
    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    gpus = ASKING_GPUS if resources.gpus_per_trial else 0
    return _look.options(**options, num_gpus=gpus).remote(configs, sources, validated_by, os.getcwd())


@ray.remote
def _look(configs: list[str], sources: Sequence[Source], validated_by: str | None, directory: str) -> cluster.Look:
    ray_worker.enter(directory)
    return cluster.look(configs, sources, validated_by)


def start_servers(nodes: list[Node], configs: Sequence[str]) -> list[Any]:
    """A fork server on each node of a cluster, which imports while the nodes are asked. They end with the references
    that this returns. configs: as ``bench.processes.client.ForkServer`` wants them."""
    actors = [ray_actors.on_node(ray_actors.Forker, node.node_id, ray_worker.forker(node.node_id)) for node in nodes]
    return [actor.remote(os.getcwd(), configs) for actor in actors]


def run_on_ray(
    work: Work,
    interrupts: Interrupts,
    resources: Resources,
    nodes: list[Node],
    server: ForkServer | None,
    family: Family,
) -> None:
    """Every trial in a process of its own with ``resources.threads`` cores and, on a GPU, a whole one or several.

    server: forks these processes on this machine; on a cluster there is one on each node (``start_servers``).
    family: the processes that were started for it, Ray's too.
    Leaves one record for each that was not another driver's. A trial whose node died starts anew on another one. If Ray
    itself dies, what has become of it is ``work.died``, and what ran is dead when this returns.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trials = work.trials
    places = {node.node_id: (node.name, min(len(trials), node.slots)) for node in nodes}
    points = [
        {
            "index": index,
            "trial_id": trial.trial_id,
            "trial": trial.config.model_dump_json(),
            "folder": None if resources.address else str(work.folder.resolve()),
            "directory": os.getcwd(),
            "threads": resources.threads,
            "gpus": max(1, resources.gpus_per_trial),
            "places": places,
            "checkpoint_seconds": work.checkpoint_seconds,
            "checkpoints": training_state.FOLDER,
        }
        for index, trial in enumerate(trials)
    ]
    at_once = sum(slots for _, slots in places.values())
    try:
        with (
            RayWatch(_is_a_node, () if resources.address else family.note()) as watch,
            _keeper(work) if resources.address else nullcontext() as keeper,
        ):
            points = [{**point, "keeper": keeper} for point in points]
            _tune(work, points, resources, nodes, server, at_once, interrupts, watch)
    except RayDied as died:
        gc.freeze()  # what Tune leaves behind calls Ray when it is collected, in any thread, and would wait for ever
        work.died = str(died)
        family.end()


def _tune(
    work: Work,
    points: list[dict[str, Any]],
    resources: Resources,
    nodes: list[Node],
    server: ForkServer | None,
    at_once: int,
    interrupts: Interrupts,
    watch: RayWatch,
) -> None:
    """Raises ``RayDied``."""
    below = server and server.folder  # which is removed even if this driver is killed
    for attempt in itertools.count(1):
        reporter = _Reporter(work, may_lose_nodes=resources.address is not None, watch=watch)
        made = OwnFolder() if below is None else tempfile.TemporaryDirectory(dir=below, ignore_cleanup_errors=True)
        with made as scratch:
            tuner = tune.Tuner(
                tune.with_resources(ray_worker.trial, {"cpu": resources.threads, "gpu": resources.gpus_per_trial}),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(_Next(work, points, server), at_once),
                    num_samples=len(points),
                    reuse_actors=False,  # a reused process carries its peaks along
                ),
                run_config=tune.RunConfig(storage_path=str(scratch), verbose=0, callbacks=[reporter]),
            )
            _fit(tuner, reporter, interrupts, watch)
        reporter.settle_rest(nodes, last=attempt >= ATTEMPTS)
        if work.over:
            break


def _fit(tuner: tune.Tuner, reporter: "_Reporter", interrupts: Interrupts, watch: RayWatch) -> None:
    """Runs Tune in a thread, so that this one hears signals at once and sees whether Ray lives: within Ray it may do
    neither. Raises ``RayDied``, and what Tune raises."""
    raised: list[Exception] = []
    problem: str | None = None

    def fit() -> None:
        try:
            tuner.fit()
        except _Left:
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
        reporter.left.set()
        if not watch.has_died():  # else it may wait within Ray for ever
            thread.join(LEAVE_SECONDS)
    if problem := problem or watch.problem():
        raise RayDied(problem)
    if raised:
        raise raised[0]


def _is_a_node() -> bool:
    """Whether this machine is a living node, as Ray says."""
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())


@contextmanager
def _keeper(work: Work) -> Iterator[str]:
    """The name of an actor beside the driver that keeps the checkpoints of trials on other machines."""
    name = f"keeper-{uuid4().hex}"  # a search has one for each of its rounds
    here = ray.get_runtime_context().get_node_id()
    actor = ray_actors.on_node(ray_actors.Keeper, here, name).remote(str(work.folder.resolve()), training_state.FOLDER)
    yield name
    del actor  # it ends with its last reference


class _Next(Searcher):
    """Asks for a trial only when there is room for it: it is claimed from then on, and Ctrl-C stops the supply."""

    def __init__(self, work: Work, points: list[dict[str, Any]], server: ForkServer | None) -> None:
        super().__init__()
        self.work, self.points, self.server = work, points, server

    def __getstate__(self) -> dict:
        return {}  # as below

    def suggest(self, trial_id: str) -> Any:
        index = self.work.take()
        if index is not None:
            return {"point": {**self.points[index], "server": self.server and self.server.address}}
        return Searcher.FINISHED if self.work.over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass  # Tune would restore from it; we resume from records instead

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Left(BaseException):
    """Ends Tune from within. No ``Exception``: Tune would stop its trials first, one by one, and wait for them."""


class _Reporter(tune.Callback):
    """Hands on what Tune tells, writes the records that come back, kills what is overdue, and settles the trials that
    ended."""

    def __init__(self, work: Work, *, may_lose_nodes: bool, watch: RayWatch = RayWatch(lambda: True)) -> None:
        """watch: knows whether Ray has died; what has become of the trials is not known then."""
        self.work, self.may_lose_nodes, self.watch = work, may_lose_nodes, watch
        self.left = threading.Event()
        """Nobody waits for Tune any more: nothing that it tells counts from here on."""
        self.where: dict[int, str] = {}  # the node of each trial
        self.processes: dict[int, tuple[int, float]] = {}  # number and start of each trial's process
        self.killed: set[int] = set()
        self.ended: dict[int, str] = {}  # how processes ended that left no record
        self.lost: set[int] = set()  # those that ended with the process that forks trials
        self.died: dict[int, str] = {}  # trials that may have died with their node, and what Ray says

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its callbacks in order to restore them; we resume from records instead

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self._go_on()
        self.work.tick()
        for trial in trials:
            index = _index(trial)
            if trial.status == "RUNNING" and index not in self.killed and self.work.overdue(index):
                self.killed.add(index)
                ray.kill(trial.temporary_state.ray_actor)
                self._end(index)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._go_on()
        self.work.started(_index(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._go_on()
        if "node" in result:
            self.where[_index(trial)] = result["node"]
        if "files" in result:
            self.work.receive(_index(trial), result["files"])
            result["files"].clear()  # Tune would keep and write what it was told
        elif "process" in result:
            self.processes[_index(trial)] = tuple(result["process"])
        elif "ended" in result:
            self.ended[_index(trial)] = result["ended"]
            if result.get("lost"):
                self.lost.add(_index(trial))
        elif "problem" in result:
            self.work.note(_index(trial), result["problem"])
        elif "epoch" in result:
            heard = {field.name: result[field.name] for field in dataclasses.fields(Epoch)}
            self.work.epoch(_index(trial), Epoch(**heard))
        else:
            self.work.alive(_index(trial))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._go_on()
        index = _index(trial)
        reason = self.ended.pop(index, "the process ended without a record")
        if index not in self.lost or not self.work.once_more(index, reason):
            self._ended(index, reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._go_on(died=self.watch.dies())
        index = _index(trial)
        self._end(index)  # nobody waits for it any more
        self._ended(index, _why(trial))

    def _go_on(self, died: bool = False) -> None:
        if died or self.left.is_set() or self.watch.has_died():
            raise _Left

    def _end(self, index: int) -> None:
        """Ends a trial's process itself: its worker is dead, and who has forked it may be, too, or be stopped."""
        if index not in self.processes:
            return
        if self.may_lose_nodes:
            there = NodeAffinitySchedulingStrategy(self.where[index], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
            ray.remote(ray_worker.end_trial).options(**options).remote(*self.processes[index])
        else:
            ray_worker.end_trial(*self.processes[index])

    def _ended(self, index: int, reason: str) -> None:
        if self.may_lose_nodes and not self.work.has_ended(index) and not self.work.overdue(index):
            self.died[index] = reason
        else:
            self.work.settle(index, reason)

    def settle_rest(self, nodes: list[Node], *, last: bool) -> None:
        """Hands out once more the trials that died with their node; the others that died become records.

        nodes: those at the start; where a trial had not said its node yet, any of them that died will do.
        """
        known = {node.node_id for node in nodes}
        alive = {node_id: _is_alive(node_id) for node_id in known | set(self.where.values())} if self.died else {}
        for index, reason in self.died.items():
            candidates = {self.where[index]} if index in self.where else known
            if not last and not all(alive[node_id] for node_id in candidates):
                self.work.again(index)
            else:
                self.work.settle(index, reason)


def _is_alive(node_id: str) -> bool:
    """Asks the node itself: that a machine is gone is seen sooner by its trials than by Ray's health checks."""

    def nothing() -> None:  # in here, so that Ray sends it whole, and the node need not load the suite
        pass

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    try:
        ray.get(ray.remote(nothing).options(num_cpus=0, scheduling_strategy=there).remote(), timeout=ALIVE_SECONDS)
    except ray.exceptions.RayError:  # a timeout is one, too
        return False
    return True


def _why(trial: Any) -> str:
    """Why the worker of a trial died: what Ray says, and last a line of our own."""
    try:
        said = Path(trial.error_file).read_text(errors="replace").partition("\n")[2].strip()
    except (OSError, TypeError):  # Ray has written none
        said = ""
    how = "Ray's process that waits for the trial died (often the kernel's doing, when memory runs out)"
    return f"{said}\n{how}".strip()


def _index(trial: Any) -> int:
    return trial.config["point"]["index"]
