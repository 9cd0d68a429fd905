"""What a user sees while a sweep runs: a live table of the trials in a terminal, plain lines in a log."""

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
from bench.records.memory import PEAKS
from bench.records.record import TrialRecord
from bench.scoring.metrics import METRICS, main_metric
from bench.training.loop import Epoch

GIB = 2**30
LAST_SHOWN = 5  # of the trials that have ended
MARGIN = 6  # lines of the terminal that the table leaves free
UNKNOWN = "–"
MANY = 200
"""Models from which on a log says that their parameters are counted."""


class Watcher(Protocol):
    """Is told what happens to the trials; indices count the pending ones from 0."""

    def started(self, index: int) -> None: ...

    def epoch(self, index: int, epoch: Epoch) -> None: ...

    def finished(self, index: int, record: TrialRecord) -> None: ...


@dataclass
class _Running:
    """What is known of a trial that has started."""

    since: float  # of time.monotonic
    epoch: int = 0
    loss: float | None = None
    val_loss: float | None = None


class Display:
    """A ``Watcher`` on the console: a table of running and lately ended trials, or one line per trial in a log."""

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
        state.val_loss = state.val_loss if epoch.val_loss is None else epoch.val_loss  # not every epoch looks at it
        self.epochs[index] = epoch.epoch

    def finished(self, index: int, record: TrialRecord) -> None:
        self.running.pop(index, None)
        self.ended[index] = record
        self.epochs[index] = self.trials[index].config.train.epochs
        if self.live and record.status == "ok":
            return  # the table has it; what went wrong stays on the screen
        width = len(str(len(self.trials)))
        left = "" if len(self.ended) == len(self.trials) else f"  (ETA {self._eta()})"
        place = f"[{len(self.ended):{width}}/{len(self.trials)}]"
        self.console.print(f"{place} {self._name(index)}: {_outcome(record)}{left}", markup=False)

    def table(self) -> Group:
        """The trials that run and the last ones that ended, and a line that counts all."""
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
        more = [Text(f"and {len(running) - room} more that run")] if len(running) > room else []
        return Group(table, *more, Text(self._counts()))

    def _running_cells(self, index: int, state: _Running) -> list[str]:
        epochs = self.trials[index].config.train.epochs
        loss = UNKNOWN if state.loss is None else f"{state.loss:.3f}"
        val = UNKNOWN if state.val_loss is None else f"loss {state.val_loss:.3f}"
        left = UNKNOWN
        if state.epoch:
            left = duration((time.monotonic() - state.since) * (epochs / state.epoch - 1))
        # the peak is known when the trial has ended: until then nobody has asked the sampler
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
        kinds = f" ({', '.join(f'{n} {status}' for status, n in sorted(by_status.items()))})" if by_status else ""
        ended, running = len(self.ended), len(self.running)
        parts = [f"{ended} of {total} trials ended{kinds}", f"{running} running", f"{total - ended - running} waiting"]
        so_far = f"{duration(time.monotonic() - self.started_at)} so far"
        return f"{', '.join(parts)}; {so_far}" + (f", ETA {self._eta()}" if ended < total else "")

    def _share(self) -> float:
        """Part of all epochs that is done; what a trial does beside its epochs is taken to grow with them."""
        return sum(self.epochs) / sum(trial.config.train.epochs for trial in self.trials)

    def _eta(self) -> str:
        share = self._share()
        return duration((time.monotonic() - self.started_at) * (1 / share - 1)) if share else "unknown"

    def _name(self, index: int) -> str:
        trial = self.trials[index]
        return f"{', '.join(trial.point)} seed {trial.seed}"


def peak_memory(record: TrialRecord) -> str:
    """Peak in training by the most telling measure, ``0.19 GiB``; a dash where nothing was measured."""
    memory = (record.memory or {}).get("training")
    values = [value for name in PEAKS if (value := getattr(memory, name, None)) is not None]
    return f"{values[0] / GIB:.2f} GiB" if values else UNKNOWN


def _outcome(record: TrialRecord) -> str:
    if record.status != "ok":
        return f"{record.status}: {in_a_line(record.error)}"
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


def loading(console: Console, doing: str = "preparing data", many: float = math.inf) -> Any:
    """A ``bench.system.progress.Progress`` on the console. In a log it is a line, from ``many`` items on, or else nothing."""

    def show(items: Iterable[Any], total: int) -> Iterable[Any]:
        if total >= many and not console.is_terminal:
            console.print(f"{doing}: {total:,}", markup=False)
        return track(items, doing, total, console=console, disable=not console.is_terminal, transient=True)

    return show


def counting(console: Console) -> Any:
    """A ``bench.system.progress.Progress`` for ``bench.config.expand.sizes``."""
    return loading(console, "counting the parameters of models", MANY)
