"""Predicted memory of all trials of a sweep, once for each distinct model; it is kept in ``sweep.json``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.config.expand import Trial
from bench.config.trial import TrialConfig
from bench.memory import card_generations
from bench.memory.predicted_peak import Unpredictable, predict_peak, predict_tensors, prediction_key
from bench.records import sweep_json
from bench.records.sweep_json import Predicted
from models.core.registry import InvalidModel


def keep_predictions(folder: Path, trials: Sequence[Trial], tell: Callable[[str], None], *, cards: bool = True) -> None:
    """Predicts the memory of trials and writes it into the folder's ``sweep.json`` for later reports."""
    known, _ = sweep_json.load(folder)
    if known is not None:
        found = dict(sorted(predictions(trials, known.predicted, tell, cards=cards).items()))
        known.model_copy(update={"predicted": found}).save(folder)


def predictions(
    trials: Sequence[Trial], known: Mapping[str, Predicted], tell: Callable[[str], None], *, cards: bool = True
) -> dict[str, Predicted]:
    """Returns predicted peaks by trial id; known predictions are kept.

    A trial on a CPU gets the prediction of the tensors of its step. With ``cards`` every trial gets those for a card,
    of the generation of this machine's card. A trial that cannot be predicted is left out, and ``tell`` gets the reason
    in a line.
    """
    by_model: dict[tuple[str, bool, bool], Predicted | None] = {}
    found = dict(known)
    for trial in trials:
        old, config = known.get(trial.trial_id, Predicted()), trial.config
        of_card = cards and old.allocated_bytes is None
        of_cpu = config.device == "cpu" and old.tensor_bytes is None
        if not of_card and not of_cpu:
            continue
        key = prediction_key(config), of_card, of_cpu
        if key not in by_model:
            try:
                by_model[key] = _predicted(config, of_card=of_card, of_cpu=of_cpu)
            except (Unpredictable, InvalidModel, ImportError) as error:
                tell(f"note: {', '.join(trial.point)}: memory is not predicted: {error}")
                by_model[key] = None
        if by_model[key] is not None:
            found[trial.trial_id] = old.model_copy(update=by_model[key].model_dump(exclude_none=True))
    return found


def _predicted(config: TrialConfig, *, of_card: bool, of_cpu: bool) -> Predicted:
    """Predicts the peak on a card, on a CPU, or both. Raises ``InvalidModel`` and ``Unpredictable``."""
    made = Predicted()
    if of_card:
        generation = card_generations.here() or card_generations.DEFAULT
        peak = predict_peak(config, generation)
        made = Predicted(allocated_bytes=peak.allocated, device_bytes=peak.device, generation=generation.name)
    if of_cpu:
        made = made.model_copy(update={"tensor_bytes": predict_tensors(config)})
    return made
