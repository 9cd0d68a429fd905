"""Predictions for a whole sweep: a row for each point, the largest batch of a card, and curves around the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.lacking import without_tensor_cores
from bench.config.trial import TrialConfig, with_value
from bench.memory.card_generations import DEFAULT, Generation
from bench.memory.cards import USABLE, fits, with_margin
from bench.memory.predicted_peak import PredictedPeak, Unpredictable, predict_peak, prediction_key
from bench.records.memory import GIB
from models.core.registry import InvalidModel

LARGEST_BATCH = 4096
CURVES = {
    "model.adapter.rank": (4, 8, 16, 32, 64, 128),
    "model.adapter.placement": ("none", "last:8", "last:16", "every:2", "all"),
    "model.decoder.width": (32, 64, 128, 256),
    "transform.size": (224, 336, 504, 672),
    "train.batch_size": (1, 4, 8, 12, 16, 24),
}
"""Fields that ``--curves`` varies, one at a time, around the sweep's base."""


@dataclass(frozen=True)
class PlanRow:
    """One point of a sweep, whose seeds all need the same memory; with a prediction, or the reason for its absence."""

    labels: tuple[str, ...]
    config: TrialConfig
    prediction: PredictedPeak | None
    largest_batch: int | None = None  # on the card of --card; 0 if not even one image fits
    reason: str = ""


def plan(
    trials: Sequence[Trial],
    card: float | None,
    report: Callable[[str], None] = lambda text: None,
    generation: Generation = DEFAULT,
) -> list[PlanRow]:
    """Predicts a row for each point of the sweep, in its order; a row that cannot be predicted has the reason.

    card: size in GB of a card, for which the largest batch is searched. ``report`` gets a line for each point.
    """
    rows: dict[tuple[str, ...], PlanRow] = {}
    known: dict[str, PredictedPeak] = {}
    for trial in trials:
        if trial.point in rows:
            continue
        config = trial.config
        key = prediction_key(config)
        lacks, remedy = without_tensor_cores(generation.since, config.train.precision)
        try:
            if lacks:
                raise Unpredictable(f"{generation.name} has {lacks}; {remedy}")
            known[key] = known.get(key) or predict_peak(config, generation)
            batch = None if card is None else largest_batch(config, card, generation)
        except Unpredictable as error:
            report(f"{', '.join(trial.point)}: not predicted, {error}")
            rows[trial.point] = PlanRow(trial.point, config, None, reason=str(error))
            continue
        report(f"predicted {', '.join(trial.point)}: {known[key].allocated / GIB:.2f} GiB")
        rows[trial.point] = PlanRow(trial.point, config, known[key], batch)
    return list(rows.values())


def largest_batch(config: TrialConfig, card: float, generation: Generation = DEFAULT) -> int:
    """Finds the largest batch, up to 4096, whose predicted total fits a card of ``card`` GB; 0 if none does. The
    smallest batch has one image for each micro-batch.

    Memory grows almost linearly with the batch, so the search first interpolates between a batch that fits and one that
    does not. The steps of the allocator disturb the line, so that bisection ends the search.
    """
    totals: dict[int, float] = {}
    least = config.train.accumulate
    low, high = 0, LARGEST_BATCH + 1  # low fits, high does not
    guess, interpolations = min(config.train.batch_size, LARGEST_BATCH), 0
    while high > max(low + 1, least):
        peak = predict_peak(with_value(config, {"train.batch_size": guess}), generation)
        totals[guess] = with_margin(peak.device)
        low, high = (guess, high) if fits(totals[guess], card) else (low, guess)
        if low == 0:
            guess = max(least, high // 2)
        elif high not in totals:
            guess = min(2 * low, LARGEST_BATCH)
        elif interpolations < 4:
            interpolations += 1
            share = (card * USABLE * GIB - totals[low]) / (totals[high] - totals[low])
            guess = min(max(low + int(share * (high - low)), low + 1), high - 1)
        else:
            guess = (low + high) // 2
    return low


def curves(base: TrialConfig, generation: Generation = DEFAULT) -> dict[str, list[tuple[str, PredictedPeak]]]:
    """Predicts peaks around ``base``, one field varied at a time; fields that it lacks are left out, and so are values
    that it cannot have."""
    peaks: dict[str, list[tuple[str, PredictedPeak]]] = {}
    for path, values in CURVES.items():
        for value in values:
            try:
                peak = predict_peak(with_value(base, {path: value}), generation)
            except (ConfigError, InvalidModel, Unpredictable, KeyError):  # KeyError: the model has no such part
                continue
            peaks.setdefault(path, []).append((str(value), peak))
    return peaks
