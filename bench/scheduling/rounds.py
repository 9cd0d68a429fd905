"""A sweep's trials in rounds: each is planned by what the ones before it have left in the results folder."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.records import schema, sweep_json
from bench.records.record import TrialRecord, adopt, load_all, load_images
from bench.scheduling.executor import Executor
from bench.scheduling.trial_queue import Limits, TrialQueue
from bench.search import next_trials
from bench.search.early_stopping import EarlyStopping
from bench.system.interrupt import Interrupts
from bench.watching import watchers
from bench.watching.display import Display
from bench.watching.live_page import LivePage
from models.core.registry import Missing


class Rounds:
    """A grid has one round; a search, seeds that depend on results, and a budget in hours have several."""

    def __init__(self, sweep: Sweep, folder: Path, executor: Executor, say: Callable[[str], None]) -> None:
        """executor: knows what the trials lack; say: tells the user a line."""
        self.sweep, self.folder, self.executor, self.say = sweep, folder, executor, say
        self.tried: set[str] = set()
        """Ids of the trials that this run has begun: even an error is not tried twice."""
        self.ended: dict[str, TrialRecord] = {}
        """What became of the trials that this run has ended, on disk or not."""
        self.problems: list[str] = []
        """What could not be written."""
        self.died: str | None = None
        """What has died of that which runs the trials."""
        self.absent: dict[str, list[Missing]] = {}
        """What keeps trials from running on this machine, by trial id."""

    def next(self) -> next_trials.Plan:
        """The next round, after taking over what other sweeps have finished and leaving out what cannot run here."""
        while True:
            records = self.settled()
            images = load_images(self.folder, records) if self.sweep.search.first_seeds else {}
            plan = next_trials.plan(
                self.sweep, records, images, at_once=self.executor.at_once, left_out=self.absent.keys()
            )
            adopted = adopt([trial.trial_id for trial in plan.next], self.folder)
            for path in adopted:
                self.say(f"note: {path} is the same trial, taken over")
            absent = {} if adopted else self.executor.absent(plan.next)
            if not adopted and not absent:
                return plan
            self.absent |= absent

    def run(
        self,
        plan: next_trials.Plan,
        console: Console,
        page: LivePage,
        interrupts: Interrupts,
        limits: Limits,
        checkpoint_seconds: float,
    ) -> next_trials.Plan:
        """Runs rounds until nothing is left to run, somebody stops them, or nothing can run any more; returns what the
        search has come to."""
        stopping = self.early_stopping(plan.trials)
        while plan.next and not interrupts.stop_requested and not self.died:
            self.tried |= {trial.trial_id for trial in plan.next}
            self.write_manifest(plan.trials)
            trials = self.executor.in_order(plan.next)
            trackers = watchers.trackers(self.sweep, trials, self.folder, self.say)
            with Display(trials, console) as display:
                queue = TrialQueue(
                    trials,
                    self.folder,
                    watchers.Watchers(display, page.of(trials), *trackers),
                    say=self.say,
                    stop_requested=lambda: interrupts.stop_requested,
                    limits=limits,
                    checkpoint_seconds=checkpoint_seconds,
                    stopping=stopping,
                )
                try:
                    self.executor.run(queue, interrupts)
                finally:
                    queue.release_locks()
            self.ended |= queue.records
            self.problems += queue.problems
            self.died = queue.died
            before, plan = plan.next, self.next()
            if plan.next == before:  # nothing came of it, and nothing would
                break
        return plan

    def settled(self) -> dict[str, TrialRecord]:
        """Records of trials that are not run again: all of this run, of earlier ones those that are results."""
        records, _ = load_all(self.folder)
        tried = {trial_id: record for trial_id, record in records.items() if trial_id in self.tried}
        return next_trials.settled(self.sweep, records) | tried | self.ended

    def early_stopping(self, trials: list[Trial]) -> EarlyStopping | None:
        """What stops trials early, and knows of those that ran before; ``None`` where all run to their end."""
        settings = self.sweep.search.early_stopping
        if settings is None:
            return None
        records = self.settled()
        before = [records[trial.trial_id] for trial in trials if trial.trial_id in records]
        return EarlyStopping(settings, self.sweep.seeds[0], before)

    def write_manifest(self, trials: list[Trial]) -> None:
        """The trials so far, as a report finds them."""
        if newer := schema.newer(self.folder / sweep_json.MANIFEST):
            self.problems += [newer] * (newer not in self.problems)
            return
        known, _ = sweep_json.load(self.folder)
        try:
            sweep_json.of(self.sweep, trials, self.absent, known.predicted if known else {}).save(self.folder)
        except OSError as error:
            problem = f"{self.folder}: {sweep_json.MANIFEST} cannot be written: {error}"
            self.problems += [problem] * (problem not in self.problems)
