"""The columns of the page's table: every quantity that any row has, how it is called and in which unit it is shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.report.columns import ARROWS, SHOWN
from bench.report.leaderboard import GIB, MEMORY_MEASURES, Leaderboard, Row
from bench.scores import METRICS

SECTIONS = ("test", "val", "training", "evaluation", "parameters", "timing")
TIMINGS = {"train_images_per_second": ("train img/s", "higher"), "inference_images_per_second": ("infer img/s", "higher")}


@dataclass(frozen=True)
class Column:
    """A quantity of ``Row.cells``. Numbers are divided by ``unit`` before they are shown."""

    key: str
    title: str
    better: str | None = None  # "higher" or "lower"; None where neither is
    unit: float = 1
    digits: int = 3
    shown: bool = False  # at first; the others can be switched on
    help: str = ""

    def described(self) -> dict[str, Any]:
        """What the page's script knows of the column."""
        arrow = f" {ARROWS[self.better]}" if self.better else ""
        facts = {"key": self.key, "title": self.title + arrow, "unit": self.unit, "digits": self.digits}
        return {**facts, "better": self.better, "shown": self.shown, "help": self.help}

    def best(self, rows: Iterable[Row]) -> float | None:
        means = [row.cells[self.key].mean for row in rows if self.key in row.cells]
        return {"higher": max, "lower": min, None: lambda *_, **__: None}[self.better](means, default=None)


def columns_of(board: Leaderboard) -> list[Column]:
    """Those of the Markdown table first and in its order, then all others."""
    present = dict.fromkeys(key for table in board.tables for row in table.rows for key in row.cells)
    mains = {table.main_metric for table in board.tables}
    found = [_column(key, mains) for key in present]
    return sorted(found, key=_place)


def _column(key: str, mains: set[str]) -> Column:
    section, _, name = key.rpartition(".")
    if name in METRICS:
        metric = METRICS[name]
        where, in_table = {"test": ("", name in SHOWN), "val": ("val ", name in mains)}.get(
            section, (f"{section.removeprefix('test[').removesuffix(']')} ", False)
        )
        return Column(key, where + metric.label, metric.better, shown=in_table, help=metric.source)
    during = "" if section == "training" else f" in {section}"
    if name in MEMORY_MEASURES:
        in_table = section == "training"
        return Column(key, f"{MEMORY_MEASURES[name]}{during} GiB", "lower", GIB, 3, in_table, "peak" + during)
    if name.endswith("_bytes"):
        return Column(key, f"{_words(name.removesuffix('_bytes'))}{during} GiB", unit=GIB)
    if section == "parameters":
        return Column(key, f"{_words(name)} M", unit=1e6, shown=name in ("trainable", "total"), help="parameters")
    if name in TIMINGS:
        title, better = TIMINGS[name]
        return Column(key, title, better, digits=1, shown=True)
    return Column(key, f"{_words(name)}{during if section != 'timing' else ''}", digits=2)


def _place(column: Column) -> tuple:
    section, _, name = column.key.rpartition(".")
    orders = {
        "test": SHOWN,
        "val": SHOWN,
        "training": tuple(MEMORY_MEASURES),
        "parameters": ("trainable", "total"),
        "timing": tuple(TIMINGS),
    }
    order = orders.get(section, ())
    rank = order.index(name) if name in order else len(order)
    return (not column.shown, SECTIONS.index(section) if section in SECTIONS else 1.5, rank)


def _words(name: str) -> str:
    return name.replace("_", " ")
