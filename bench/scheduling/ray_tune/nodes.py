"""Requests to the nodes of a cluster: what they lack for the trials, and whether they live."""

import os
from collections.abc import Sequence
from typing import Any

import ray

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.datasets.core.sources import Source
from bench.scheduling import cluster
from bench.scheduling.ray_tune import worker
from bench.scheduling.ray_tune.actors import ForkServerActor, actor_on, pinned
from bench.scheduling.ray_tune.connection import Node
from bench.scheduling.ray_tune.health import RayWatch
from bench.scheduling.resources import Resources

ALIVE_SECONDS = 60
"""Time that a node has to answer whether it lives."""
POLL_SECONDS = 0.25
INSPECTION_GPUS = 0.01
"""Share of a GPU that the inspection of a node requests: Ray hides the GPUs from a task that requests none."""


def check_nodes(
    nodes: list[Node],
    trials: Sequence[Trial],
    resources: Resources,
    sources: Sequence[Source] = (),
    validated_by: str | None = None,
) -> cluster.Preflight:
    """Inspects every node of a cluster before any trial starts.

    Raises ``ConfigError`` with one line for each node that lacks something.
    """
    configs = [trial.config.model_dump_json() for trial in trials]
    gpus = INSPECTION_GPUS if resources.gpus_per_trial else 0
    answers = {}
    for node in nodes:
        task = _inspect.options(**pinned(node.node_id), max_retries=0, num_gpus=gpus)
        answers[node] = task.remote(configs, sources, validated_by, os.getcwd())
    waiting = list(answers.values())
    with RayWatch(this_machine_is_a_node) as watch:
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            if problem := watch.problem():
                raise ConfigError(f"--address {resources.address}: {problem}")
    reports, failed = {}, []
    for node, answer in answers.items():
        try:
            reports[node.name] = ray.get(answer)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"  node {node.name}: cannot run the suite: {lines[-1].strip()}")
    if failed:
        raise ConfigError("not every node can run these trials:", *failed)
    return cluster.preflight_of(reports, [trial.trial_id for trial in trials])


@ray.remote
def _inspect(
    configs: list[str], sources: Sequence[Source], validated_by: str | None, directory: str
) -> cluster.NodeReport:
    worker.enter(directory)
    return cluster.inspect_node(configs, sources, validated_by)


def start_fork_servers(nodes: list[Node], configs: Sequence[str]) -> list[Any]:
    """Starts a fork server on each node of a cluster, which imports while the nodes are inspected.

    Returns the actors: a fork server ends with the last reference to its actor.
    configs: trials (as JSON), as ``bench.processes.client.ForkServer`` takes them.
    """
    actors = []
    for node in nodes:
        actor = actor_on(node.node_id, ForkServerActor, worker.fork_server_name(node.node_id))
        actors.append(actor.remote(os.getcwd(), configs))
    return actors


def this_machine_is_a_node() -> bool:
    """Whether this machine is a living node, according to Ray."""
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())


def is_alive(node_id: str) -> bool:
    """Whether a node runs a task. Its trials notice the loss of a machine sooner than Ray's health checks do."""

    def nothing() -> None:  # local, so that Ray sends its code, and the node need not import the suite
        pass

    try:
        ray.get(ray.remote(nothing).options(**pinned(node_id)).remote(), timeout=ALIVE_SECONDS)
    except ray.exceptions.RayError:  # also for a timeout
        return False
    return True


def kill_trial_on(node_id: str, pid: int, started: float) -> None:
    """Kills a trial's process on a node; ``started`` is the time of its start."""
    ray.remote(worker.kill_trial).options(**pinned(node_id), max_retries=0).remote(pid, started)
