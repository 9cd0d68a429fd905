"""The same sweep on a Ray cluster: two nodes on one machine, neither of which is told where the results lie."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import conftest
import psutil
import pytest
import ray
from conftest import wait_for
from ray.cluster_utils import Cluster

from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.records.record import TrialRecord
from bench.records.store import load_all
from bench.run import main
from bench.scheduling import cluster
from bench.scheduling.cluster import NodeReport
from bench.scheduling.ray_tune import adapters, driver, worker
from bench.scheduling.ray_tune.adapters import QueueCallback, StopTune
from bench.scheduling.ray_tune.connection import Node
from bench.scheduling.ray_tune.health import RayWatch
from bench.scheduling.trial_queue import TrialQueue
from bench.training import training_state
from bench.trial import run_trial

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
  train.epochs: [1, 2, 60]
seeds: [0]
"""
STORE = {"object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    """A head without cores, as a driver's machine may be, and two nodes of one core each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **STORE})
    for _ in range(2):
        made.add_node(num_cpus=1, **STORE)
    yield made
    made.shutdown()


@pytest.fixture(autouse=True, scope="module")
def _ray_runs_in_this_process() -> None:
    conftest.RAY_HAS_RUN = True


@pytest.fixture(autouse=True)
def _sweep_in_the_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nodes.yaml").write_text(SWEEP)


def node_of(pid: int, machines: Cluster) -> Any:
    """The node of the actor with this process id; ``None`` if it was removed."""
    (node_id,) = {actor["Address"]["NodeID"] for actor in ray._private.state.actors().values() if actor["Pid"] == pid}
    (socket,) = {node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == node_id}
    return next((node for node in machines.worker_nodes if node._raylet_socket_name == socket), None)


def test_nodes_that_lack_something_are_named_before_any_trial_starts(machines, capsys):
    wanted = ["dataset.images=nope", "dataset.masks=nope"]
    assert main(["nodes.yaml", "--address", machines.address, *wanted]) == 2
    said = capsys.readouterr().err
    assert said.count("missing data: dataset.images: nope does not exist") == said.count("  node ") == 2
    assert "Traceback" not in said and not list(Path().rglob("*.json"))

    assert main(["nodes.yaml", "--address", machines.address, "--cpus-per-trial", "2"]) == 2
    assert "no node there has what a trial needs (2 cores)" in capsys.readouterr().err


def test_a_sweep_on_two_nodes_survives_the_loss_of_one(machines, monkeypatch, capsys):
    folder = Path("results/nodes")
    ran: dict[int, set[str]] = {}
    told: list[dict] = []
    codes: list[Path] = []
    servers: set[Path] = set()

    preflight_of, report = cluster.preflight_of, QueueCallback.on_trial_result

    def and_end_a_node(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Kills the node of the longest trial, which starts first, when its third epoch is told."""
        report(self, iteration, trials, trial, result, **info)
        told.append(trial.config["point"])
        if not servers:
            names = map(worker.fork_server_name, told[-1]["places"])
            servers.update(Path(ray.get(ray.get_actor(name).address.remote())).parent for name in names)
        index = told[-1]["index"]
        if "epoch" not in result:
            return
        node = node_of(result["pid"], machines)
        if node is None:
            return  # told before it died
        ran.setdefault(index, set()).add(node._raylet_socket_name)
        if index == 0 and result["epoch"] >= 3 and len(machines.worker_nodes) == 2:
            machines.remove_node(node, allow_graceful=False)

    def and_note(reports: dict[str, NodeReport], trial_ids: list[str]) -> cluster.Preflight:
        codes.extend(Path(report.code) for report in reports.values())
        return preflight_of(reports, trial_ids)

    monkeypatch.setattr(QueueCallback, "on_trial_result", and_end_a_node)
    monkeypatch.setattr(cluster, "preflight_of", and_note)
    finished = expand(load_sweep(Path("nodes.yaml")))[0]
    folder.mkdir(parents=True)
    run_trial(finished.config).save(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    arguments = ["nodes.yaml", "--address", machines.address, "--checkpoint-every", "0s"]
    assert main(arguments) == 0, capsys.readouterr()
    assert len(machines.worker_nodes) == 1
    assert len(servers) == 2
    wait_for(lambda: not any(map(Path.exists, servers)))  # nothing is left on the nodes, nor of the lost one
    assert len(codes) == 2 and all("working_dir" in str(code) for code in codes), "the nodes ran what the driver sent"
    assert len(ran[0]) == 2 and len(set.union(*ran.values())) == 2, "the longest went on, on the other node"
    (longest,) = [r for r in load_all(folder)[0].values() if r.config["train"]["epochs"] == 60]
    assert longest.resumed_from_epochs and [point.epoch for point in longest.curve] == list(range(1, 61))
    assert not list((folder / training_state.FOLDER).glob("*/")), "what has its record needs no checkpoint"
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what was finished is not run again"
    records, broken = load_all(folder)
    assert sorted((r.config["train"]["epochs"], r.status) for r in records.values()) == [(n, "ok") for n in (1, 2, 60)]
    assert not broken and all(r.provenance.node for i, r in records.items() if i != finished.trial_id)
    kinds = (".json", ".images.parquet", ".memory.parquet", ".safetensors")
    assert {path.name for path in folder.glob("*.*")} >= {f"{i}{kind}" for i in records for kind in kinds}
    assert all(point["folder"] is None for point in told)
    assert str(folder) not in json.dumps([point["trial"] for point in told])
    table = (folder / "leaderboard.md").read_text()
    assert table.count("1/1") == 3


class Silent:
    """A watcher that keeps what became of the trials."""

    def __init__(self) -> None:
        self.ended: dict[int, str] = {}

    def finished(self, index: int, record: TrialRecord) -> None:
        self.ended[index] = record.error


@pytest.mark.parametrize(
    ("where", "alive", "last", "lost"),
    [
        ({0: "a"}, {"a": False, "b": True}, False, {0}),
        ({0: "a"}, {"a": True, "b": False}, False, set()),
        ({0: "a"}, {"a": False, "b": True}, True, set()),
        ({}, {"a": True, "b": False}, False, {0}),
        ({}, {"a": True, "b": True}, False, set()),
        ({0: "late"}, {"a": True, "b": True, "late": False}, False, {0}),
    ],
)
def test_only_trials_whose_node_died_start_anew_and_not_for_ever(tmp_path, monkeypatch, where, alive, last, lost):
    monkeypatch.setattr(adapters, "is_alive", alive.__getitem__)
    watcher = Silent()
    trials = expand(load_sweep(Path("nodes.yaml")))
    queue = TrialQueue(trials, tmp_path, watcher, say=print)
    assert queue.take() == 0
    callback = QueueCallback(queue, may_lose_nodes=True)
    callback.nodes, callback.died = where, {0: "the process died"}
    known = [Node(node_id, node_id, 1) for node_id in ("a", "b")]
    callback.finish_rest(known, last=last)
    assert (0 in [queue.take() for _ in trials]) == bool(lost)
    queue.release_locks()
    assert watcher.ended == ({} if lost else {0: "the process died"})
    assert (tmp_path / f"{trials[0].trial_id}.json").exists() == (not lost)


def test_a_process_that_a_worker_saw_die_is_named_as_it_died(tmp_path):
    watcher = Silent()
    queue = TrialQueue(expand(load_sweep(Path("nodes.yaml"))), tmp_path, watcher, say=print)
    index = queue.take()
    callback = QueueCallback(queue, may_lose_nodes=False)
    trial = SimpleNamespace(config={"point": {"index": index}})
    callback.on_trial_result(1, [trial], trial, {"ended": "the process was killed by SIGKILL", "node": "a"})
    callback.on_trial_complete(1, [trial], trial)
    queue.release_locks()
    assert watcher.ended == {index: "the process was killed by SIGKILL"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_an_address_without_a_cluster_is_said_at_once(capsys, address):
    assert main(["nodes.yaml", "--address", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"--address {address}: no Ray cluster to be reached there") and "ray start --head" in said
    assert len(said.splitlines()) == 2 and not list(Path().rglob("*.json"))


def test_a_ray_that_does_not_start_says_why_and_offers_to_do_without(monkeypatch, capsys):
    def fail(**settings: Any) -> None:
        raise RuntimeError("no room in /dev/shm\nand much more")

    monkeypatch.setattr(ray, "init", fail)
    assert main(["nodes.yaml"]) == 2
    said = capsys.readouterr().err
    assert said == "Ray does not start: no room in /dev/shm\n  -> add --executor serial, which needs no Ray\n"
    assert not list(Path().rglob("[0-9a-f]*.json"))


def test_a_ray_that_is_not_installed_says_so_too(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, driver.__name__)
    monkeypatch.delattr(driver.__name__)
    assert main(["nodes.yaml"]) == 2
    assert "Ray cannot be loaded" in capsys.readouterr().err


def told(tmp_path, watch=None):
    """A callback with a trial that runs, its watcher, and the trial as Tune knows it."""
    watcher = Silent()
    watcher.started = lambda index: None
    said: list[str] = []
    queue = TrialQueue(expand(load_sweep(Path("nodes.yaml"))), tmp_path, watcher, say=said.append)
    callback = QueueCallback(queue, may_lose_nodes=False, **({"watch": watch} if watch else {}))
    trial = SimpleNamespace(config={"point": {"index": queue.take()}}, error_file=str(tmp_path / "error.txt"))
    callback.on_trial_start(1, [trial], trial)
    return callback, watcher, trial, said


def test_a_trial_whose_fork_server_died_is_handed_out_once_more_here_too(tmp_path):
    callback, watcher, trial, said = told(tmp_path)
    for _ in range(2):
        callback.on_trial_result(1, [trial], trial, {"ended": "the server was killed", "lost": True, "node": "a"})
        callback.on_trial_complete(1, [trial], trial)
    callback.queue.release_locks()
    assert len(said) == 1 and "the server was killed; the trial is started once more" in said[0]
    assert watcher.ended == {0: "the server was killed"}, "but once"


def test_a_worker_of_ray_that_died_is_named_and_its_trial_is_ended(tmp_path):
    callback, watcher, trial, _ = told(tmp_path)
    Path(trial.error_file).write_text("Failure # 1 (occurred at noon)\nThe actor died unexpectedly.\n")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        process.send_signal(signal.SIGSTOP)
        started = psutil.Process(process.pid).create_time()
        callback.on_trial_result(1, [trial], trial, {"process": [process.pid, started], "node": "a"})
        callback.on_trial_error(1, [trial], trial)
        assert process.wait(5) == -signal.SIGKILL
    callback.queue.release_locks()
    how = "Ray's process that waits for the trial died (often the kernel's doing, when memory runs out)"
    assert watcher.ended == {0: f"The actor died unexpectedly.\n{how}"}


def test_a_number_that_is_another_processes_by_now_is_left_alone():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        worker.kill_trial(process.pid, psutil.Process(process.pid).create_time() - 60)
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("how", ["Ray is found dead", "the driver has left"])
def test_what_tune_tells_when_ray_has_died_settles_no_trial(tmp_path, how):
    watch = RayWatch(lambda: how != "Ray is found dead")
    callback, watcher, trial, _ = told(tmp_path, watch)
    if how == "the driver has left":
        callback.ignored.set()
    with pytest.raises(StopTune):
        callback.on_trial_error(1, [trial], trial)
    for event in (callback.on_trial_complete, callback.on_trial_start):
        with pytest.raises(StopTune):
            event(1, [trial], trial)
    with pytest.raises(StopTune):
        callback.on_step_begin(1, [trial])
    callback.queue.release_locks()
    assert not watcher.ended and not list(tmp_path.glob("*.json"))
