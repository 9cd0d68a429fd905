"""What a worker of Ray does with a trial. Ray starts a worker for every trial, and the trial waits for its imports: so
neither torch nor the suite is loaded where a fork server runs the trial."""

import json
import os
from pathlib import Path
from typing import Any

import ray
from ray import tune

from bench.forked import VISIBLE, Forked, Request

CODE = Path(__file__).resolve().parent.parent


def enter(directory: str) -> None:
    """Paths in a trial are those that the user typed, and Ray starts elsewhere."""
    os.chdir(directory if Path(directory).is_dir() else CODE)
    # processes that a trial starts run the same code, even where the directory holds another checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    os.environ["PYTHONSAFEPATH"] = "1"


def trial(config: dict[str, Any]) -> None:
    """Runs one point of ``bench.schedule_ray``: in a process of its fork server, or else in this one."""
    point = config["point"]
    enter(point["directory"])
    node_id = ray.get_runtime_context().get_node_id()
    if point["server"]:
        settings = {name: point[name] for name in ("folder", "threads", "checkpoint_seconds", "card")}
        at_once = point["places"][node_id][1]
        request = Request(point["trial"], trials_at_once=at_once, visible_devices=os.environ.get(VISIBLE), **settings)
        process = Forked(point["server"], request)
        for line in process:
            tune.report({**(json.loads(line) if line.strip() else {"alive": True}), "node": node_id})
        if process.exit_code != 0:
            tune.report({"ended": process.how_it_ended, "node": node_id})
        return
    _run_here(point, node_id)


def _run_here(point: dict[str, Any], node_id: str) -> None:
    """On a cluster's node, or a trial that has a process for each of its GPUs."""
    import dataclasses

    from bench import cluster
    from bench.config import TrialConfig
    from bench.late_imports import import_for
    from bench.packing import CardShare
    from bench.ranks import run_parallel
    from bench.record import save_or_keep
    from bench.train import Epoch
    from bench.trial import run_trial, seldom

    def tell(epoch: Epoch) -> None:
        tune.report({**dataclasses.asdict(epoch), "node": node_id})

    def alive() -> None:
        tune.report({"alive": True, "node": node_id})

    config = TrialConfig.model_validate_json(point["trial"])
    name, at_once = point["places"].get(node_id, (None, 1))  # it may have joined later
    settings = {"threads": point["threads"], "trials_at_once": at_once, "on_epoch": tell, "on_step": seldom(alive)}
    if point["gpus"] > 1:
        record = run_parallel(config, int(point["gpus"]), **settings)
    else:
        import_for([point["trial"]])
        record = run_trial(config, card=point["card"] and CardShare(**point["card"]), **settings)
    if point["folder"]:
        save_or_keep(record, Path(point["folder"]))
        return
    if record.provenance is not None:
        came_from = record.provenance.model_copy(update={"node": name})
        record = record.model_copy(update={"provenance": came_from})
    tune.report({"files": cluster.pack(record)})
