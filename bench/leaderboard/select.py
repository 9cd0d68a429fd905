"""Which rows of a leaderboard are shown and in which order: ``--where`` and ``--sort`` of ``bench.report``."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.config.errors import ConfigError
from bench.leaderboard.leaderboard import Leaderboard, Row
from bench.leaderboard.results import Results
from bench.records.sweep_json import value_at
from bench.scoring.metrics import METRICS
from models.core.registry import did_you_mean

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": lambda a, b: a != b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}
STATUS, SEED = "status", "seed"
BY_TRIAL = ("records", "images", "folders", "absent", "predicted")  # fields of ``Results``


@dataclass(frozen=True)
class Condition:
    """``key operator value``, as in ``test.mae<0.1``."""

    text: str
    key: str
    operator: str
    value: str


def select(results: Results, where: Sequence[str] = (), sort: str = "") -> Results:
    """The results with the rows that all conditions hold for, in the order of a key.

    A key is an axis, a field of the configuration, a quantity (``test.s_measure``, ``training.rss_bytes``), ``status``
    or ``seed``. Sorting puts the best first where a quantity has a better end, else the smallest; ``-key`` is the
    reverse; rows that lack the key come last. Raises ``ConfigError`` for unknown keys and when no row is left.
    """
    conditions = [_parse(text) for text in where]
    if not conditions and not sort:
        return results
    board = _untested(results)
    keys = _keys(results, board)
    for key in [condition.key for condition in conditions] + [sort.removeprefix("-")] * bool(sort):
        if key not in keys:
            near = did_you_mean(key, sorted(keys))
            shown = ", ".join(sorted(keys - set(METRICS))[:12])
            raise ConfigError(
                f"'{key}' names no axis, field of the configuration or quantity{near} There are: {shown}, …"
            )
    before = len(results.trials)
    for condition in conditions:
        results = _keep(results, condition)
    if not results.trials:
        raise ConfigError(f"no row has {' and '.join(where)}. There are {before} trials without this condition")
    remarks = list(results.remarks)
    if conditions:
        remarks.append(
            f"Selected by {' and '.join(where)}: {len(results.trials)} of {before} trials. Differences are tested "
            "among the rows shown; rows that were chosen by what was measured look better than they are."
        )
    results = replace(results, remarks=remarks)
    return replace(results, trials=_sorted(results, sort)) if sort else results


def _untested(results: Results) -> Leaderboard:
    """The leaderboard without its comparisons, which take time and decide nothing here."""
    return replace(results, images={}).board()


def _parse(text: str) -> Condition:
    found = re.fullmatch(r"\s*([\w.\[\]-]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
    if not found or not found[3]:
        raise ConfigError(f"--where {text}: is no condition. They look like model.adapter.rank=8 or 'test.mae<0.1'")
    return Condition(text, *found.groups())


def _keys(results: Results, board: Leaderboard) -> set[str]:
    quantities = {name for table in board.tables for row in table.rows for name in row.cells}
    fields = {path for trial in results.trials for path in _paths(trial.config.model_dump(mode="json"))}
    return {*quantities, *board.axes, *fields, STATUS, SEED}


def _paths(node: Mapping[str, Any], within: str = "") -> set[str]:
    found = set()
    for key, value in node.items():
        found.add(f"{within}{key}")
        if isinstance(value, Mapping):
            found |= _paths(value, f"{within}{key}.")
    return found


def _keep(results: Results, condition: Condition) -> Results:
    """The trials for which a condition holds: on a quantity by the mean of their row, else each by itself."""
    board = _untested(results)
    rows = {trial_id: row for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    by_row = any(condition.key in row.cells for row in rows.values())
    kept = []
    for trial in results.trials:
        values = _values(results, board, rows[trial.trial_id], trial, condition.key, by_row)
        if any(_holds(value, condition) for value in values) != (condition.operator == "!="):
            kept.append(trial)
    ids = {trial.trial_id for trial in kept}
    return replace(
        results,
        trials=kept,
        **{part: {i: v for i, v in getattr(results, part).items() if i in ids} for part in BY_TRIAL},
    )


def _values(results: Results, board: Leaderboard, row: Row, trial: Any, key: str, by_row: bool) -> list[Any]:
    """What a trial has under a key: a field has its value and, on an axis, its label too."""
    if by_row:
        return [row.cells[key].mean] if key in row.cells else []
    if key == STATUS:
        return [row.statuses[row.trial_ids.index(trial.trial_id)]]
    found = [trial.point[board.axes.index(key)]] if key in board.axes else []
    known, value = value_at(trial.config.model_dump(mode="json"), key)
    if known:
        found.append(value.get("name") if isinstance(value, Mapping) else value)
    return found


def _holds(value: Any, condition: Condition) -> bool:
    """Whether the value fulfils the condition; for ``!=`` whether it equals, which the caller turns round."""
    operator = OPERATORS["=" if condition.operator == "!=" else condition.operator]
    try:
        number = float(condition.value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        return operator(float(value), number)
    except ValueError:
        text = value if isinstance(value, str) else json.dumps(value)
        return operator(text, condition.value) if condition.operator in ("=", "!=") else False


def _sorted(results: Results, sort: str) -> list[Any]:
    board = _untested(results)
    key = sort.removeprefix("-")
    rows = {trial_id: row for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    by_row = any(key in row.cells for row in rows.values())
    downwards = (_better(key) == "higher") != sort.startswith("-")

    def place(trial: Any) -> tuple:
        values = _values(results, board, rows[trial.trial_id], trial, key, by_row)
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        texts = [str(v) for v in values]
        return (0, numbers[0], "") if numbers else (1, 0.0, texts[0]) if texts else (2, 0.0, "")

    there = [trial for trial in results.trials if place(trial)[0] < 2]
    without = [trial for trial in results.trials if place(trial)[0] == 2]
    return sorted(there, key=place, reverse=downwards) + without


def _better(quantity: str) -> str:
    """Which end of a quantity comes first."""
    section, _, name = quantity.rpartition(".")
    if name in METRICS and section.startswith(("test", "val")):
        return METRICS[name].better
    return "higher" if name.endswith("images_per_second") else "lower"
