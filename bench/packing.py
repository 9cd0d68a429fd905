"""Several trials on one card, for sweeps that ask for accuracy only: whether they fit together is predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.config import ConfigError
from bench.predicted_memory import Unpredictable, predict, prediction_key
from bench.resources import Resources
from bench.sweep import Trial

GIB = 2**30


@dataclass(frozen=True)
class CardShare:
    """What a trial gets of a card that it shares."""

    part: float  # of the card, as Ray counts it
    limit_bytes: int  # of the card's memory, the CUDA context included


def smallest_card_bytes() -> int | None:
    """Memory of the smallest GPU that torch sees; ``None`` without one."""
    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return min(sizes, default=None)


def shares(trials: Sequence[Trial], resources: Resources, card_bytes: int) -> dict[str, CardShare]:
    """What each trial gets, by its id: its predicted total, and of what is left of a full card as much again in
    proportion, so that no choice of neighbours is too large for the card.

    Raises ``ConfigError`` where the largest trials that could meet on a card do not fit, and for a trial whose memory
    cannot be predicted.
    """
    totals = _predicted(trials)
    largest = sorted(trials, key=lambda trial: -totals[trial.trial_id])[: resources.trials_per_card]
    together = sum(totals[trial.trial_id] for trial in largest)
    asked = f"--gpus-per-trial {resources.gpus_per_trial:g}"
    if together > card_bytes:
        parts = [f"{_name(trial)} {totals[trial.trial_id] / GIB:.2f} GiB" for trial in largest]
        raise ConfigError(
            f"{asked}: {len(largest)} trials that would share a card are predicted to take {together / GIB:.2f} GiB of "
            f"its {card_bytes / GIB:.2f} GiB ({', '.join(parts)}). Use a larger share, or 1"
        )
    room = card_bytes / together
    return {i: CardShare(resources.gpus_per_trial, int(total * room)) for i, total in totals.items()}


def _predicted(trials: Sequence[Trial]) -> dict[str, int]:
    """Predicted totals on the card in bytes, by trial id; seeds of one configuration are predicted once."""
    known: dict[str, int] = {}
    totals, errors = {}, []
    for trial in trials:
        key = prediction_key(trial.config)
        if key not in known:
            try:
                known[key] = predict(trial.config).device
            except Unpredictable as error:
                errors.append(f"  {_name(trial)}: {error}")
                known[key] = 0
        totals[trial.trial_id] = known[key]
    if errors:
        title = "--gpus-per-trial: the memory of these trials cannot be predicted. Run them with --gpus-per-trial 1"
        raise ConfigError(title, *errors)
    return totals


def _name(trial: Trial) -> str:
    return ", ".join(trial.point) or trial.trial_id
