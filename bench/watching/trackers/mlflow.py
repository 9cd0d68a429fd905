"""MLflow: one run for each trial, in an experiment for the sweep."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.watching.trackers import PROJECT, STEP, Value

PACKAGE = "mlflow"
INSTALL = "pip install mlflow"


class Tracker:
    def __init__(self, sweep: str, folder: Path) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=uri)
        name = f"{PROJECT}/{sweep}"
        experiment = self.client.get_experiment_by_name(name)
        self.experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.runs: dict[str, _Run] = {}

    def start(self, trial_id: str, name: str, parameters: Mapping[str, Value]) -> "_Run":
        if trial_id not in self.runs:
            run = self.client.create_run(self.experiment_id, run_name=name, tags={"trial_name": name})
            self.runs[trial_id] = _Run(self.client, run.info.run_id)
            for parameter, value in parameters.items():
                self.client.log_param(run.info.run_id, parameter, value)
        return self.runs[trial_id]

    def close(self) -> None: ...


class _Run:
    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        for name, value in {STEP: epoch, **metrics}.items():
            self.client.log_metric(self.run_id, name, float(value), step=epoch)

    def close(self, failed: bool) -> None:
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
