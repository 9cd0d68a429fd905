"""What a search requires of a sweep and of this machine; checked before any work."""

import importlib.util
from collections.abc import Sequence
from operator import attrgetter

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.search import METHODS
from bench.config.sweep import Sweep


def check(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Raises ``ConfigError`` for a search that these trials, or this machine, do not allow."""
    search, stopping, wrong = sweep.search, sweep.search.early_stopping, []
    method = METHODS.module(search.name)
    if method.PACKAGE and importlib.util.find_spec(method.PACKAGE) is None:
        wrong.append(f"search.name: {method.PACKAGE} is not installed. {method.INSTALL}, or take random")
    same = {"dataset": "the score on the validation split"} if method.LEARNS else {}
    if stopping:
        fields = ("dataset", "transform", "train.epochs", "train.loss", "train.validate_every")
        same |= dict.fromkeys(fields, "the validation loss")
        if any(trial.config.train.validate_every == 0 for trial in trials):
            wrong.append("search.early_stopping: needs the validation loss. Set train.validate_every=1")
        shortest = min(trial.config.train.epochs for trial in trials)
        if shortest <= stopping.grace_epochs:
            grace = f"search.early_stopping.grace_epochs: {stopping.grace_epochs} of {shortest} epochs"
            wrong.append(f"{grace} stops nothing. Allowed: less than train.epochs")
    for field, what in same.items():
        if len({repr(attrgetter(field)(trial.config)) for trial in trials}) > 1:
            wrong.append(f"search: {what} is compared, and {field} changes what it means. Make a sweep of each")
    if wrong:
        raise ConfigError(f"{sweep.name}:", *(f"  {line}" for line in wrong))


def setting_that_needs_validation(sweep: Sweep) -> str | None:
    """Names the setting that needs a validation split, for the error where the data have none."""
    if sweep.tune:
        return "tune"
    if sweep.search.early_stopping:
        return "search.early_stopping"
    return f"search.name: {sweep.search.name}" if METHODS.module(sweep.search.name).LEARNS else None
