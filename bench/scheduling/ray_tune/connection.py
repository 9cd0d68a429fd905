"""The connection to Ray: started on this machine, or joined on an existing cluster."""

import io
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.processes.client import place_for_sockets
from bench.records.provenance import COMMIT, commit_in_words
from bench.scheduling import cluster
from bench.scheduling.resources import Resources
from bench.system import command
from bench.system.files import OwnFolder
from bench.system.machine import cores
from bench.system.process_tree import ProcessTree

SOCKETS_BELOW = len("/ray/session_2025-12-02_12-00-00_000000_4194304/sockets/plasma_store")
"""Bytes that Ray appends to the path of its temporary folder."""
OBJECT_STORE_BYTES = 100 * 2**20  # only small dictionaries go through Ray
CONNECT_SECONDS = 5
SHUTDOWN_SECONDS = 10
"""Time that Ray has for its own shutdown."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a trial without a GPU sees none, also after Ray changes its default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the suite writes its own records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # and handles Ctrl-C itself
}
KEEP_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""Makes Ray leave a fork server alive whose actor has ended: it ends its trials, removes its folder and ends. Ray would
kill it and leave the folder."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that has room for a trial."""

    node_id: str
    name: str
    slots: int  # number of trials that it runs at the same time


@contextmanager
def connected(resources: Resources, trials: list[Trial], tree: ProcessTree) -> Iterator[list[Node]]:
    """Connects to Ray for the body; yields the nodes on which a trial fits.

    Ray is started on this machine, or joined at ``resources.address``. tree: tracks the processes that Ray starts on
    this machine, and kills those that are left when Ray has died.
    Raises ``ConfigError`` where the connection fails, and for a cluster without such a node.
    """
    os.environ.update(QUIET)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        staged = stack.enter_context(OwnFolder()) if resources.address else None
        own = stack.enter_context(_own_folder())
        stack.enter_context(redirect_stdout(io.StringIO()))  # Tune prints tables, and Ray its complaints, at any time
        stack.callback(_shut_down, tree)
        try:
            _start_or_join(resources, trials, staged, own)
        except Exception as error:  # Ray raises exceptions of any kind, and the user can only read them
            raise ConfigError(*_why_not(error, resources.address)) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray has installed its own
        tree.track_children()
        nodes = [node for node in _nodes(resources) if node.slots]
        if not nodes:
            needs = f"{resources.threads} cores"
            if resources.gpus_per_trial:
                needs += f", {resources.gpus_per_trial} GPUs"
            raise ConfigError(f"--address {resources.address}: no node there has what a trial needs ({needs})")
        yield nodes


def _start_or_join(resources: Resources, trials: list[Trial], staged: Path | None, own: dict[str, str]) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if resources.address is None:
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        # without "local", Ray would join the cluster that was started last on this machine
        ray.init(address="local", num_cpus=cores(), num_gpus=resources.gpus, **own, **local, **quiet)
        return
    _check_port(resources.address)
    cluster.stage(trials, staged)
    variables = {**QUIET, **KEEP_CHILDREN, COMMIT: commit_in_words()}
    environment = {"working_dir": str(staged), "env_vars": variables}
    ray.init(address=resources.address, runtime_env=environment, **quiet)


def _shut_down(tree: ProcessTree) -> None:
    """Shuts Ray down. Ray's own shutdown and exit handler may wait for ever for a Ray that is dead."""
    thread = threading.Thread(target=ray.shutdown, name="shut down Ray", daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
    if thread.is_alive():
        tree.kill()
        thread.join(SHUTDOWN_SECONDS)
    if thread.is_alive():
        command.skip_exit_handlers()


@contextmanager
def _own_folder() -> Iterator[dict[str, str]]:
    """Settings that keep the paths of Ray's sockets short enough, for a Ray that is started here.

    Where the path of ``$TMPDIR`` is too long, Ray's files lie in a folder that is removed afterwards. Otherwise Ray
    leaves them. ``$RAY_TMPDIR`` is Ray's own setting and has priority.
    """
    usual = tempfile.gettempdir()
    if os.environ.get("RAY_TMPDIR"):
        yield {}
    elif place_for_sockets(SOCKETS_BELOW) == Path(usual):
        yield {"_temp_dir": str(Path(usual, "ray"))}  # Ray's default, also where TMPDIR is empty
    else:
        with OwnFolder("/tmp") as folder:
            yield {"_temp_dir": str(folder)}


def _check_port(address: str) -> None:
    """Raises ``OSError`` where nothing listens at the address: Ray itself would try for minutes."""
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
            total: dict[str, Any] = node["Resources"]
            name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
            found.append(Node(node["NodeID"], name, resources.slots(total.get("CPU", 0), total.get("GPU", 0))))
    return sorted(found, key=lambda node: node.name)
