"""Runs trials side by side on Ray Tune: as many at once as there are GPUs or, on a CPU, cores for them.

Ray only schedules. Points, identity, resuming, records and tables are ours and need no Ray.
"""

import dataclasses
import io
import logging
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from bench.config import TrialConfig
from bench.early_stopping import EarlyStopping
from bench.progress import Watcher
from bench.schedule import settle
from bench.sweep import Trial
from bench.train import Epoch
from bench.trial import run_trial

OBJECT_STORE_BYTES = 100 * 2**20  # only small dictionaries go through Ray
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a trial without a GPU sees none, also after Ray changes its default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # and so is Ctrl-C
}


def run_on_ray(
    trials: list[Trial],
    folder: Path,
    watcher: Watcher,
    *,
    threads: int,
    gpus: int,
    stopping: EarlyStopping | None = None,
) -> None:
    """Every trial in a fresh process with ``threads`` cores and, on a GPU, a whole one. Leaves one record for each.

    A trial that ``stopping`` gives up is ended and leaves the record ``stopped early``.
    """
    os.environ.update(QUIET)
    on_gpu = trials[0].config.device == "cuda"
    cores = os.cpu_count() or 1
    at_once = min(len(trials), gpus if on_gpu else cores // threads)
    ray.init(
        num_cpus=cores,
        num_gpus=gpus if on_gpu else 0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    points = [
        {
            "index": index,
            "trial": trial.config.model_dump_json(),
            "folder": str(folder.resolve()),
            "directory": os.getcwd(),
            "threads": threads,
            "trials_at_once": at_once,
        }
        for index, trial in enumerate(trials)
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="sam3-bench-") as scratch, redirect_stdout(io.StringIO()):
            tune.Tuner(
                tune.with_resources(_trial, {"cpu": threads, "gpu": 1 if on_gpu else 0}),
                param_space={"point": tune.grid_search(points)},
                tune_config=tune.TuneConfig(
                    reuse_actors=False,  # a reused process carries its peaks along
                    scheduler=_Stopper(trials, stopping),
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch, verbose=0, callbacks=[_Reporter(trials, folder, watcher, stopping)]
                ),
            ).fit()  # prints tables of its own even when told to be quiet
    finally:
        ray.shutdown()


def _trial(config: dict[str, Any]) -> None:
    """Runs in a Ray worker."""
    point = config["point"]
    os.chdir(point["directory"])  # Tune starts elsewhere, and paths in a trial are those that the user typed

    def tell(epoch: Epoch) -> None:
        tune.report(dataclasses.asdict(epoch))

    trial = TrialConfig.model_validate_json(point["trial"])
    record = run_trial(trial, threads=point["threads"], trials_at_once=point["trials_at_once"], on_epoch=tell)
    record.save(Path(point["folder"]))


class _Reporter(tune.Callback):
    """Hands on to the watcher what Tune tells, and settles the trials that ended."""

    def __init__(
        self, trials: list[Trial], folder: Path, watcher: Watcher, stopping: EarlyStopping | None = None
    ) -> None:
        self.trials, self.folder, self.watcher, self.stopping = trials, folder, watcher, stopping

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its callbacks in order to restore them; we resume from records instead

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.watcher.started(_index(trial))
        if self.stopping:
            self.stopping.started(self.trials[_index(trial)])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "epoch" in result:
            self.watcher.epoch(_index(trial), result["epoch"], result["train_loss"], result["val_loss"])

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._settle(trial, "the process ended without a record")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._settle(trial, f"the process died. Ray says: {trial.get_error()}")

    def _settle(self, trial: Any, reason: str) -> None:
        index = _index(trial)
        if self.stopping:
            self.stopping.settle(self.trials[index], self.folder)
        self.watcher.finished(index, settle(self.trials[index], self.folder, reason))


class _Stopper(FIFOScheduler):
    """Starts trials in their order, and ends those that ``stopping`` gives up."""

    def __init__(self, trials: list[Trial], stopping: EarlyStopping | None) -> None:
        super().__init__()
        self.trials, self.stopping = trials, stopping

    def on_trial_result(self, controller: Any, trial: Any, result: dict) -> str:
        if self.stopping and "epoch" in result:
            epoch = Epoch(**{field.name: result[field.name] for field in dataclasses.fields(Epoch)})
            if not self.stopping.goes_on(self.trials[_index(trial)], epoch):
                return self.STOP
        return self.CONTINUE


def _index(trial: Any) -> int:
    return trial.config["point"]["index"]
