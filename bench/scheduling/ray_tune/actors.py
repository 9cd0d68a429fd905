"""Ray actors that a sweep on a cluster needs in addition to its trials.

Each node has a fork server. The driver's machine has a store of checkpoints for nodes without a shared file system.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.processes.client import ForkServer
from bench.processes.request import VISIBLE
from bench.scheduling.ray_tune import worker
from bench.system.files import write_whole


def pinned(node_id: str) -> dict[str, Any]:
    """Options of a Ray task or actor that runs on this node and needs no core."""
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def actor_on(node_id: str, kind: type, name: str) -> Any:
    """``kind`` as an actor on a node. Its name is known within this driver's job, and it ends with the job."""
    return ray.remote(kind).options(name=name, **pinned(node_id))


class ForkServerActor:
    """The fork server of a node."""

    def __init__(self, directory: str, configs: Sequence[str]) -> None:
        worker.enter(directory)
        os.environ.pop(VISIBLE, None)  # Ray hides the GPUs from an actor without one; each trial names its own
        self.server = ForkServer(configs)

    def address(self) -> str:
        """The socket of the fork server."""
        return self.server.address


class CheckpointStore:
    """Copies of the training states of trials on other machines: one folder for each trial, as on its node."""

    def __init__(self, results: str, folder: str) -> None:
        """results: the folder of records; folder: the folder of training states within it."""
        self.results, self.root = Path(results), Path(results, folder)

    def load(self, trial_id: str) -> dict[str, bytes]:
        """Returns the files from which a trial resumes."""
        return {path.name: path.read_bytes() for path in worker.checkpoints(self.root / trial_id)}

    def update(self, trial_id: str, new: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Writes the new files and removes those that are not among ``names``. Raises ``OSError``."""
        if (self.results / f"{trial_id}.json").exists():
            return  # the trial has ended meanwhile, and has its record
        folder = self.root / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in new.items():
            write_whole(folder / Path(name).name, lambda file: file.write(content))
        for path in worker.checkpoints(folder):
            if path.name not in names:
                path.unlink()
