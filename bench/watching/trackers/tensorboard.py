"""TensorBoard: one folder of event files for each trial."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.watching.trackers import Value

PACKAGE = "tensorboardX"
INSTALL = "pip install tensorboardX"
FLUSH_SECONDS = 30
PREFIX = "ray/tune/"
"""First part of all tags, as in event files of earlier versions: old and new runs share their charts."""


class Tracker:
    def __init__(self, sweep: str, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def start(self, trial_id: str, name: str, parameters: Mapping[str, Value]) -> "_Run":
        return _Run(self.folder / trial_id, parameters)

    def close(self) -> None: ...


class _Run:
    def __init__(self, folder: Path, parameters: Mapping[str, Value]) -> None:
        from tensorboardX import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
        self.parameters = dict(parameters)
        self.last: dict[str, float] = {}

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self.last = {f"{PREFIX}{name}": value for name, value in metrics.items() if not math.isnan(value)}
        for tag, value in self.last.items():
            self.writer.add_scalar(tag, value, global_step=epoch)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        from tensorboardX.summary import hparams

        if self.last:  # the table of hyperparameters, next to the last metrics
            for summary in hparams(hparam_dict=self.parameters, metric_dict=self.last):
                self.writer.file_writer.add_summary(summary)
        self.writer.close()
