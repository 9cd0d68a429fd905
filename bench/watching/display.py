"""The display of a running sweep: a live table of the trials in a terminal, plain lines in a log.

rich's ``Progress`` is not used for the table: it has no column titles, and would not make this file shorter.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from bench.config.expand import Trial
from bench.records.failures import in_a_line
from bench.records.memory import GIB, PEAKS
from bench.records.record import TrialRecord
from bench.scoring.metrics import METRICS, main_metric
from bench.training.loop import Epoch

LAST_SHOWN = 5
"""Number of ended trials in the table, the last ones."""
MARGIN = 6
"""Number of lines that the table leaves free in the terminal."""
UNKNOWN = "–"
MANY = 200
"""Smallest number of models for which a log has a line that their parameters are counted."""


class Watcher(Protocol):
    """Observes the trials of a round, which are numbered from 0."""

    def started(self, index: int) -> None: ...

    def epoch(self, index: int, epoch: Epoch) -> None: ...

    def finished(self, index: int, record: TrialRecord) -> None: ...


@dataclass
class _Running:
    """State of a trial that runs."""

    since: float  # of time.monotonic
    epoch: int = 0
    loss: float | None = None
    val_loss: float | None = None


class Display:
    """A ``Watcher`` on the console: a table of running and recently ended trials, or one line per trial in a log."""

    def __init__(self, trials: list[Trial], console: Console) -> None:
        self.console = console
        self.trials = trials
        self.epochs = [0] * len(trials)
        self.running: dict[int, _Running] = {}
        self.ended: dict[int, TrialRecord] = {}
        self.started_at = time.monotonic()
        self.live = None
        if console.is_terminal and not console.quiet:
            self.live = Live(get_renderable=self.table, console=console, refresh_per_second=2)

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def started(self, index: int) -> None:
        self.running.setdefault(index, _Running(time.monotonic()))

    def epoch(self, index: int, epoch: Epoch) -> None:
        self.started(index)
        state = self.running[index]
        state.epoch, state.loss = epoch.epoch, epoch.train_loss
        if epoch.val_loss is not None:  # not every epoch validates
            state.val_loss = epoch.val_loss
        self.epochs[index] = epoch.epoch

    def finished(self, index: int, record: TrialRecord) -> None:
        self.running.pop(index, None)
        self.ended[index] = record
        self.epochs[index] = self.trials[index].config.train.epochs
        if self.live and record.status == "ok":
            return  # the table shows it; failures stay on the screen
        width = len(str(len(self.trials)))
        left = f"  (ETA {self._eta()})" if len(self.ended) < len(self.trials) else ""
        place = f"[{len(self.ended):{width}}/{len(self.trials)}]"
        self.console.print(f"{place} {self._name(index)}: {_outcome(record)}{left}", markup=False)

    def table(self) -> Group:
        """Makes the table of the running and the last ended trials, and a line with the counts."""
        table = Table("trial", "state", box=None, header_style="bold", pad_edge=False)
        for column in ("epoch", "loss", "validation", "memory", "time left"):
            table.add_column(column, justify="right", no_wrap=True)
        table.columns[0].no_wrap, table.columns[0].overflow, table.columns[0].ratio = True, "ellipsis", 1
        running = list(self.running.items())
        room = max(1, self.console.size.height - MARGIN - min(LAST_SHOWN, len(self.ended)))
        for index, record in list(self.ended.items())[-LAST_SHOWN:]:
            table.add_row(*map(Text, self._ended_cells(index, record)), style="dim")
        for index, state in running[:room]:
            table.add_row(*map(Text, self._running_cells(index, state)))
        lines = [Text(self._counts())]
        if len(running) > room:
            lines.insert(0, Text(f"and {len(running) - room} more that run"))
        return Group(table, *lines)

    def _running_cells(self, index: int, state: _Running) -> list[str]:
        epochs = self.trials[index].config.train.epochs
        loss = UNKNOWN if state.loss is None else f"{state.loss:.3f}"
        val = UNKNOWN if state.val_loss is None else f"loss {state.val_loss:.3f}"
        left = UNKNOWN
        if state.epoch:
            left = duration((time.monotonic() - state.since) * (epochs / state.epoch - 1))
        # the peak is known when the trial has ended
        return [self._name(index), "running", f"{state.epoch}/{epochs}", loss, val, UNKNOWN, left]

    def _ended_cells(self, index: int, record: TrialRecord) -> list[str]:
        curve = record.curve
        loss = f"{curve[-1].train_loss:.3f}" if curve else UNKNOWN
        metric = main_metric(record.val_scores or ())
        val = f"{METRICS[metric].label} {record.val_scores[metric]:.3f}" if metric else UNKNOWN
        epoch = f"{len(curve)}/{self.trials[index].config.train.epochs}"
        return [self._name(index), record.status, epoch, loss, val, peak_memory(record), ""]

    def _counts(self) -> str:
        """``3 of 8 trials ended (2 ok, 1 oom), 2 running, 3 waiting; 1 min 5 s so far, ETA 2 min 0 s``."""
        total = len(self.trials)
        by_status = Counter(record.status for record in list(self.ended.values()))
        ended, running = len(self.ended), len(self.running)
        counts = f"{ended} of {total} trials ended"
        if by_status:
            counts += f" ({', '.join(f'{count} {status}' for status, count in sorted(by_status.items()))})"
        counts += f", {running} running, {total - ended - running} waiting"
        times = f"{duration(time.monotonic() - self.started_at)} so far"
        if ended < total:
            times += f", ETA {self._eta()}"
        return f"{counts}; {times}"

    def _share(self) -> float:
        """Share of all epochs that is done. The other work of a trial is taken as proportional to its epochs."""
        return sum(self.epochs) / sum(trial.config.train.epochs for trial in self.trials)

    def _eta(self) -> str:
        share = self._share()
        if not share:
            return "unknown"
        return duration((time.monotonic() - self.started_at) * (1 / share - 1))

    def _name(self, index: int) -> str:
        return self.trials[index].name


def peak_memory(record: TrialRecord) -> str:
    """Peak in training by the first measure of ``PEAKS`` that is known, as in ``0.19 GiB``; otherwise a dash."""
    memory = (record.memory or {}).get("training")
    for measure in PEAKS:
        value = getattr(memory, measure, None)
        if value is not None:
            return f"{value / GIB:.2f} GiB"
    return UNKNOWN


def _outcome(record: TrialRecord) -> str:
    if record.status != "ok":
        return f"{record.status}: {in_a_line(record.error)}"
    parts = ["ok"]
    for metric in dict.fromkeys((main_metric(record.scores), "mae")):
        if metric in record.scores:
            parts.append(f"{METRICS[metric].label} {record.scores[metric]:.3f}")
    return "  ".join([*parts, f"{record.timing.total_seconds:.0f} s"])


def duration(seconds: float) -> str:
    """``93`` -> ``1 min 33 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def loading(console: Console, doing: str = "preparing data", many: float = math.inf) -> Any:
    """Makes a ``bench.system.progress.Progress`` on the console; in a log a line, for ``many`` items or more."""

    def show(items: Iterable[Any], total: int) -> Iterable[Any]:
        if total >= many and not console.is_terminal:
            console.print(f"{doing}: {total:,}", markup=False)
        return track(items, doing, total, console=console, disable=not console.is_terminal, transient=True)

    return show


def counting(console: Console) -> Any:
    """Makes a ``bench.system.progress.Progress`` for ``bench.config.expand.sizes``."""
    return loading(console, "counting the parameters of models", MANY)
