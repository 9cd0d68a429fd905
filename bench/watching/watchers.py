"""All that observes running trials: the display, the live page, and the trackers that a sweep names."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.records.record import TrialRecord
from bench.training.loop import Epoch
from bench.watching.display import Watcher
from bench.watching.tracking import Tracking


class Watchers:
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def started(self, index: int) -> None:
        for watcher in self.watchers:
            watcher.started(index)

    def epoch(self, index: int, epoch: Epoch) -> None:
        for watcher in self.watchers:
            watcher.epoch(index, epoch)

    def finished(self, index: int, record: TrialRecord) -> None:
        for watcher in self.watchers:
            watcher.finished(index, record)


def trackers(sweep: Sweep, trials: Sequence[Trial], folder: Path, say: Callable[[str], None]) -> list[Watcher]:
    """The watcher for the trackers that the sweep names; none if it names none. Raises ``ConfigError``."""
    return [Tracking(sweep, trials, folder, say)] if sweep.track else []
