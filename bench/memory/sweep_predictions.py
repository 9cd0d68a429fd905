"""Predicted memory of all trials of a sweep, once for each distinct model; it is kept in ``sweep.json``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.config.expand import Trial
from bench.memory import card_generations
from bench.memory.predicted_peak import Unpredictable, predict_peak, prediction_key
from bench.records import sweep_json
from bench.records.sweep_json import Predicted
from models.core.registry import InvalidModel


def keep_predictions(folder: Path, trials: Sequence[Trial], tell: Callable[[str], None]) -> None:
    """Predicts the memory of trials and writes it into the folder's ``sweep.json`` for later reports."""
    known, _ = sweep_json.load(folder)
    if known is not None:
        found = dict(sorted(predictions(trials, known.predicted, tell).items()))
        known.model_copy(update={"predicted": found}).save(folder)


def predictions(
    trials: Sequence[Trial], known: Mapping[str, Predicted], tell: Callable[[str], None]
) -> dict[str, Predicted]:
    """Returns predicted peaks by trial id, for the generation of this machine's card; known predictions are kept.

    A trial that cannot be predicted is left out, and ``tell`` gets the reason in a line.
    """
    generation = card_generations.here() or card_generations.DEFAULT
    by_model: dict[str, Predicted | None] = {}
    found = dict(known)
    for trial in trials:
        if trial.trial_id in known:
            continue
        config = trial.config
        key = prediction_key(config)
        if key not in by_model:
            try:
                made = predict_peak(config, generation)
                sizes = {"allocated_bytes": made.allocated, "device_bytes": made.device}
                by_model[key] = Predicted(**sizes, generation=generation.name)
            except (Unpredictable, InvalidModel, ImportError) as error:
                tell(f"note: {', '.join(trial.point)}: memory is not predicted: {error}")
                by_model[key] = None
        if by_model[key] is not None:
            found[trial.trial_id] = by_model[key]
    return found
