"""What the page's table has columns for: every quantity that any row has, its name and the unit it is shown in."""

from dataclasses import dataclass
from typing import Any

from bench.leaderboard.columns import ARROWS, PREDICTED, SHOWN
from bench.leaderboard.leaderboard import GIB, MEMORY_MEASURES, Leaderboard
from bench.scoring.metrics import METRICS

SECTIONS = ("test", "val", "predicted", "training", "evaluation", "parameters", "timing")
TIMINGS = {
    "train_images_per_second": ("train img/s", "higher", 1, 1),
    "inference_images_per_second": ("infer img/s", "higher", 1, 1),
    "latency_seconds": ("latency ms", "lower", 1e-3, 1),
}
"""Title, which way is better, unit and digits."""


@dataclass(frozen=True)
class Quantity:
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


def quantities_of(board: Leaderboard) -> list[Quantity]:
    """Those of the Markdown table first and in its order, then all others."""
    present = dict.fromkeys(key for table in board.tables for row in table.rows for key in row.cells)
    mains = {table.main_metric for table in board.tables}
    found = [_quantity(key, mains) for key in present]
    return sorted(found, key=_place)


def _quantity(key: str, mains: set[str]) -> Quantity:
    section, _, name = key.rpartition(".")
    if name in METRICS:
        metric = METRICS[name]
        where, in_table = {"test": ("", name in SHOWN), "val": ("val ", name in mains)}.get(
            section, (f"{section.removeprefix('test[').removesuffix(']')} ", False)
        )
        return Quantity(key, where + metric.label, metric.better, shown=in_table, help=metric.source)
    during = "" if section == "training" else f" in {section}"
    if name in MEMORY_MEASURES:
        in_table = section == "training"
        return Quantity(key, f"{MEMORY_MEASURES[name]}{during} GiB", "lower", GIB, 3, in_table, "peak" + during)
    if key in PREDICTED:
        return Quantity(key, PREDICTED[key], "lower", GIB, 3, True, "predicted peak in training on a GPU")
    if name.endswith("_bytes"):
        return Quantity(key, f"{_words(name.removesuffix('_bytes'))}{during} GiB", unit=GIB)
    if section == "parameters":
        return Quantity(key, f"{_words(name)} M", unit=1e6, shown=name in ("trainable", "total"), help="parameters")
    if name in TIMINGS:
        return Quantity(key, *TIMINGS[name], shown=True)
    return Quantity(key, f"{_words(name)}{during if section != 'timing' else ''}", digits=2)


def _place(quantity: Quantity) -> tuple:
    section, _, name = quantity.key.rpartition(".")
    orders = {
        "test": SHOWN,
        "val": SHOWN,
        "predicted": tuple(key.removeprefix("predicted.") for key in PREDICTED),
        "training": tuple(MEMORY_MEASURES),
        "parameters": ("trainable", "total"),
        "timing": tuple(TIMINGS),
    }
    order = orders.get(section, ())
    rank = order.index(name) if name in order else len(order)
    return (not quantity.shown, SECTIONS.index(section) if section in SECTIONS else 1.5, rank)


def _words(name: str) -> str:
    return name.replace("_", " ")
