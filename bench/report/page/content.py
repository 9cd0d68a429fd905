"""The contents of the page as JSON values: tables, trials, and the files that can be downloaded."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

from bench.config.ask import scale
from bench.config.axes import Axis
from bench.config.paths import flatten
from bench.config.row_names import row_name
from bench.leaderboard.columns import fit, status, tuned_text
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span, score_span
from bench.leaderboard.ranking import marks
from bench.leaderboard.results import Results
from bench.records.memory import GIB
from bench.report.latex import latex
from bench.report.legend import embedded_note, legend, sentences
from bench.report.page import answer
from bench.report.page.quantities import Quantity, quantities_of
from bench.report.page.trials import number, text, trials
from bench.report.sections import bounds, how_chosen
from bench.report.tables import as_csv, comparisons_csv, tuning_csv
from bench.scoring.metrics import METRICS, SHOWN

PLAIN_CHARACTERS = 100_000
"""Longest file that the page holds as it is."""
PACKED_BYTES = 2_500_000
"""Largest compressed file in the page, as of 100,000 comparisons; larger ones are only in the folder."""
PAIRS = 300  # most comparisons on the page; all are in comparisons.csv


def content(results: Results, board: Leaderboard, saved: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns everything that the page shows except sample predictions. saved: ``downloads``, if they exist."""
    columns = quantities_of(board)
    mains = {trial_id: table.main_metric for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    states = {i: s for table in board.tables for row in table.rows for i, s in zip(row.trial_ids, row.statuses)}
    base = flatten(results.sweep.base.model_dump(mode="json"))
    done = sum(state not in ("pending", "running", "missing") for state in states.values())
    return {
        "name": board.name,
        "question": board.question,
        "profile": board.profile,
        "settings": board.settings,
        "embedded": embedded_note(board),
        "legend": " ".join(sentences(legend(board), best="**bold**")),
        "axes": [{"name": name, "labels": _labels(results, i)} for i, name in enumerate(board.axes)],
        "chosen": how_chosen(board),
        "remarks": list(board.remarks),
        "done": done,
        "pending": sum(state in ("pending", "running") for state in states.values()),
        "total": len(states),
        "columns": [column.described() for column in columns],
        "metrics": {name: {"label": metric.label, "better": metric.better} for name, metric in METRICS.items()},
        "tables": [_table(table, columns, board, results.sweep.axes) for table in board.tables],
        "external": _external(board),
        "published": _published(board),
        "base": {path: text(value) for path, value in base.items()},
        **trials(results, base, mains, states),
        **_files(downloads(board) if saved is None else saved),
    }


def _labels(results: Results, axis: int) -> list[str]:
    """Returns the labels on an axis in the sweep's order; drawn numbers of a search in the order of their size."""
    drawn = dict.fromkeys(trial.point[axis] for trial in results.trials)
    given = [label for label, _ in results.sweep.axes[axis].points if label in drawn]
    if results.sweep.axes[axis].between is not None:
        return sorted(drawn, key=float)
    return list(dict.fromkeys([*given, *drawn]))


def _table(table: Table, columns: Sequence[Quantity], board: Leaderboard, varied: Sequence[Axis]) -> dict[str, Any]:
    axes = board.axes
    compared = table.tested(table.main_metric)
    shown = sorted(compared, key=lambda c: (c.p_adjusted, c.first, c.second))[:PAIRS]
    pairs = []
    for c in shown:
        numbers = map(number, (c.difference, c.low, c.high, c.p_adjusted))
        unresolved = "" if c.resolved else bounds(c, table.answer.ask.margin)
        pairs.append([c.first, c.second, *numbers, c.seeds, unresolved])
    at_once = table.trials_at_once
    return {
        "environment": [list(pair) for pair in table.environment.items()],
        "commits": list(table.commits),
        "weights": list(table.weights),
        "atOnce": sorted({at_once[0], at_once[-1]}) if at_once else [],
        "tradeoff": [f"test.{table.main_metric}", f"training.{table.memory_measure}" if table.memory_measure else None],
        "main": table.main_metric,
        "least": [number(score_span(table)), number(memory_span(table) / GIB)],
        "places": _places(table, varied),
        "verdict": list(answer.verdict(table, axes)),
        "details": [*answer.statistics(table), *answer.memory(table, axes), *answer.states(table)],
        "rows": [_row(row, columns, marked, board) for row, marked in zip(table.rows, _marks(table, columns))],
        "pairs": pairs,
        "pairsInAll": len(compared),
    }


def _places(table: Table, axes: Sequence[Axis]) -> list[float] | None:
    """Returns the places of the rows on the axis of a trend; ``None`` if no trend was asked for or tested."""
    order = scale(axes[0]) if table.answer is not None and table.answer.trend is not None else None
    return None if order is None else [number(order.place(row.labels[0])) for row in table.rows]


def _marks(table: Table, columns: Sequence[Quantity]) -> list[dict[str, str]]:
    """Returns for each row its marks, best or else tied, by the number of the column."""
    found: list[dict[str, str]] = [{} for _ in table.rows]
    for i, column in enumerate(columns):
        metric = column.key.removeprefix("test.")
        if column.key.startswith("test.") and metric in SHOWN:
            for marked, kinds in zip(found, marks(table, metric)):
                if "best" in kinds:
                    marked[str(i)] = "best"
                elif "tied" in kinds:
                    marked[str(i)] = "tied"
    return found


def _row(row: Row, columns: Sequence[Quantity], marked: dict[str, str], board: Leaderboard) -> dict[str, Any]:
    fits = fit(row)
    return {
        "name": row_name(row.labels, board.axes),
        "labels": list(row.labels),
        "cells": [_cell(row.cells.get(column.key)) for column in columns],
        "marks": marked,
        "tuned": tuned_text(row) if board.tuning else None,
        "fits": str(fits) if fits else None,
        "status": status(row),
        "states": list(row.statuses),
        "errors": list(row.errors),
        "notes": list(row.notes),
        "trials": list(row.trial_ids),
        "seeds": list(row.seeds),
        "front": row.on_front,
    }


def _external(board: Leaderboard) -> dict[str, Any]:
    rows = board.beside.external
    metrics = [m for m in SHOWN if any(m in row.record.scores for row in rows)]
    shown = []
    for row in rows:
        scores = [number(row.record.scores.get(metric)) for metric in metrics]
        facts = {"images": row.record.images, "source": row.origin, "differs": row.differs}
        shown.append({"name": row.record.name, "scores": scores, **facts})
    return {"metrics": metrics, "rows": shown}


def _published(board: Leaderboard) -> dict[str, Any]:
    lines = []
    for row in board.beside.published:
        for metric, value in row.result.scores.items():
            gap, point = row.gaps.get(metric), ", ".join(row.point or ())
            lines.append([row.result.method, metric, number(value), number(gap), point, row.origin])
    return {"testSet": board.beside.test_set, "rows": lines}


def downloads(board: Leaderboard) -> dict[str, str]:
    """Returns the texts of the files that the page offers, by name."""
    return {
        "leaderboard.csv": as_csv(board),
        "leaderboard.tex": latex(board),
        "comparisons.csv": comparisons_csv(board),
        "tuning.csv": tuning_csv(board),
    }


def _files(texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the files that can be saved: large ones compressed, and the names of those that are too large."""
    files: dict[str, str | dict[str, str]] = {}
    left_out = []
    for name, whole in texts.items():
        if len(whole) <= PLAIN_CHARACTERS:
            files |= {name: whole} if whole else {}
            continue
        packed = base64.b64encode(gzip.compress(whole.encode(), 6, mtime=0)).decode()
        if len(packed) > PACKED_BYTES:
            left_out.append(name)
        else:
            files[name] = {"packed": packed}
    return {"files": files, "filesLeftOut": left_out}


def _cell(cell: Cell | None) -> list[float | None] | None:
    return None if cell is None else [number(cell.mean), number(cell.half_width), cell.count]
