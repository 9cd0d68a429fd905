"""Which rows of a leaderboard are shown and in which order: ``--where`` and ``--sort`` of ``bench.report``.

A condition is an expression of ``pandas.DataFrame.query``. Its syntax tree is checked first and rebuilt from allowed
nodes and generated column names, so that pandas sees no name, call or attribute of the user.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas

from bench.config.axes import label
from bench.config.errors import ConfigError, shortened
from bench.config.expand import Candidates, Trial, row_key
from bench.leaderboard.leaderboard import Row
from bench.leaderboard.results import Results
from bench.leaderboard.tuning.choice import by_row
from bench.scoring.metrics import METRICS
from models.core.registry import did_you_mean

LONGEST = 1000
"""Maximum number of characters in a condition. Longer ones take seconds to check."""
EXAMPLE = "Conditions look like model.adapter.rank == 8, or test.mae < 0.1 and status == 'ok'"
CONSTANTS = {"true": True, "false": False, "null": None}
"""Constants as YAML spells them; Python's spelling is allowed, too."""
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
ALLOWED = "Comparisons, and, or, not, in, + - * / // %, keys, numbers and quoted text are allowed"
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?P<key>[^`]*)`""")
"""Quoted text, or a key in backticks."""
BY_TRIAL = ("records", "images", "folders", "absent", "predicted")
"""Fields of ``Results`` that are mappings by trial id."""


def select(results: Results, where: Sequence[str] = (), sort: str = "") -> Results:
    """Returns the results with the trials that fulfil all conditions, in the order of a key.

    A key is an axis, a field of the configuration, a quantity (``test.s_measure``, ``training.rss_bytes``), ``status``
    or ``seed``. A quantity has the mean of the trial's row. A condition sees the rows that earlier conditions have
    left. ``sort`` puts the best row first if one end of the quantity is better, else the smallest; ``-key`` is the
    reverse; rows that lack the key come last. Raises ``ConfigError`` for what is no condition, for an unknown key, and
    if no row is left.
    """
    before = len(results.trials)
    for text in where:
        results = _keep(results, text)
    if where:
        remark = (
            f"Selected by {' and '.join(where)}: {len(results.trials)} of {before} trials. Differences are tested "
            "among the rows shown; rows that were chosen by what was measured look better than they are."
        )
        results = replace(results, remarks=[*results.remarks, remark])
    return replace(results, trials=_sorted(results, sort)) if sort else results


def _keep(results: Results, text: str) -> Results:
    """Returns the results with the trials that fulfil a condition."""
    frame = _frame(results)
    condition = _Condition(text, frame.columns)
    expression = condition.checked()
    used = frame[list(condition.columns)].set_axis(list(condition.columns.values()), axis=1)
    try:
        kept = set(used.query(expression, engine="python").index)
    except (ArithmeticError, MemoryError, NotImplementedError, RecursionError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--where {text}: cannot be evaluated ({reason}). Text is compared by == or in") from None
    if not kept:
        raise ConfigError(f"no trial fulfils {text}. There are {len(results.trials)} trials without this condition")
    trials = [trial for number, trial in enumerate(results.trials) if number in kept]
    ids = {trial.trial_id for trial in trials}
    tuned = _tuned_of(results, trials)
    changes: dict[str, Any] = {"trials": trials, "tuned": tuned}
    ids |= {trial.trial_id for group in tuned for trial in group.trials}  # they say how a row's values were chosen
    for name in BY_TRIAL:
        changes[name] = {trial_id: value for trial_id, value in getattr(results, name).items() if trial_id in ids}
    return replace(results, **changes)


def _tuned_of(results: Results, trials: Sequence[Trial]) -> list[Candidates]:
    """Returns the candidates of the rows that some of the trials belong to."""
    if not results.tuned:
        return []
    found = by_row(results.tuned, results.records, results.absent.keys())
    keys = {row_key(trial) for trial in trials}
    return [candidates for key, candidates in found.items() if key in keys]


def _sorted(results: Results, sort: str) -> list:
    """Returns the trials in the order of a key: numbers, then texts, then trials that lack it."""
    frame = _frame(results)
    key = sort.removeprefix("-")
    _check_key(key, frame.columns, "--sort")
    ascending = (_better(key) == "lower") != sort.startswith("-")
    numbers = pandas.to_numeric(frame[key], errors="coerce")
    texts = frame[key][numbers.isna() & frame[key].notna()].astype(str)
    keys = pandas.DataFrame({"number": numbers, "text": texts})
    order = keys.sort_values(["number", "text"], ascending=ascending, na_position="last").index
    return [results.trials[number] for number in order]


def _better(quantity: str) -> str:
    """Returns which end of a quantity comes first, higher or lower."""
    section, _, name = quantity.rpartition(".")
    if name in METRICS and section.startswith(("test", "val")):
        return METRICS[name].better
    return "higher" if name.endswith("images_per_second") else "lower"


# --- keys and their values --------------------------------------------------------------------------------------------


def _frame(results: Results) -> pandas.DataFrame:
    """Returns one line for each trial with a column for each key. NaN stands for a missing value."""
    board = replace(results, images={}).board()  # without comparisons, which take time and are not needed here
    rows = {trial_id: row for table in board.tables for row in table.rows for trial_id in row.trial_ids}
    lines = []
    for trial in results.trials:
        line = _fields(trial.config.model_dump(mode="json"))
        for axis, text in zip(board.axes, trial.point):
            line.setdefault(axis, text)
            line[f"{axis}.label"] = text
        row: Row = rows[trial.trial_id]
        line |= {quantity: cell.mean for quantity, cell in row.cells.items()}
        line["status"] = row.statuses[row.trial_ids.index(trial.trial_id)]
        line["seed"] = trial.seed
        lines.append(line)
    return pandas.DataFrame(lines)


def _fields(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns the fields of a configuration by dotted path; a part has its name as value, a list its JSON text."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            if "name" in value:
                found[path] = value["name"]
            found |= _fields(value, f"{path}.")
        else:
            found[path] = label(config, name) if isinstance(value, list) else value
    return found


def _check_key(key: str, keys: Sequence[str], option: str) -> None:
    if key not in keys:
        near = did_you_mean(key, sorted(keys))
        raise ConfigError(
            f"{option}: {shortened(key)} names no axis, field of the configuration or quantity{near} "
            f"There are: {', '.join(sorted(keys)[:12])}, …"
        )


# --- the syntax of conditions -----------------------------------------------------------------------------------------


class _Condition:
    """A condition of the user, and the columns that it names."""

    def __init__(self, text: str, keys: Sequence[str]) -> None:
        if len(text) > LONGEST or len(text.splitlines()) > 1:
            raise ConfigError(f"--where {shortened(text)}: needs one line of at most {LONGEST} characters")
        self.text, self.keys = text, keys
        self.prefix = "column_"
        while self.prefix in text:  # so that no name of the user is a generated one
            self.prefix = f"_{self.prefix}"
        self.columns: dict[str, str] = {}  # generated names by key
        self.python = QUOTED.sub(self._without_backticks, text).strip()

    def checked(self) -> str:
        """Returns the condition rebuilt from allowed syntax only. Raises ``ConfigError`` for any other syntax."""
        try:
            tree = ast.parse(self.python, mode="eval")
            return ast.unparse(ast.fix_missing_locations(self._condition(tree.body)))
        except ConfigError:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            equals = " Write == for equality." if re.search("(?<![=!<>])=(?!=)", self.text) else ""
            raise ConfigError(f"--where {self.text}: is no condition.{equals} {EXAMPLE}") from None

    def _without_backticks(self, found: re.Match) -> str:
        return found[0] if found["key"] is None else self._column(found["key"])

    def _column(self, key: str) -> str:
        _check_key(key, self.keys, f"--where {self.text}")
        return self.columns.setdefault(key, f"{self.prefix}{len(self.columns)}")

    def _refused(self, node: ast.AST, reason: str = "is not allowed") -> ConfigError:
        part = ast.get_source_segment(self.python, node)
        return ConfigError(f"--where {self.text}: {part} {reason}. {ALLOWED}. {EXAMPLE}")

    def _condition(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.BoolOp):
            return ast.BoolOp(node.op, [self._condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self._condition(node.operand))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        raise self._refused(node, "is no condition")

    def _comparison(self, node: ast.Compare) -> ast.expr:
        parts = [self._value(node.left)]
        for operator, part in zip(node.ops, node.comparators):
            if isinstance(operator, ast.In | ast.NotIn):
                parts.append(self._list(part))
            elif isinstance(operator, COMPARISONS):
                parts.append(self._value(part))
            else:
                raise self._refused(node)
        if not any(isinstance(inner, ast.Name) for part in parts for inner in ast.walk(part)):
            raise self._refused(node, "compares no key")
        nulls = [number for number, part in enumerate(parts) if isinstance(part, ast.Constant) and part.value is None]
        if nulls:
            return self._missing(node, parts[1 - nulls[0]] if nulls[0] < 2 else parts[0])
        return ast.Compare(parts[0], node.ops, parts[1:])

    def _missing(self, node: ast.Compare, value: ast.expr) -> ast.expr:
        """Rewrites a comparison with null: a missing value is NaN, which differs from itself."""
        if len(node.ops) > 1 or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            raise self._refused(node)
        return ast.Compare(value, [ast.NotEq() if isinstance(node.ops[0], ast.Eq) else ast.Eq()], [value])

    def _list(self, node: ast.expr) -> ast.expr:
        if not isinstance(node, ast.List | ast.Tuple):
            raise self._refused(node)
        return ast.List([self._constant(element) for element in node.elts], ast.Load())

    def _value(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            key = ast.get_source_segment(self.python, node)
            if key in CONSTANTS:
                return ast.Constant(CONSTANTS[key])
            return ast.Name(key if key in self.columns.values() else self._column(key), ast.Load())
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            return ast.BinOp(self._number(node.left), node.op, self._number(node.right))
        return self._constant(node)

    def _number(self, node: ast.expr) -> ast.expr:
        value = self._value(node)
        if isinstance(value, ast.Constant) and not isinstance(value.value, int | float):
            raise self._refused(node, "is no number")
        return value

    def _constant(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return ast.Constant(-self._number(node.operand).value)
        raise self._refused(node)
