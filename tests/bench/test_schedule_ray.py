"""The same sweep on a Ray cluster: two nodes on one machine, neither of which is told where the results lie."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from bench import schedule_ray
from bench.config import load_sweep
from bench.record import load_all
from bench.resources import Resources
from bench.run import main
from bench.sweep import expand

SWEEP = """
name: nodes
question: Does a sweep run on several machines?
base:
  model: {name: sam3_unet, encoder: sam3_vit_tiny, decoder: {name: linear}, adapter: {rank: 2}}
  dataset: {name: procedural, train: 4, val: 0, test: 2, side: 32}
  transform: {size: 32}
  train: {batch_size: 4}
  device: cpu
axes:
  train.epochs: [1, 120]
seeds: [0]
"""
STORE = {"object_store_memory": 100 * 2**20}


@pytest.fixture
def machines(tmp_path, monkeypatch) -> Iterator[Cluster]:
    """A head without cores, as a driver's machine may be, and two nodes of one core each; a sweep in the directory."""
    monkeypatch.chdir(tmp_path)
    Path("nodes.yaml").write_text(SWEEP)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **STORE})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **STORE)
    yield cluster
    cluster.shutdown()


def node_of(pid: int, machines: Cluster) -> Any:
    """The node whose worker has this process id."""
    parents = {parent.pid for parent in psutil.Process(pid).parents()}
    (node,) = [node for node in machines.worker_nodes if parents & {info.process.pid for info in raylets(node)}]
    return node


def raylets(node: Any) -> list[Any]:
    return node.all_processes["raylet"]


def test_a_sweep_on_two_nodes_survives_the_loss_of_one(machines, monkeypatch, capsys):
    folder = Path("results/nodes")
    ran: dict[int, set[str]] = {}
    told: list[dict] = []

    class KillsANode(schedule_ray._Reporter):
        """Ends the long trial's node once the short trial is finished."""

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            super().on_trial_result(iteration, trials, trial, result, **info)
            told.append(trial.config["point"])
            index = told[-1]["index"]
            if "epoch" not in result:
                return
            ran.setdefault(index, set()).add(node_of(result["pid"], machines).unique_id)
            if index == 0 and len(machines.worker_nodes) == 2 and list(folder.glob("*.json")):
                machines.remove_node(node_of(result["pid"], machines), allow_graceful=False)

    monkeypatch.setattr(schedule_ray, "_Reporter", KillsANode)
    assert main(["nodes.yaml", "--address", machines.address]) == 0, capsys.readouterr()
    assert len(machines.worker_nodes) == 1
    assert len(ran[0]) == 2 and len(ran[1]) == 1, "the longest went first and began again on the other node"
    records, broken = load_all(folder)
    assert sorted(r.config["train"]["epochs"] for r in records.values()) == [1, 120] and not broken
    assert {r.status for r in records.values()} == {"ok"}
    assert all(r.provenance.commit and r.provenance.node for r in records.values())
    kinds = (".json", ".images.parquet", ".memory.parquet", ".safetensors")
    assert {path.name for path in folder.glob("*.*")} >= {f"{i}{kind}" for i in records for kind in kinds}
    assert all(point["folder"] is None for point in told)
    assert str(folder) not in json.dumps([point["trial"] for point in told])
    table = (folder / "leaderboard.md").read_text()
    assert table.count("1/1") == 2


def test_nodes_that_lack_something_are_named_before_any_trial_starts(machines, capsys):
    wanted = ["dataset.images=nope", "dataset.masks=nope"]
    assert main(["nodes.yaml", "--address", machines.address, *wanted]) == 2
    said = capsys.readouterr().err
    assert said.count("missing data: dataset.images: nope does not exist") == said.count("  node ") == 2
    assert "Traceback" not in said and not list(Path().rglob("*.json"))

    assert main(["nodes.yaml", "--address", machines.address, "--cpus-per-trial", "2"]) == 2
    assert "no node there has what a trial needs (2 cores)" in capsys.readouterr().err

    resources, trials = Resources(threads=1, address=machines.address), expand(load_sweep(Path("nodes.yaml")))
    with schedule_ray.connected(resources, trials) as nodes:
        asked = [schedule_ray._ask_one(node, [trials[0].config.model_dump_json()], resources) for node in nodes]
        looks = schedule_ray.ray.get(asked)
    repository = Path(schedule_ray.__file__).parent
    assert all(Path(look.code) != repository and "working_dir" in look.code for look in looks), "the code travelled"
