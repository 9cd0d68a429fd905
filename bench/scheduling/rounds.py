"""Rounds of trials: each round is planned from the records that the rounds before it have left."""

from collections.abc import Callable, Sequence

from rich.console import Console

from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.records import schema, sweep_json
from bench.records.record import TrialRecord
from bench.records.store import RecordStore, adopt, set_aside_damaged
from bench.records.tables import load_images
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
    """The rounds of a sweep. A grid has one; searches, ``first_seeds`` and a budget in hours may need several."""

    def __init__(self, sweep: Sweep, store: RecordStore, executor: Executor, say: Callable[[str], None]) -> None:
        """store: the records of the results folder; executor: knows what trials lack; say: prints a line."""
        self.sweep, self.store, self.executor, self.say = sweep, store, executor, say
        self.plan = next_trials.Plan([], [])
        """State of the search: the trials that it has chosen, and those that run next."""
        self.tried: set[str] = set()
        """Ids of the trials that this run has started. It starts none twice, even after an error."""
        self.ended: dict[str, TrialRecord] = {}
        """Records of the trials that have ended in this run, whether they could be written or not."""
        self.problems: list[str] = []
        """A line for each file that could not be written."""
        self.died: str | None = None
        """The part of Ray that has died; ``None`` while all of it lives."""
        self.absent: dict[str, list[Missing]] = {}
        """Items that planned trials lack on this machine, by trial id."""
        self._checked: set[str] = set()  # ids of trials whose files were checked for damage
        self._lacking: dict[str, list[Missing]] = {}  # by the ids of all trials that the executor was asked about

    def next(self) -> next_trials.Plan:
        """Plans the next round: takes over results of other sweeps, and leaves out trials that cannot run here."""
        while True:
            records = self.settled()
            images = load_images(self.store.folder, records) if self.sweep.search.first_seeds else {}
            at_once = self.executor.at_once
            self.plan = next_trials.plan(self.sweep, records, images, at_once=at_once, left_out=self.absent.keys())
            if self._set_aside_damaged() or self._adopt():
                continue
            absent = self.absent_of(self.plan.next)
            if not absent:
                return self.plan
            self.absent |= absent

    def _set_aside_damaged(self) -> bool:
        """Renames damaged files of planned trials, which then count as not run. Returns whether there were any."""
        ids = [trial.trial_id for trial in self.plan.trials if trial.trial_id not in self._checked]
        self._checked.update(ids)
        lines = set_aside_damaged(dict.fromkeys(ids), self.store.folder)
        for line in lines:
            self.say(f"note: {line}; it is run again")
        return bool(lines)

    def _adopt(self) -> bool:
        """Copies records of planned trials that other sweeps have finished. Returns whether there were any."""
        paths = adopt([trial.trial_id for trial in self.plan.next], self.store.folder)
        for path in paths:
            self.say(f"note: {path} is the same trial, taken over")
        return bool(paths)

    def absent_of(self, trials: Sequence[Trial]) -> dict[str, list[Missing]]:
        """Returns the items that trials lack here, by trial id. The executor is asked once about each trial."""
        unknown = [trial for trial in trials if trial.trial_id not in self._lacking]
        lacking = self.executor.absent(unknown)
        for trial in unknown:
            self._lacking[trial.trial_id] = lacking.get(trial.trial_id, [])
        return {trial.trial_id: self._lacking[trial.trial_id] for trial in trials if self._lacking[trial.trial_id]}

    def run(
        self, console: Console, page: LivePage, interrupts: Interrupts, limits: Limits, checkpoint_seconds: float
    ) -> None:
        """Runs rounds until the search has ended, an interrupt asks to stop, or Ray has died."""
        stopping = self.early_stopping()
        while self.plan.next and not interrupts.stop_requested and not self.died:
            before = self.plan.next
            self.tried |= {trial.trial_id for trial in before}
            self.write_manifest()
            trials = self.executor.in_order(before)
            trackers = watchers.trackers(self.sweep, trials, self.store.folder, self.say)
            with Display(trials, console) as display:
                queue = TrialQueue(
                    trials,
                    self.store.folder,
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
            if self.next().next == before:  # the round has left no results, so another one would not either
                break

    def settled(self) -> dict[str, TrialRecord]:
        """Returns the records of trials that do not run again: results, and the records of trials that this run has started."""
        records = self.store.refresh()
        tried = {trial_id: record for trial_id, record in records.items() if trial_id in self.tried}
        return next_trials.settled(self.sweep, records) | tried | self.ended

    def early_stopping(self) -> EarlyStopping | None:
        """Returns the rule that stops trials early, with the curves of earlier trials; ``None`` without a rule."""
        settings = self.sweep.search.early_stopping
        if settings is None:
            return None
        records = self.settled()
        before = [records[trial.trial_id] for trial in self.plan.trials if trial.trial_id in records]
        return EarlyStopping(settings, self.sweep.seeds[0], before)

    def write_manifest(self) -> None:
        """Writes ``sweep.json``: the sweep and its trials so far."""
        folder = self.store.folder
        problem = schema.newer(folder / sweep_json.MANIFEST)
        if not problem:
            known, _ = sweep_json.load(folder)
            predicted, tuned = known.predicted if known else {}, self.plan.candidates
            manifest = sweep_json.of(self.sweep, self.plan.trials, self.absent, predicted, candidates=tuned)
            try:
                manifest.save(folder)
            except OSError as error:
                problem = f"{folder}: {sweep_json.MANIFEST} cannot be written: {error}"
        if problem and problem not in self.problems:
            self.problems.append(problem)
