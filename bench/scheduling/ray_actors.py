"""What a sweep on a cluster has running beside its trials, as Ray's actors: on each node a process that forks trials,
and beside the driver one that keeps their checkpoints, which nodes without a shared file system cannot."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.processes.client import VISIBLE, ForkServer
from bench.scheduling import ray_worker
from bench.system.files import write_whole


def on_node(kind: type, node_id: str, name: str) -> Any:
    """``kind`` as an actor on a node; it is found by its name within this driver's job, and ends with it."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(kind).options(name=name, num_cpus=0, scheduling_strategy=there)


class Forker:
    """A fork server on a node."""

    def __init__(self, directory: str, configs: Sequence[str]) -> None:
        ray_worker.enter(directory)
        os.environ.pop(VISIBLE, None)  # Ray hides the cards from who asks for none; each trial says which are its own
        self.server = ForkServer(configs)

    def address(self) -> str:
        return self.server.address


class Keeper:
    """Checkpoints of trials that run elsewhere: for each a mirror of the folder that the trial has where it runs."""

    def __init__(self, results: str, folder: str) -> None:
        """folder: of checkpoints, below that of the records."""
        self.results, self.root = Path(results), Path(results, folder)

    def kept(self, trial_id: str) -> dict[str, bytes]:
        """What a trial goes on from."""
        return {path.name: path.read_bytes() for path in ray_worker.checkpoints(self.root / trial_id)}

    def mirror(self, trial_id: str, new: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Writes what is new and removes what is not among ``names``. Raises ``OSError``."""
        if (self.results / f"{trial_id}.json").exists():
            return  # it was ended meanwhile, and has its record
        folder = self.root / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in new.items():
            write_whole(folder / Path(name).name, lambda file: file.write(content))
        for path in ray_worker.checkpoints(folder):
            if path.name not in names:
                path.unlink()
