"""All that looks on while trials run: the display, the page that is rebuilt, and the trackers that a sweep names."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.records.record import TrialRecord
from bench.training.loop import Epoch
from bench.watching.display import Watcher

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


class Together:
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


def check_trackers(names: Sequence[str], executor: str) -> None:
    """Raises ``ConfigError`` for every tracker whose package is not here, or that this executor cannot serve."""
    errors = []
    for name in names:
        package = next((p for p in (PACKAGES[name], "ray") if find_spec(p) is None), None)
        if package:
            errors.append(f"track: {name} needs the package {package}. pip install {package}, or set track=[]")
        elif name == "wandb" and executor == "serial":
            what = "wandb logs from a process of Ray, and --executor serial starts none"
            errors.append(f"track: {what}. Leave out --executor serial, or set track=[]")
    if errors:
        raise ConfigError(*errors)


def trackers(sweep: Sweep, trials: Sequence[Trial], folder: Path, say: Callable[[str], None]) -> list[Watcher]:
    """A watcher for the trackers that the sweep names; none if it names none. Raises ``ConfigError``."""
    if not sweep.track:
        return []
    from bench.watching.trackers import Tracking  # imports Ray, which the rest does not need

    return [Tracking(sweep, trials, folder, say)]
