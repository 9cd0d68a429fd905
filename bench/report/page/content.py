"""What the page shows, as plain JSON values: rows in columns, trials, and the texts that can be downloaded."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.leaderboard.cards import fit
from bench.leaderboard.columns import SHOWN, marks, status
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.results import Results
from bench.report.latex import latex
from bench.report.page import answer
from bench.report.page.quantities import Quantity, quantities_of
from bench.report.page.trials import flat, number, text, trials
from bench.report.sections import how_chosen
from bench.report.tables import as_csv, comparisons_csv
from bench.scoring.metric import Metric
from bench.scoring.metrics import METRICS

PAIRS = 300  # comparisons shown; all of them are in comparisons.csv


def content(results: Results, board: Leaderboard) -> dict[str, Any]:
    """All but the samples."""
    columns = quantities_of(board)
    mains = {trial_id: table.main_metric for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    states = {i: s for table in board.tables for row in table.rows for i, s in zip(row.trial_ids, row.statuses)}
    base = flat(results.sweep.base.model_dump(mode="json"))
    done = sum(state not in ("pending", "running", "missing") for state in states.values())
    return {
        "name": board.name,
        "question": board.question,
        "profile": board.profile,
        "settings": board.settings,
        "embedded": list(board.embedded),
        "axes": [{"name": name, "labels": _labels(results, i)} for i, name in enumerate(board.axes)],
        "chosen": [line for line in how_chosen(board) if line],
        "remarks": list(board.remarks),
        "seeds": list(board.seeds),
        "done": done,
        "pending": sum(state in ("pending", "running") for state in states.values()),
        "total": len(states),
        "columns": [column.described() for column in columns],
        "metrics": {name: _described(metric) for name, metric in METRICS.items()},
        "tables": [_table(table, columns, board.axes) for table in board.tables],
        "external": _external(board),
        "published": _published(board),
        "base": {path: text(value) for path, value in base.items()},
        **trials(results, base, mains, states),
        "files": _files(board),
    }


def _described(metric: Metric) -> dict[str, Any]:
    """Returns a metric as the page needs it; the columns of the page tell which metrics are shown."""
    facts = asdict(metric)
    del facts["shown"]
    return facts


def _labels(results: Results, axis: int) -> list[str]:
    """Of an axis, in the sweep's order; in that of their size where a search draws them from a range."""
    drawn = dict.fromkeys(trial.point[axis] for trial in results.trials)
    given = [label for label, _ in results.sweep.axes[axis].points if label in drawn]
    if results.sweep.axes[axis].between is not None:
        return sorted(drawn, key=float)
    return list(dict.fromkeys([*given, *drawn]))


def _table(table: Table, columns: Sequence[Quantity], axes: Sequence[str]) -> dict[str, Any]:
    marked = {f"test.{m}": marks(table, m) for m in SHOWN}

    def row(number: int, row: Row) -> dict[str, Any]:
        found = {i: marked.get(column.key, {}).get(number, ()) for i, column in enumerate(columns)}
        kinds = {str(i): next((k for k in ("best", "tied") if k in kinds), None) for i, kinds in found.items()}
        fits = fit(row)
        return {
            "name": answer.name(row.labels, axes),
            "labels": list(row.labels),
            "cells": [_cell(row.cells.get(column.key)) for column in columns],
            "marks": {i: kind for i, kind in kinds.items() if kind},
            "fits": str(fits) if fits else None,
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
        "weights": list(table.weights),
        "atOnce": sorted({table.trials_at_once[0], table.trials_at_once[-1]}) if table.trials_at_once else [],
        "tradeoff": [f"test.{table.main_metric}", f"training.{table.memory_measure}" if table.memory_measure else None],
        "main": table.main_metric,
        "verdict": list(answer.verdict(table, axes)),
        "details": [*answer.statistics(table), *answer.memory(table, axes), *answer.states(table)],
        "rows": [row(*numbered) for numbered in enumerate(table.rows)],
        "pairs": [
            [c.first, c.second, *map(number, (c.difference, c.low, c.high, c.p_holm)), c.seeds, c.resolved]
            for c in shown
        ],
        "pairsInAll": len(compared),
    }


def _external(board: Leaderboard) -> dict[str, Any]:
    rows = board.beside.external
    metrics = [m for m in SHOWN if any(m in row.record.scores for row in rows)]
    return {
        "metrics": metrics,
        "rows": [
            {
                "name": row.record.name,
                "scores": [number(row.record.scores.get(m)) for m in metrics],
                "images": row.record.images,
                "source": row.origin,
                "differs": row.differs,
            }
            for row in rows
        ],
    }


def _published(board: Leaderboard) -> dict[str, Any]:
    lines = []
    for row in board.beside.published:
        for metric, value in row.result.scores.items():
            gap, point = row.gaps.get(metric), ", ".join(row.point or ())
            lines.append([row.result.method, metric, number(value), number(gap), point, row.origin])
    return {"testSet": board.beside.test_set, "rows": lines}


def _files(board: Leaderboard) -> dict[str, str]:
    texts = {
        "leaderboard.csv": as_csv(board),
        "leaderboard.tex": latex(board),
        "comparisons.csv": comparisons_csv(board),
    }
    return {name: text for name, text in texts.items() if text}


def _cell(cell: Cell | None) -> list[float | None] | None:
    return None if cell is None else [number(cell.mean), number(cell.half_width), cell.count]
