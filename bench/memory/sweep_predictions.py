"""Predicted memory beside measured memory: once for every distinct model, kept in ``sweep.json``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.config.expand import Trial
from bench.memory import card_generations
from bench.memory.predicted_peak import Unpredictable, predict, prediction_key
from bench.records import sweep_json
from bench.records.sweep_json import Predicted
from models.core.registry import InvalidModel


def keep_predictions(folder: Path, trials: Sequence[Trial], tell: Callable[[str], None]) -> None:
    """Writes predictions into a folder's ``sweep.json``, where every later report finds them."""
    known, _ = sweep_json.load(folder)
    if known is not None:
        found = dict(sorted(predictions(trials, known.predicted, tell).items()))
        known.model_copy(update={"predicted": found}).save(folder)


def predictions(
    trials: Sequence[Trial], known: Mapping[str, Predicted], tell: Callable[[str], None]
) -> dict[str, Predicted]:
    """Predicted peaks by trial id, on the card that is here; those that are known stay. What defies prediction is said
    and left out."""
    generation = card_generations.here() or card_generations.DEFAULT
    by_model: dict[str, Predicted | None] = {}
    found = dict(known)
    for trial in (trial for trial in trials if trial.trial_id not in known):
        config = trial.config
        key = prediction_key(config)
        if key not in by_model:
            try:
                made = predict(config, generation)
                sizes = {"allocated_bytes": made.allocated, "device_bytes": made.device}
                by_model[key] = Predicted(**sizes, generation=generation.name)
            except (Unpredictable, InvalidModel, ImportError) as error:
                tell(f"note: {', '.join(trial.point)}: memory is not predicted: {error}")
                by_model[key] = None
        if by_model[key] is not None:
            found[trial.trial_id] = by_model[key]
    return found
