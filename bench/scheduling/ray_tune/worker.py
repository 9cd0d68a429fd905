"""A worker of Ray: it starts the process of a trial and reports to Tune.

A worker runs one trial after another, each in a process of its own. The first trial waits for the worker's imports, so
torch is not imported here.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune

from bench.processes.client import ForkServer, start
from bench.processes.request import VISIBLE, Request
from bench.system.files import contents
from bench.system.process_tree import kill_group

SAME_SECONDS = 1.0
"""Tolerance within which two readings of a process's start agree."""
CODE = Path(__file__).resolve().parents[3]


def fork_server_name(node_id: str) -> str:
    """Name of the actor (``bench.scheduling.ray_tune.actors``) with a node's fork server."""
    return f"fork-server-{node_id}"


def enter(directory: str) -> None:
    """Makes ``directory`` the current one, so that a trial's paths mean what the user typed. Ray starts elsewhere."""
    os.chdir(directory if Path(directory).is_dir() else CODE)
    # processes that a trial starts run the same code, even where the directory holds another checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    os.environ["PYTHONSAFEPATH"] = "1"


def trial(config: dict[str, Any]) -> None:
    """Runs one point (``bench.scheduling.ray_tune.driver``) in a process of its own, and reports its events to Tune.

    On a cluster the process has a folder on this node. Its training states are sent to the driver as they appear, and
    its record at the end.
    """
    point = config["point"]
    enter(point["directory"])
    node_id = ray.get_runtime_context().get_node_id()
    name, at_once = point["places"].get(node_id, (None, 1))  # the node may have joined later

    def report(**event: Any) -> None:
        tune.report({**event, "node": node_id})

    with ExitStack() as stack:
        server, folder, mirror = point["server"], point["folder"], None
        if folder is None:
            server = stack.enter_context(_server_of(node_id, point["trial"]))
            folder = str(stack.enter_context(_own_folder(server, point["trial_id"])))
            mirror = _Mirror(Path(folder, point["checkpoints"], point["trial_id"]), point["checkpoint_store"])
        settings = {key: point[key] for key in ("threads", "checkpoint_seconds", "gpus")}
        place = {"trials_at_once": at_once, "node": name if mirror else None}
        request = Request(point["trial"], folder, visible_devices=os.environ.get(VISIBLE), **settings, **place)
        try:
            process = start(request, server, lambda started: report(process=[started.pid, started.create_time()]))
        except OSError as error:
            report(ended=str(error), lost=True)
            return
        for line in process:
            if line.strip():
                report(**json.loads(line))
            else:
                report(heartbeat=True)
            if mirror and (problem := mirror.send()):
                report(problem=problem)
        if process.exit_code != 0:
            report(ended=process.how_it_ended, lost=process.exit_code is None)
        elif mirror:
            report(files=contents(Path(folder)))


def kill_trial(pid: int, started: float) -> None:
    """Kills a trial's process on this machine, unless another process has its number now.

    started: when the process was started, in seconds since the epoch.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - started) < SAME_SECONDS:
            kill_group(process)


@contextmanager
def _server_of(node_id: str, config: str) -> Iterator[str]:
    """The address of this node's fork server. A node that joined later has none: one is started for this trial."""
    with ExitStack() as stack:
        try:
            address = ray.get(ray.get_actor(fork_server_name(node_id)).address.remote())
        except (ValueError, ray.exceptions.RayError):
            address = stack.enter_context(ForkServer([config])).address
        yield address


@contextmanager
def _own_folder(server: str, trial_id: str) -> Iterator[Path]:
    """A trial's folder on this node. It lies in the fork server's folder, which is removed even if this worker dies."""
    folder = Path(server).parent / trial_id
    shutil.rmtree(folder, ignore_errors=True)  # from an attempt that was killed here
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Training states of a trial (``bench.training.training_state``), also those that were set aside."""
    return sorted(folder.glob("epoch-*"))


class _Mirror:
    """A folder of training states on this node, and its copy on the driver's machine."""

    def __init__(self, folder: Path, store: str) -> None:
        """store: name of the actor (``bench.scheduling.ray_tune.actors.CheckpointStore``) with the copy."""
        self.folder, self.store = folder, ray.get_actor(store)
        self.folder.mkdir(parents=True)
        for name, content in ray.get(self.store.load.remote(folder.name)).items():
            (folder / name).write_bytes(content)
        self.names = {path.name for path in checkpoints(folder)}

    def send(self) -> str | None:
        """Sends what has changed. Returns why that fails: then the training state is lost, but never the trial."""
        names = {path.name for path in checkpoints(self.folder)}
        if names == self.names:
            return None
        try:
            new = {name: (self.folder / name).read_bytes() for name in names - self.names}
            ray.get(self.store.update.remote(self.folder.name, new, sorted(names)))
        except FileNotFoundError:  # replaced by a newer one meanwhile, which is sent next
            return None
        except ray.exceptions.RayError as error:
            self.names = names
            return f"a checkpoint could not be kept: {str(error).strip().splitlines()[-1]}"
        self.names = names
        return None
