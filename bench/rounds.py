"""A sweep's trials in rounds: each is planned by what the ones before it have left in the results folder."""

from collections.abc import Callable
from pathlib import Path

from bench import manifest, search
from bench.config import Sweep
from bench.early_stopping import EarlyStopping
from bench.record import TrialRecord, adopt, load_all, load_images
from bench.sweep import Trial, absent_of
from models._registry import Missing


class Rounds:
    """A grid has one round; a search, seeds that depend on results, and a budget in hours have several."""

    def __init__(self, sweep: Sweep, folder: Path, at_once: int, say: Callable[[str], None]) -> None:
        """at_once: how many trials run side by side; say: tells the user a line."""
        self.sweep, self.folder, self.at_once, self.say = sweep, folder, at_once, say
        self.tried: set[str] = set()
        """Ids of the trials that this run has begun: even an error is not tried twice."""
        self.ended: dict[str, TrialRecord] = {}
        """What became of the trials that this run has ended, on disk or not."""
        self.absent: dict[str, list[Missing]] = {}
        """What keeps trials from running on this machine, by trial id."""

    def next(self) -> search.Plan:
        """The next round, after taking over what other sweeps have finished and leaving out what cannot run here."""
        while True:
            records = self.settled()
            images = load_images(self.folder, records) if self.sweep.search.first_seeds else {}
            plan = search.plan(self.sweep, records, images, at_once=self.at_once, left_out=self.absent.keys())
            adopted = adopt([trial.trial_id for trial in plan.next], self.folder)
            for path in adopted:
                self.say(f"note: {path} is the same trial, taken over")
            absent = {} if adopted else absent_of(plan.next)
            if not adopted and not absent:
                return plan
            self.absent |= absent

    def begin(self, plan: search.Plan) -> None:
        """Writes down what the sweep has come to before the trials of a round run."""
        self.tried |= {trial.trial_id for trial in plan.next}
        self.write_manifest(plan.trials)

    def settled(self) -> dict[str, TrialRecord]:
        """Records of trials that are not run again: all of this run, of earlier ones those that are results."""
        records, _ = load_all(self.folder)
        tried = {trial_id: record for trial_id, record in records.items() if trial_id in self.tried}
        return search.settled(self.sweep, records) | tried | self.ended

    def early_stopping(self, trials: list[Trial]) -> EarlyStopping | None:
        """What stops trials early, and knows of those that ran before; ``None`` where all run to their end."""
        settings, records = self.sweep.search.early_stopping, self.settled()
        before = [records[trial.trial_id] for trial in trials if trial.trial_id in records]
        return EarlyStopping(settings, self.sweep.seeds[0], before) if settings else None

    def write_manifest(self, trials: list[Trial]) -> None:
        """The trials so far, as a report finds them."""
        known, _ = manifest.load(self.folder)
        manifest.of(self.sweep, trials, self.absent, known.predicted if known else {}).save(self.folder)
