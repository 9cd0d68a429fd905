"""What a user sees while a sweep runs: bars with an ETA in a terminal, plain lines in a log."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, track

from bench.record import TrialRecord
from bench.scores import METRICS, main_metric
from bench.sweep import Trial


class Watcher(Protocol):
    """Is told what happens to the trials; indices count the pending ones from 0."""

    def started(self, index: int) -> None: ...

    def epoch(self, index: int, epoch: int, loss: float) -> None: ...

    def finished(self, index: int, record: TrialRecord) -> None: ...


class Display:
    """A ``Watcher`` on the console: one bar for the sweep and one for each running trial, or one line per trial."""

    def __init__(self, trials: list[Trial], console: Console) -> None:
        self.console = console
        self.trials = trials
        self.epochs = [0] * len(trials)
        self.ended = 0
        self.started_at = time.monotonic()
        text, info = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[info]}"))
        columns = text, BarColumn(), info, TimeElapsedColumn()
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.total = self.bars.add_task(f"{len(trials)} trials", total=1.0, info="")
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def started(self, index: int) -> None:
        if index not in self.tasks:
            total = self.trials[index].config.train.epochs
            self.tasks[index] = self.bars.add_task(self._name(index), total=total, info="")

    def epoch(self, index: int, epoch: int, loss: float) -> None:
        self.started(index)
        self.epochs[index] = epoch
        self.bars.update(self.tasks[index], completed=epoch, info=f"loss {loss:.3f}")
        self._advance()

    def finished(self, index: int, record: TrialRecord) -> None:
        self.ended += 1
        self.epochs[index] = self.trials[index].config.train.epochs
        if index in self.tasks:
            self.bars.remove_task(self.tasks[index])
        self._advance()
        width = len(str(len(self.trials)))
        left = "" if self.ended == len(self.trials) else f"  (ETA {self._eta()})"
        line = f"[{self.ended:{width}}/{len(self.trials)}] {self._name(index)}: {_outcome(record)}{left}"
        self.console.print(line, markup=False)

    def _advance(self) -> None:
        self.bars.update(self.total, completed=self._share(), info=f"ETA {self._eta()}")

    def _share(self) -> float:
        """Part of all epochs that is done; what a trial does beside its epochs is taken to grow with them."""
        return sum(self.epochs) / sum(trial.config.train.epochs for trial in self.trials)

    def _eta(self) -> str:
        share = self._share()
        return duration((time.monotonic() - self.started_at) * (1 / share - 1)) if share else "unknown"

    def _name(self, index: int) -> str:
        trial = self.trials[index]
        return f"{', '.join(trial.point)} seed {trial.seed}"


def _outcome(record: TrialRecord) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.error.strip().splitlines()[-1]}"
    shown = {METRICS[m].label: record.scores[m] for m in (main_metric(record.scores), "mae") if m in record.scores}
    numbers = "  ".join(f"{label} {value:.3f}" for label, value in shown.items())
    return f"ok  {numbers}  {record.timing.total_seconds:.0f} s"


def duration(seconds: float) -> str:
    """``93`` -> ``1 min 33 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def loading(console: Console, doing: str = "preparing data") -> Any:
    """A ``bench.datasets.Progress`` on the console; shows nothing where that is a log."""

    def show(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(items, doing, total, console=console, disable=not console.is_terminal, transient=True)

    return show
