"""What a worker of Ray does with a trial. Ray starts a worker for every trial, and the trial waits for its imports: so
neither torch nor the suite is loaded here; the trial has a process of its own."""

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

from bench.processes.client import VISIBLE, ForkServer, Request, start
from bench.system.files import contents
from bench.system.process_tree import end

SAME_SECONDS = 1.0  # within which two readings of the start of one process agree
CODE = Path(__file__).resolve().parent.parent


def forker(node_id: str) -> str:
    """Name of the actor (``bench.scheduling.ray_actors``) that has a node's fork server."""
    return f"forker-{node_id}"


def enter(directory: str) -> None:
    """Paths in a trial are those that the user typed, and Ray starts elsewhere."""
    os.chdir(directory if Path(directory).is_dir() else CODE)
    # processes that a trial starts run the same code, even where the directory holds another checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    os.environ["PYTHONSAFEPATH"] = "1"


def trial(config: dict[str, Any]) -> None:
    """Runs one point of ``bench.scheduling.ray_tune`` in a process of its own, and tells Tune how it goes on.

    On a cluster the process has a folder on this node: checkpoints are sent to the driver as they appear, the record
    at the end.
    """
    point = config["point"]
    enter(point["directory"])
    node_id = ray.get_runtime_context().get_node_id()
    name, at_once = point["places"].get(node_id, (None, 1))  # it may have joined later
    with ExitStack() as stack:
        server, folder, mirror = point["server"], point["folder"], None
        if folder is None:
            server = stack.enter_context(_server_of(node_id, point["trial"]))
            folder = str(stack.enter_context(_own_folder(server, point["trial_id"])))
            mirror = _Mirror(Path(folder, point["checkpoints"], point["trial_id"]), point["keeper"])
        settings = {key: point[key] for key in ("threads", "checkpoint_seconds", "gpus")}
        place = {"trials_at_once": at_once, "node": name if mirror else None}
        request = Request(point["trial"], folder, visible_devices=os.environ.get(VISIBLE), **settings, **place)

        def tell(process: psutil.Process) -> None:
            tune.report({"process": [process.pid, process.create_time()], "node": node_id})

        try:
            process = start(request, server, tell)
        except OSError as error:
            tune.report({"ended": str(error), "lost": True, "node": node_id})
            return
        for line in process:
            tune.report({**(json.loads(line) if line.strip() else {"alive": True}), "node": node_id})
            if mirror and (problem := mirror.send()):
                tune.report({"problem": problem, "node": node_id})
        if process.exit_code != 0:
            tune.report({"ended": process.how_it_ended, "lost": process.exit_code is None, "node": node_id})
        elif mirror:
            tune.report({"files": contents(Path(folder)), "node": node_id})


def end_trial(number: int, started: float) -> None:
    """Kills a trial's process on this machine, by its number, unless that is another's by now.

    started: when the process was, in seconds since the epoch.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        if abs(process.create_time() - started) < SAME_SECONDS:
            end(process)


@contextmanager
def _server_of(node_id: str, config: str) -> Iterator[str]:
    """The address of this node's fork server. A node that joined later has none, and gets one for this trial."""
    with ExitStack() as stack:
        try:
            address = ray.get(ray.get_actor(forker(node_id)).address.remote())
        except (ValueError, ray.exceptions.RayError):
            address = stack.enter_context(ForkServer([config])).address
        yield address


@contextmanager
def _own_folder(server: str, trial_id: str) -> Iterator[Path]:
    """A trial's folder on this node. It lies in the fork server's, which is removed whatever becomes of this worker."""
    folder = Path(server).parent / trial_id
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed here
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a trial (``bench.training.training_state``), and what was set aside of them."""
    return sorted(folder.glob("epoch-*"))


class _Mirror:
    """A folder of checkpoints on this node, and its like beside the driver."""

    def __init__(self, folder: Path, keeper: str) -> None:
        """keeper: name of the actor (``bench.scheduling.ray_actors``) that has the other."""
        self.folder, self.keeper = folder, ray.get_actor(keeper)
        self.folder.mkdir(parents=True)
        for name, content in ray.get(self.keeper.kept.remote(folder.name)).items():
            (folder / name).write_bytes(content)
        self.names = {path.name for path in checkpoints(folder)}

    def send(self) -> str | None:
        """Sends what has changed. Returns why that is not possible: it costs the checkpoint, never the trial."""
        names = {path.name for path in checkpoints(self.folder)}
        if names == self.names:
            return None
        try:
            new = {name: (self.folder / name).read_bytes() for name in names - self.names}
            ray.get(self.keeper.mirror.remote(self.folder.name, new, sorted(names)))
        except FileNotFoundError:  # replaced by a newer one meanwhile, which comes next
            return None
        except ray.exceptions.RayError as error:
            self.names = names
            return f"a checkpoint could not be kept: {str(error).strip().splitlines()[-1]}"
        self.names = names
        return None
