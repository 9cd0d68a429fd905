"""The columns of a leaderboard's table, and which cells are the best: the same in Markdown, LaTeX and the terminal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.leaderboard.cards import fit
from bench.leaderboard.leaderboard import GIB, MEMORY_MEASURES, Cell, Leaderboard, Row, Table
from bench.scoring.metrics import METRICS

SHOWN = (
    "s_measure",
    "weighted_f_measure",
    "max_f_measure",
    "mean_e_measure",
    "iou",
    "f_of_means",
    "mae",
    "mean_iou",
    "ber",
    "accuracy",
    "mean_class_iou",
    "mean_class_dice",
    "pixel_accuracy",
)
"""Metrics that have a column; all others are in leaderboard.csv."""
STATUSES = ("oom", "over budget", "diverged", "stopped early", "error", "missing", "running", "pending")
"""Of what is not ok, in the order in which a row counts them."""
ARROWS = {"higher": "↑", "lower": "↓"}
UNKNOWN = "–"
PREDICTED = {
    "predicted.allocated_bytes": "predicted allocated GiB",
    "predicted.device_bytes": "predicted device GiB",
}

Group = Literal["axis", "accuracy", "cost", "state"]
Mark = Literal["best", "second", "tied"]


@dataclass(frozen=True)
class Column:
    """One column: its title without the arrow, which way is better, and the text of a row in it."""

    title: str
    text: Callable[[Row], str]
    group: Group
    better: str | None = None  # "higher" or "lower"; None where neither is
    metric: str | None = None  # of the test split, whose cells are marked
    rank: int = 0  # the lower the sooner it goes where there is no room; 0 stays

    @property
    def heading(self) -> str:
        return f"{self.title} {ARROWS[self.better]}" if self.better else self.title


def columns(board: Leaderboard, table: Table) -> list[Column]:
    """What a table of this environment shows: axes, accuracy, cost, state. A quantity that no row has is left out."""

    def known(quantity: str) -> bool:
        return any(quantity in row.cells for row in table.rows)

    found = [Column(axis, lambda row, i=i: row.labels[i], "axis") for i, axis in enumerate(board.axes)]
    for metric in (m for m in SHOWN if known(f"test.{m}")):
        entry, rank = METRICS[metric], 0 if metric in (table.main_metric, "mae") else 3
        found.append(Column(entry.label, _scores(f"test.{metric}"), "accuracy", entry.better, metric, rank))
    if known(f"val.{table.main_metric}"):
        entry = METRICS[table.main_metric]
        found.append(
            Column(f"val {entry.label}", _scores(f"val.{table.main_metric}"), "accuracy", entry.better, rank=4)
        )
    memory = {**PREDICTED, **{f"training.{m}": f"{title} GiB" for m, title in MEMORY_MEASURES.items()}}
    for quantity in (q for q in memory if known(q)):
        rank = 0 if quantity == f"training.{table.memory_measure}" else 5
        found.append(Column(memory[quantity], _means(quantity, 3, GIB), "cost", "lower", rank=rank))
    if any(fit(row) for row in table.rows):
        found.append(Column("fits", lambda row: str(fit(row) or UNKNOWN), "cost", rank=7))
    found += [Column(f"{p} M", _means(f"parameters.{p}", 3, 1e6), "cost", rank=2) for p in ("trainable", "total")]
    for title, phase in (("train img/s", "train"), ("infer img/s", "inference")):
        found.append(Column(title, _means(f"timing.{phase}_images_per_second", 1), "cost", "higher", rank=6))
    if known("timing.latency_seconds"):
        found.append(Column("latency ms", _means("timing.latency_seconds", 1, 1e-3), "cost", "lower", rank=6))
    found.append(Column("ok", lambda row: status(row) + " †" * bool(row.notes), "state"))
    found.append(Column("front", lambda row: "●" if row.on_front else "", "state"))
    return found


def status(row: Row) -> str:
    """``3/3``, or ``2/3 (1 oom)``, or ``1/1 (not trained)``."""
    others = [f"{row.statuses.count(s)} {s}" for s in STATUSES if s in row.statuses]
    if row.stopped_at is not None:
        others = [text + f" at epoch {row.stopped_at}" * text.endswith("stopped early") for text in others]
    others += ["not trained"] * row.untrained
    detail = f" ({', '.join(others)})" if others else ""
    return f"{row.count_ok}/{len(row.statuses)}{detail}"


def marks(table: Table, metric: str) -> Mapping[int, set[Mark]]:
    """Which rows have the best mean, which the next one, and which the data do not tell from the best; by number.

    Nothing is marked in a table of one row.
    """
    means = {i: row.cells[f"test.{metric}"].mean for i, row in enumerate(table.rows) if f"test.{metric}" in row.cells}
    found: dict[int, set[Mark]] = {i: set() for i in range(len(table.rows))}
    if len(table.rows) > 1:
        levels = sorted(set(means.values()), reverse=METRICS[metric].better == "higher")
        for mark, level in zip(("best", "second"), levels):
            for i in (i for i, mean in means.items() if mean == level):
                found[i].add(mark)
    for i in not_distinguishable(table, metric):
        found[i].add("tied")
    return found


def best_row(table: Table, metric: str) -> int | None:
    """Number of the row with the best mean; ``None`` if there is no mean."""
    means = {i: row.cells[f"test.{metric}"].mean for i, row in enumerate(table.rows) if f"test.{metric}" in row.cells}
    pick = max if METRICS[metric].better == "higher" else min
    return pick(means, key=means.get, default=None)


def not_distinguishable(table: Table, metric: str) -> set[int]:
    """Numbers of the rows that the data do not tell from the one with the best mean; that one is not among them.

    Empty where nothing was compared: then nothing is known.
    """
    best = best_row(table, metric)
    comparisons = [c for c in table.comparisons.get(metric, ()) if c.p is not None]
    if best is None or not comparisons:
        return set()
    return {c.first + c.second - best for c in comparisons if best in (c.first, c.second) and not c.resolved}


def show(cell: Cell | None, digits: int) -> str:
    """A score: mean ± half of its 95 % interval, where that is not all zeros."""
    width = cell.half_width if cell else None
    spread = width is not None and width >= 0.5 * 10**-digits
    return mean(cell, digits) + (f" ± {width:.{digits}f}" if spread else "")


def mean(cell: Cell | None, digits: int, unit: float = 1) -> str:
    return UNKNOWN if cell is None else f"{cell.mean / unit:.{digits}f}"


def _scores(quantity: str) -> Callable[[Row], str]:
    return lambda row: show(row.cells.get(quantity), 3)


def _means(quantity: str, digits: int, unit: float = 1) -> Callable[[Row], str]:
    return lambda row: mean(row.cells.get(quantity), digits, unit)
