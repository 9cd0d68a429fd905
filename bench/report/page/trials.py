"""Single trials for the page: settings that differ from the base, curves, per-image scores, provenance."""

import base64
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from bench.config.expand import Trial
from bench.config.paths import flatten
from bench.config.row_names import row_name
from bench.leaderboard.results import Results
from bench.records.record import TrialRecord
from bench.report.page.series import memory_series

IMAGE_SCORES_BYTES = 2_000_000
"""Largest size of all per-image scores, as of 100 trials with 5,000 images; those of the last trials are left out."""
NO_SCORE = 65535  # code of an unknown score; scores of 0..1 have codes 0..65534
_ABSENT = object()  # value of a field that a model does not have


def trials(
    results: Results, base: Mapping[str, Any], mains: Mapping[str, str], states: Mapping[str, str]
) -> dict[str, Any]:
    """Returns all trials by id, the lists of image names that they share, and the number of left-out image scores.

    base: the base configuration by dotted path; mains, states: main metric and state of each trial, by trial id.
    """
    sets: dict[tuple[str, ...], int] = {}
    kept = _within(results, IMAGE_SCORES_BYTES)
    found = {
        trial.trial_id: _trial(trial, results, base, sets, mains, states, trial.trial_id in kept)
        for trial in results.trials
    }
    return {
        "trials": found,
        "imageNames": [list(names) for names in sets],
        "imagesLeftOut": len(results.images) - len(kept),
    }


def _trial(
    trial: Trial,
    results: Results,
    base: Mapping[str, Any],
    sets: dict[tuple[str, ...], int],
    mains: Mapping[str, str],
    states: Mapping[str, str],
    with_images: bool,
) -> dict[str, Any]:
    """Returns one trial; ``sets`` collects the lists of image names, which many trials share."""
    trial_id = trial.trial_id
    record, main = results.records.get(trial_id), mains[trial_id]
    here = flatten(trial.config.model_dump(mode="json"))
    paths = [*base, *(path for path in here if path not in base)]
    both = [(path, base.get(path, _ABSENT), here.get(path, _ABSENT)) for path in paths]
    found: dict[str, Any] = {
        "name": row_name(trial.point, [axis.name for axis in results.sweep.axes]),
        "labels": list(trial.point),
        "seed": trial.seed,
        "state": states[trial_id],
        "main": main,
        "changes": [[path, text(before), text(after)] for path, before, after in both if before != after],
    }
    needs = results.absent.get(trial_id, ()) if record is None else ()
    if needs:
        found["error"] = "\n".join(f"missing {item.kind}: {item.what}; {item.remedy}" for item in needs)
    if record is None:
        return found
    curve = []
    for point in record.curve:
        curve.append([number(value) for value in (point.epoch, point.train_loss, point.val_loss, point.lr)])
    found |= {
        "error": record.error,
        "scores": {name: number(value) for name, value in (record.scores or {}).items()},
        "val": {name: number(value) for name, value in (record.val_scores or {}).items()},
        "train": {name: number(value) for name, value in (record.train_scores or {}).items()},
        "curve": curve,
        "memory": memory_series(results.folders.get(trial_id), trial_id, len(results.trials)),
        "provenance": _provenance(record),
    }
    images = results.images.get(trial_id)
    if with_images and images is not None and main in images:
        found["imageSet"] = sets.setdefault(tuple(images["name"]), len(sets))
        found["images"] = _packed(images[main])
    return found


def _provenance(record: TrialRecord) -> dict[str, str]:
    facts = flatten(record.provenance.model_dump(mode="json")) if record.provenance else {}
    return {name: text(value) for name, value in facts.items() if value != {}}


def _within(results: Results, budget: int) -> set[str]:
    """Returns the ids of the first trials whose per-image scores fit the budget, in bytes."""
    kept = set()
    for trial in results.trials:
        images = results.images.get(trial.trial_id)
        budget -= len(images["name"]) * 8 // 3 if images else 0
        if images and budget >= 0:
            kept.add(trial.trial_id)
    return kept


def _packed(values: Sequence[float]) -> str:
    """Returns scores of 0..1 as 16-bit little-endian integers in base64, a third of their size as text."""
    scores = np.asarray(values, dtype=float)
    known = np.isfinite(scores)
    levels = np.round(np.clip(np.where(known, scores, 0), 0, 1) * (NO_SCORE - 1)).astype("<u2")
    return base64.b64encode(np.where(known, levels, NO_SCORE).astype("<u2").tobytes()).decode()


def text(value: Any) -> str:
    """Returns a value of a configuration as YAML spells it; a dash for a field that does not exist."""
    if value is _ABSENT:
        return "–"
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> float | None:
    """Rounds to seven digits; ``None`` for a value that is missing or not finite."""
    return float(f"{value:.7g}") if value is not None and isfinite(value) else None
