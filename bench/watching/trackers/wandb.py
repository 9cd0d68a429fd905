"""Weights & Biases: one run for each trial, in a group for the sweep."""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from bench.watching.trackers import PROJECT, STEP, Value

PACKAGE = "wandb"
INSTALL = "pip install wandb"
UPLOAD_SECONDS = 300
"""Longest wait for the upload of a run at its end; ``wandb sync`` uploads the rest from the local files."""


class Tracker:
    def __init__(self, sweep: str, folder: Path) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
        if not offline and not wandb.login(prompt=False):
            raise ValueError("there is no API key. Run 'wandb login', or set WANDB_MODE=offline")
        self.wandb = wandb
        self.sweep, self.folder = sweep, folder
        self.runs: dict[str, _Run] = {}

    def start(self, trial_id: str, name: str, parameters: Mapping[str, Value]) -> "_Run":
        if trial_id not in self.runs:
            # several runs at the same time; the console belongs to the display of the sweep
            options = {"reinit": "create_new", "silent": True, "console": "off", "finish_timeout": UPLOAD_SECONDS}
            run = self.wandb.init(
                project=PROJECT,
                group=self.sweep,
                id=trial_id,
                name=name,
                config=dict(parameters),
                dir=str(self.folder),
                settings=self.wandb.Settings(**options),
            )
            self.runs[trial_id] = _Run(run)
        return self.runs[trial_id]

    def close(self) -> None:
        for run in self.runs.values():
            if run.upload is not None:
                run.upload.join()


class _Run:
    def __init__(self, run: Any) -> None:
        self.run = run
        self.upload: Thread | None = None

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self.run.log({STEP: epoch, **metrics}, step=epoch)

    def close(self, failed: bool) -> None:
        """Uploads the rest in a thread: a slow network must not hold up the sweep."""
        self.upload = Thread(target=self.run.finish, args=(int(failed),), daemon=True)
        self.upload.start()
