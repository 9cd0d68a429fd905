"""What the page shows, as plain JSON values: rows in columns, trials, and the texts that can be downloaded."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np

from bench.record import TrialRecord
from bench.report.columns import SHOWN, not_distinguishable, status
from bench.report.leaderboard import Cell, Leaderboard, Row, Table
from bench.report.page import answer
from bench.report.page.columns import Column, columns_of
from bench.report.page.series import memory_series
from bench.report.results import Results
from bench.report.tables import as_csv, comparisons_csv
from bench.samples import Sample, load_samples
from bench.scores import METRICS
from bench.sweep import Trial

IMAGE_SCORES_BYTES = 2_000_000
"""Beyond it the per-image scores of the last trials are left out: a test set may have 5,000 images, a sweep 100 trials."""
NO_SCORE = 65535  # of an image, where scores are 0..65534 for 0..1
PAIRS = 300  # comparisons shown; all of them are in comparisons.csv
ORDER = ("shared", "worst", "best", "median")
"""In which samples are left out last: without the shared ones two trials cannot be compared."""


def content(results: Results, board: Leaderboard) -> dict[str, Any]:
    """All but the samples."""
    columns = columns_of(board)
    sets: dict[tuple[str, ...], int] = {}
    kept = _within(results, IMAGE_SCORES_BYTES)
    mains = {trial_id: table.main_metric for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    states = {i: s for table in board.tables for row in table.rows for i, s in zip(row.trial_ids, row.statuses)}
    base = _flat(results.sweep.base.model_dump(mode="json"))
    done = sum(state not in ("pending", "running", "missing") for state in states.values())
    return {
        "name": board.name,
        "question": board.question,
        "profile": board.profile,
        "settings": board.settings,
        "embedded": list(board.embedded),
        "axes": [{"name": axis.name, "labels": [label for label, _ in axis.points]} for axis in results.sweep.axes],
        "seeds": list(board.seeds),
        "done": done,
        "pending": sum(state in ("pending", "running") for state in states.values()),
        "total": len(states),
        "columns": [column.described() for column in columns],
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        "tables": [_table(table, columns, board.axes) for table in board.tables],
        "external": _external(board),
        "published": _published(board),
        "base": {path: _text(value) for path, value in base.items()},
        "trials": {
            trial.trial_id: _trial(trial, results, base, sets, mains, states, trial.trial_id in kept)
            for trial in results.trials
        },
        "imageNames": [list(names) for names in sets],
        "imagesLeftOut": len(results.images) - len(kept),
        "files": _files(board),
    }


def samples(results: Results, room: int) -> dict[str, Any]:
    """Samples by trial, their pictures once each, within ``room`` bytes, and how many had to stay out."""
    found = {i: load_samples(results.folders[i], i) for i in (t.trial_id for t in results.trials) if i in results.folders}
    pictures: dict[bytes, int] = {}
    shown: dict[str, list[dict[str, Any]]] = {trial_id: [] for trial_id, samples in found.items() if samples}
    left_out = 0
    for trial_id, sample in _by_importance(found):
        parts = (sample.image, sample.mask, sample.prediction)
        new = {part for part in parts if part not in pictures}
        cost = sum(len(part) * 4 // 3 + 8 for part in new) + 6 * len(sample.name) + 150
        if cost > room:
            left_out += 1
            continue
        room -= cost
        numbers = [pictures.setdefault(part, len(pictures)) for part in parts]
        shown[trial_id].append(
            {"name": sample.name, "why": list(sample.why), "score": _number(sample.score), "pictures": numbers}
        )
    return {
        "samples": shown,
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "samplesLeftOut": left_out,
    }


def _by_importance(found: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, Sample]]:
    """Every sample once: of all trials the first that is shared, the second, and so on; then the other reasons."""
    seen = set()
    for reason in ORDER:
        of_reason = {trial_id: [s for s in samples if reason in s.why] for trial_id, samples in found.items()}
        for number in range(max(map(len, of_reason.values()), default=0)):
            for trial_id, samples in of_reason.items():
                if number < len(samples) and (trial_id, samples[number].name) not in seen:
                    seen.add((trial_id, samples[number].name))
                    yield trial_id, samples[number]


def _table(table: Table, columns: Sequence[Column], axes: Sequence[str]) -> dict[str, Any]:
    words, text = answer.verdict(table, axes)
    tied = {m: not_distinguishable(table, m) for m in SHOWN}
    best = {column.key: column.best(table.rows) for column in columns if column.key.startswith("test.")}

    def row(number: int, row: Row) -> dict[str, Any]:
        marks = {f"test.{m}": "tied" for m, rows in tied.items() if number in rows}
        means = {key: row.cells[key].mean for key in best if key in row.cells}
        marks |= {key: "best" for key, mean in means.items() if mean == best[key] and len(table.rows) > 1}
        return {
            "name": answer.name(row.labels, axes),
            "labels": list(row.labels),
            "cells": [_cell(row.cells.get(column.key)) for column in columns],
            "marks": {str(i): marks[c.key] for i, c in enumerate(columns) if c.key in marks},
            "status": status(row),
            "states": list(row.statuses),
            "errors": list(row.errors),
            "notes": list(row.notes),
            "trials": list(row.trial_ids),
            "seeds": list(row.seeds),
            "front": row.on_front,
        }

    compared = [c for c in table.comparisons.get(table.main_metric, ()) if c.p is not None]
    shown = sorted(compared, key=lambda c: (c.p_holm, c.first, c.second))[:PAIRS]
    return {
        "environment": [list(pair) for pair in table.environment.items()],
        "commits": list(table.commits),
        "tradeoff": [f"test.{table.main_metric}", f"training.{table.memory_measure}" if table.memory_measure else None],
        "main": table.main_metric,
        "verdict": [words, text],
        "details": [*answer.statistics(table), *answer.memory(table, axes), *answer.states(table)],
        "rows": [row(*numbered) for numbered in enumerate(table.rows)],
        "pairs": [
            [c.first, c.second, *map(_number, (c.difference, c.low, c.high, c.p_holm)), c.seeds, c.resolved]
            for c in shown
        ],
        "pairsInAll": len(compared),
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
    """One trial; ``sets`` collects the lists of image names, which many trials share."""
    trial_id = trial.trial_id
    record, main = results.records.get(trial_id), mains[trial_id]
    here = _flat(trial.config.model_dump(mode="json"))
    paths = [*base, *(path for path in here if path not in base)]
    changes = [(p, base.get(p, _ABSENT), here.get(p, _ABSENT)) for p in paths if base.get(p, _ABSENT) != here.get(p, _ABSENT)]
    found: dict[str, Any] = {
        "name": answer.name(trial.point, [axis.name for axis in results.sweep.axes]),
        "labels": list(trial.point),
        "seed": trial.seed,
        "state": states[trial_id],
        "main": main,
        "changes": [[path, _text(before), _text(after)] for path, before, after in changes],
    }
    needs = results.absent.get(trial_id, ()) if record is None else ()
    if needs:
        found["error"] = "\n".join(f"missing {item.kind}: {item.what}; {item.remedy}" for item in needs)
    if record is None:
        return found
    points = [[p.epoch, p.train_loss, p.val_loss, p.lr] for p in record.curve]
    found |= {
        "error": record.error,
        "scores": {name: _number(value) for name, value in (record.scores or {}).items()},
        "val": {name: _number(value) for name, value in (record.val_scores or {}).items()},
        "curve": [[_number(value) for value in point] for point in points],
        "memory": memory_series(results.folders.get(trial_id), trial_id, len(results.trials)),
        "provenance": _provenance(record),
    }
    images = results.images.get(trial_id)
    if with_images and images is not None and main in images:
        found["imageSet"] = sets.setdefault(tuple(images["name"]), len(sets))
        found["images"] = _packed(images[main])
    return found


def _provenance(record: TrialRecord) -> dict[str, str]:
    facts = _flat(record.provenance.model_dump(mode="json")) if record.provenance else {}
    return {name: _text(value) for name, value in facts.items() if value != {}}


def _within(results: Results, budget: int) -> set[str]:
    """Ids of the first trials whose per-image scores fit."""
    kept = set()
    for trial in results.trials:
        images = results.images.get(trial.trial_id)
        budget -= len(images["name"]) * 8 // 3 if images else 0
        if images and budget >= 0:
            kept.add(trial.trial_id)
    return kept


def _packed(values: Sequence[float]) -> str:
    """Scores of 0..1 in 16 bits each, little end first, in base64: a third of what they are as text."""
    scores = np.asarray(values, dtype=float)
    known = np.isfinite(scores)
    levels = np.round(np.clip(np.where(known, scores, 0), 0, 1) * (NO_SCORE - 1)).astype("<u2")
    return base64.b64encode(np.where(known, levels, NO_SCORE).astype("<u2").tobytes()).decode()


def _external(board: Leaderboard) -> dict[str, Any]:
    rows = board.beside.external
    metrics = [m for m in SHOWN if any(m in row.record.scores for row in rows)]
    return {
        "metrics": metrics,
        "rows": [
            {
                "name": row.record.name,
                "scores": [_number(row.record.scores.get(m)) for m in metrics],
                "images": row.record.images,
                "source": f"{row.record.predictions} ({row.record.protocol}, {row.record.scored[:10]})",
                "differs": row.differs,
            }
            for row in rows
        ],
    }


def _published(board: Leaderboard) -> dict[str, Any]:
    lines = []
    for row in board.beside.published:
        checked = "read in the source" if row.source.verified == "source" else f"second hand: {row.source.how}"
        source = f"{row.source.text}; {checked}" + "; protocol not stated" * (row.result.protocol == "unstated")
        for metric, value in row.result.scores.items():
            gap, point = row.gaps.get(metric), ", ".join(row.point or ())
            lines.append([row.result.method, metric, _number(value), _number(gap), point, source])
    return {"testSet": board.beside.test_set, "rows": lines}


def _files(board: Leaderboard) -> dict[str, str]:
    texts = {"leaderboard.csv": as_csv(board), "comparisons.csv": comparisons_csv(board)}
    return {name: text for name, text in texts.items() if text}


_ABSENT = object()  # a field that one of two models does not have


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) and value else {f"{above}{name}": value}
    return found


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "–"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(cell: Cell | None) -> list[float | None] | None:
    return None if cell is None else [_number(cell.mean), _number(cell.half_width), cell.count]


def _number(value: float | None) -> float | None:
    """Seven digits, as many as anyone looks at; ``None`` for what is no number."""
    return float(f"{value:.7g}") if value is not None and isfinite(value) else None
