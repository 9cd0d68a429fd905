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
from ray.tune.search import ConcurrencyLimiter, Searcher

from bench import resume
from bench.config import ConfigError, TrialConfig
from bench.interrupt import Interrupts
from bench.record import save_or_keep
from bench.train import Epoch
from bench.trial import run_trial, seldom
from bench.work import Work

OBJECT_STORE_BYTES = 100 * 2**20  # only small dictionaries go through Ray
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a trial without a GPU sees none, also after Ray changes its default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # and so is Ctrl-C
}


def run_on_ray(work: Work, interrupts: Interrupts, *, threads: int, gpus: int) -> None:
    """Every trial in a fresh process with ``threads`` cores and, on a GPU, a whole one. Leaves one record for each that
    was not another driver's. Raises ``ConfigError`` where Ray does not start."""
    os.environ.update(QUIET)
    trials, folder = work.trials, work.folder
    on_gpu = trials[0].config.device == "cuda"
    cores = os.cpu_count() or 1
    at_once = min(len(trials), gpus if on_gpu else cores // threads)
    try:
        ray.init(
            address="local",  # one of our own, whatever else runs on the machine
            num_cpus=cores,
            num_gpus=gpus if on_gpu else 0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    except Exception as error:  # whatever it is, it is Ray's, and there is a way without
        ray.shutdown()
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"Ray does not start here: {why}. --executor serial runs the same trials without it"
        ) from None
    interrupts.listen()  # Ray has put its own in
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    points = [
        {
            "index": index,
            "trial": trial.config.model_dump_json(),
            "folder": str(folder.resolve()),
            "directory": os.getcwd(),
            "threads": threads,
            "trials_at_once": at_once,
            "checkpoint_seconds": work.checkpoint_seconds,
        }
        for index, trial in enumerate(trials)
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="sam3-bench-") as scratch, redirect_stdout(io.StringIO()):
            tune.Tuner(
                tune.with_resources(_trial, {"cpu": threads, "gpu": 1 if on_gpu else 0}),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(_Next(work, points), at_once),
                    num_samples=len(points),
                    reuse_actors=False,  # a reused process carries its peaks along
                ),
                run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[_Reporter(work)]),
            ).fit()  # prints tables of its own even when told to be quiet
    finally:
        ray.shutdown()


def _trial(config: dict[str, Any]) -> None:
    """Runs in a Ray worker."""
    point = config["point"]
    os.chdir(point["directory"])  # Tune starts elsewhere, and paths in a trial are those that the user typed

    def tell(epoch: Epoch) -> None:
        tune.report(dataclasses.asdict(epoch))

    def alive() -> None:
        tune.report({"alive": True})

    trial, folder = TrialConfig.model_validate_json(point["trial"]), Path(point["folder"])
    record = run_trial(
        trial,
        threads=point["threads"],
        trials_at_once=point["trials_at_once"],
        on_epoch=tell,
        on_step=seldom(alive),
        checkpoints=resume.Checkpoints(resume.place(folder, trial.trial_id), point["checkpoint_seconds"]),
    )
    save_or_keep(record, folder)


class _Next(Searcher):
    """Asks for a trial only when there is room for it: it is claimed from then on, and Ctrl-C stops the supply."""

    def __init__(self, work: Work, points: list[dict[str, Any]]) -> None:
        super().__init__()
        self.work, self.points = work, points

    def __getstate__(self) -> dict:
        return {}  # as below

    def suggest(self, trial_id: str) -> Any:
        index = self.work.take()
        if index is not None:
            return {"point": self.points[index]}
        return Searcher.FINISHED if self.work.over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass  # Tune would restore from it; we resume from records instead

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Reporter(tune.Callback):
    """Hands on what Tune tells, kills what is overdue, and settles the trials that ended."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its callbacks in order to restore them; we resume from records instead

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self.work.tick()
        for trial in trials:
            if trial.status == "RUNNING" and self.work.overdue(_index(trial)):
                ray.kill(trial.temporary_state.ray_actor)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.work.started(_index(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "epoch" in result:
            heard = {field.name: result[field.name] for field in dataclasses.fields(Epoch)}
            self.work.epoch(_index(trial), Epoch(**heard))
        else:
            self.work.alive(_index(trial))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.work.settle(_index(trial), "the process ended without a record")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.work.settle(_index(trial), f"the process died. Ray says: {trial.get_error()}")


def _index(trial: Any) -> int:
    return trial.config["point"]["index"]
