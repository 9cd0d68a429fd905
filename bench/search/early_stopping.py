"""Early stopping by asynchronous successive halving (ASHA): Li et al., MLSys 2020, arXiv 1810.05934.

At 1, 3, 9, ... times the grace epochs (for factor 3) a trial's validation loss is compared with those of all trials
that came as far before it. The trial continues if it is among the best third, or if it is the best while there are
fewer than three. That is ASHA without pausing, the variant of Optuna's ``SuccessiveHalvingPruner``: a trial that was
stopped is never resumed, and no trial waits for another.

The driver decides, under both executors. It receives each epoch's validation loss, kills the process of a trial that
falls behind, and writes the epochs that it received as the trial's record.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bench.config.expand import Trial
from bench.config.search import EarlyStoppingConfig
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.training.loop import Epoch


class EarlyStopping:
    """Decides which trials of a sweep continue."""

    def __init__(self, settings: EarlyStoppingConfig, first_seed: int, before: Iterable[TrialRecord] = ()) -> None:
        """first_seed: only trials of this seed compete; configurations that survive run their other seeds in full.
        before: records of trials that ran before; the losses of their curves compete, too.
        """
        self.settings = settings
        self.first_seed = first_seed
        self.rungs: dict[int, dict[str, float]] = {}  # losses by trial id, by the rung's number
        self.stopped: set[str] = set()
        self.epochs: dict[str, list[Epoch]] = {}
        self.started_at: dict[str, float] = {}
        for record in before:
            if record.config["seed"] == first_seed:
                for point in record.curve:
                    self._place(record.trial_id, point.epoch, point.val_loss)

    def start(self, trial: Trial) -> None:
        """Notes that a trial's process is being started."""
        self.epochs[trial.trial_id] = []
        self.started_at[trial.trial_id] = time.monotonic()

    def continues(self, trial: Trial, epoch: Epoch) -> bool:
        """Whether the trial runs its next epoch. If not, ``save_record`` saves its record when it is dead."""
        if trial.trial_id in self.stopped:  # one more epoch has come before it could be killed
            return False
        self.epochs[trial.trial_id].append(epoch)
        if trial.seed != self.first_seed or epoch.epoch >= trial.config.train.epochs:
            return True
        reached = self._place(trial.trial_id, epoch.epoch, epoch.val_loss)
        if all(self._among_the_best(trial.trial_id, rung) for rung in reached):
            return True
        self.stopped.add(trial.trial_id)
        return False

    def save_record(self, trial: Trial, folder: Path) -> None:
        """Saves the record of a trial that was stopped, unless it had finished before it was killed."""
        if trial.trial_id not in self.stopped or (folder / f"{trial.trial_id}.json").exists():
            return
        epochs = self.epochs[trial.trial_id]
        rung = max(rung for rung, losses in self.rungs.items() if trial.trial_id in losses)
        text = (
            f"stopped after epoch {epochs[-1].epoch} of {trial.config.train.epochs}: validation loss "
            f"{self.rungs[rung][trial.trial_id]:.4g} is not among the best of {len(self.rungs[rung])} there"
        )
        TrialRecord(
            trial_id=trial.trial_id,
            status="stopped early",
            error=text,
            config=trial.config.model_dump(mode="json"),
            stopped_by=self.settings,
            curve=[CurvePoint(**asdict(epoch)) for epoch in epochs],
            timing=Timing(
                train_seconds=None,
                train_images_per_second=None,
                inference_images_per_second=None,
                total_seconds=time.monotonic() - self.started_at[trial.trial_id],
            ),
        ).save(folder)

    def _place(self, trial_id: str, epoch: int, loss: float | None) -> list[int]:
        """Adds a loss to the rungs that the trial has newly reached; returns their numbers."""
        if loss is None:
            return []
        reached, rung = [], 0
        while self.settings.grace_epochs * self.settings.factor**rung <= epoch:
            if trial_id not in self.rungs.setdefault(rung, {}):
                self.rungs[rung][trial_id] = math.inf if math.isnan(loss) else loss
                reached.append(rung)
            rung += 1
        return reached

    def _among_the_best(self, trial_id: str, rung: int) -> bool:
        losses = self.rungs[rung]
        better = sum(loss < losses[trial_id] for loss in losses.values())
        return better < max(1, len(losses) // self.settings.factor)
