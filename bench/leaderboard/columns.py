"""The columns of a leaderboard's table and their texts: the same in Markdown, LaTeX, the terminal and on the page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.memory.cards import CARDS, smallest_card, with_margin
from bench.records.memory import GIB, MEASURES
from bench.scoring.metrics import METRICS, SHOWN

STATUSES = ("oom", "over budget", "diverged", "stopped early", "error", "missing", "running", "pending")
"""Statuses other than ok, in the order in which a row counts them."""
ARROWS = {"higher": "↑", "lower": "↓"}
UNKNOWN = "–"
MEMORY_COLUMNS = {
    "predicted.allocated_bytes": "predicted allocated GiB",
    "predicted.device_bytes": "predicted device GiB",
    "predicted.tensor_bytes": "predicted tensors (CPU) GiB",
    **{f"training.{measure.name}": f"{measure.short} GiB" for measure in MEASURES if measure.has_column},
}
"""Titles of the columns of memory, by quantity."""

Group = Literal["axis", "accuracy", "cost", "state"]


@dataclass(frozen=True)
class Column:
    """One column: its title without the arrow, which way is better, and the text of a row in it."""

    title: str
    text: Callable[[Row], str]
    group: Group
    better: str | None = None  # "higher" or "lower"; None if neither is better
    metric: str | None = None  # name of a metric of the test split, whose cells are marked
    dropped: int = 0  # in a narrow terminal the column with the largest number is dropped first; 0 is never dropped

    @property
    def heading(self) -> str:
        """The title with the arrow that points to the better end."""
        return f"{self.title} {ARROWS[self.better]}" if self.better else self.title


@dataclass(frozen=True)
class Fit:
    """The smallest card in GB that is large enough for a row's training, and the evidence for it."""

    card: int | None  # None if none of ``CARDS`` is large enough
    by: Literal["measured", "predicted"]

    def __str__(self) -> str:
        size = f"{self.card} GB" if self.card else f"over {CARDS[-1]} GB"
        return size if self.by == "measured" else f"{size} (pred.)"


def fit(row: Row) -> Fit | None:
    """Returns the smallest card for a row: by measured device memory, else by predicted device memory.

    ``None`` if neither is known: resident memory of a CPU does not tell what a GPU needs.
    """
    if cell := row.cells.get("training.nvml_device_bytes"):
        return Fit(smallest_card(cell.mean), "measured")
    if cell := row.cells.get("predicted.device_bytes"):
        return Fit(smallest_card(with_margin(cell.mean)), "predicted")
    return None


def columns(board: Leaderboard, table: Table) -> list[Column]:
    """Returns the columns of a table: axes, accuracy, cost, state. A quantity that no row has is left out."""
    axes = [Column(axis, _label(number), "axis") for number, axis in enumerate(board.axes)]
    tuned = [Column("tuned", tuned_text, "accuracy", dropped=1)] if board.tuning else []
    return [*axes, *tuned, *_accuracy_columns(table), *_cost_columns(table), *STATE_COLUMNS]


def tuned_text(row: Row) -> str:
    """Returns ``train.lr 0.005 (tuned)``, or ``default`` for a row with the values of the sweep file."""
    return row.tuned.text if row.tuned else "default"


def _known(table: Table, quantity: str) -> bool:
    return any(quantity in row.cells for row in table.rows)


def _accuracy_columns(table: Table) -> list[Column]:
    found = []
    for metric in SHOWN:
        if _known(table, f"test.{metric}"):
            entry, dropped = METRICS[metric], 0 if metric in (table.main_metric, "mae") else 3
            found.append(Column(entry.label, _scores(f"test.{metric}"), "accuracy", entry.better, metric, dropped))
    entry = METRICS[table.main_metric]
    for split, dropped in (("val", 4), ("train", 8)):
        if _known(table, f"{split}.{table.main_metric}"):
            text = _scores(f"{split}.{table.main_metric}")
            found.append(Column(f"{split} {entry.label}", text, "accuracy", entry.better, dropped=dropped))
    return found


def _cost_columns(table: Table) -> list[Column]:
    found = []
    for quantity, title in MEMORY_COLUMNS.items():
        if _known(table, quantity):
            dropped = 0 if quantity == f"training.{table.memory_measure}" else 5
            found.append(Column(title, _means(quantity, 3, GIB), "cost", "lower", dropped=dropped))
    if any(fit(row) for row in table.rows):
        found.append(Column("fits", lambda row: str(fit(row) or UNKNOWN), "cost", dropped=7))
    for kind in ("trainable", "total"):
        found.append(Column(f"{kind} M", _means(f"parameters.{kind}", 3, 1e6), "cost", dropped=2))
    for title, phase in (("train img/s", "train"), ("infer img/s", "inference")):
        speed = _means(f"timing.{phase}_images_per_second", 1)
        found.append(Column(title, speed, "cost", "higher", dropped=6))
    if _known(table, "timing.latency_seconds"):
        latency = _means("timing.latency_seconds", 1, 1e-3)
        found.append(Column("latency ms", latency, "cost", "lower", dropped=6))
    for title, phase in (("J/train img", "train"), ("J/infer img", "inference")):
        if _known(table, f"energy.{phase}_joules_per_image"):
            joules = _means(f"energy.{phase}_joules_per_image", 2)
            found.append(Column(title, joules, "cost", "lower", dropped=6))
    for title, phase in (("train busy", "train"), ("infer busy", "inference")):
        if _known(table, f"timing.{phase}_busy_share"):
            found.append(Column(title, _means(f"timing.{phase}_busy_share", 2), "cost", "higher", dropped=6))
    if _known(table, "timing.compile_seconds"):
        found.append(Column("compile s", _means("timing.compile_seconds", 1), "cost", "lower", dropped=6))
    return found


def status(row: Row) -> str:
    """Returns ``3/3``, or ``2/3 (1 oom)``, or ``1/1 (not trained)``."""
    others = []
    for name in STATUSES:
        if name in row.statuses:
            text = f"{row.statuses.count(name)} {name}"
            if name == "stopped early" and row.stopped_at is not None:
                text += f" at epoch {row.stopped_at}"
            others.append(text)
    if row.untrained:
        others.append("not trained")
    if row.underfit:
        others.append("underfit")
    detail = f" ({', '.join(others)})" if others else ""
    return f"{row.count_ok}/{len(row.statuses)}{detail}"


STATE_COLUMNS = (
    Column("ok", lambda row: status(row) + (" †" if row.notes else ""), "state"),
    Column("front", lambda row: "●" if row.on_front else "", "state"),
)


def show(cell: Cell | None, digits: int) -> str:
    """Returns a score as mean ± half of its 95 % interval, which is left out if all its digits are zero."""
    width = cell.half_width if cell else None
    if width is None or width < 0.5 * 10**-digits:
        return mean(cell, digits)
    return f"{mean(cell, digits)} ± {width:.{digits}f}"


def mean(cell: Cell | None, digits: int, unit: float = 1) -> str:
    """Returns the mean, divided by ``unit``; a dash if there is no cell."""
    return UNKNOWN if cell is None else f"{cell.mean / unit:.{digits}f}"


def _label(axis: int) -> Callable[[Row], str]:
    return lambda row: row.labels[axis]


def _scores(quantity: str) -> Callable[[Row], str]:
    return lambda row: show(row.cells.get(quantity), 3)


def _means(quantity: str, digits: int, unit: float = 1) -> Callable[[Row], str]:
    return lambda row: mean(row.cells.get(quantity), digits, unit)
