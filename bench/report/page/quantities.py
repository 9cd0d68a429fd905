"""The quantities that the page's table has columns for: their titles, units, and which are shown at first."""

from dataclasses import dataclass
from typing import Any

from bench.leaderboard.columns import ARROWS, MEMORY_COLUMNS
from bench.leaderboard.leaderboard import Leaderboard
from bench.records.memory import GIB, PEAKS, measure_of
from bench.scoring.metrics import METRICS, SHOWN

SECTIONS = ("test", "val", "train", "predicted", "training", "evaluation", "parameters", "timing", "energy")
TIMINGS = {
    "train_images_per_second": ("train img/s", "higher", 1, 1),
    "inference_images_per_second": ("infer img/s", "higher", 1, 1),
    "latency_seconds": ("latency ms", "lower", 1e-3, 1),
    "train_busy_share": ("train busy", "higher", 1, 2),
    "inference_busy_share": ("infer busy", "higher", 1, 2),
    "compile_seconds": ("compile s", "lower", 1, 1),
}
"""Titles of timings, which end is better, their units in seconds, and decimal digits."""
ENERGIES = {
    "train_joules_per_image": ("J/train img", "lower", 1, 2),
    "inference_joules_per_image": ("J/infer img", "lower", 1, 2),
}
"""Titles of energies, as ``TIMINGS``."""


@dataclass(frozen=True)
class Quantity:
    """A column: a quantity of ``Row.cells``. Its numbers are divided by ``unit`` before they are shown."""

    key: str
    title: str
    better: str | None = None  # "higher" or "lower"; None if neither is better
    unit: float = 1
    digits: int = 3
    shown: bool = False  # whether the page shows it at first; readers can switch on the others
    help: str = ""

    def described(self) -> dict[str, Any]:
        """Returns the facts that the page's script needs."""
        arrow = f" {ARROWS[self.better]}" if self.better else ""
        facts = {"key": self.key, "title": self.title + arrow, "unit": self.unit, "digits": self.digits}
        return {**facts, "better": self.better, "shown": self.shown, "help": self.help}


def quantities_of(board: Leaderboard) -> list[Quantity]:
    """Returns the quantities of all rows: those of the Markdown table first and in its order, then all others."""
    present = dict.fromkeys(key for table in board.tables for row in table.rows for key in row.cells)
    mains = {table.main_metric for table in board.tables}
    found = [_quantity(key, mains) for key in present]
    return sorted(found, key=_place)


def _quantity(key: str, mains: set[str]) -> Quantity:
    section, _, name = key.rpartition(".")
    if name in METRICS:
        return _score(key, section, name, mains)
    during = "" if section == "training" else f" in {section}"
    if section == "predicted" and key in MEMORY_COLUMNS:
        return Quantity(key, MEMORY_COLUMNS[key], "lower", GIB, 3, True, "predicted peak in training")
    if name in PEAKS:
        title = f"{measure_of(name).short}{during} GiB"
        return Quantity(key, title, "lower", GIB, 3, section == "training", "peak" + during)
    if name.endswith("_bytes"):
        return Quantity(key, f"{_words(name.removesuffix('_bytes'))}{during} GiB", unit=GIB)
    if section == "parameters":
        return Quantity(key, f"{_words(name)} M", unit=1e6, shown=name in ("trainable", "total"), help="parameters")
    if name in TIMINGS:
        return Quantity(key, *TIMINGS[name], shown=True)
    if name in ENERGIES:
        return Quantity(key, *ENERGIES[name], shown=True, help="energy of the card, without the processor")
    return Quantity(key, _words(name) if section in ("timing", "energy") else f"{_words(name)}{during}", digits=2)


def _score(key: str, section: str, name: str, mains: set[str]) -> Quantity:
    """Returns the column of a metric: on the test split, the validation split, or one of several test sets."""
    metric = METRICS[name]
    if section == "test":
        split, shown = "", name in SHOWN
    elif section == "val":
        split, shown = "val ", name in mains
    else:
        split, shown = f"{section.removeprefix('test[').removesuffix(']')} ", False
    return Quantity(key, split + metric.label, metric.better, shown=shown, help=metric.source)


def _place(quantity: Quantity) -> tuple[bool, float, int]:
    """Returns the key by which columns are sorted: shown ones first, then by section, then as in other tables."""
    section, _, name = quantity.key.rpartition(".")
    orders = {
        "test": SHOWN,
        "val": SHOWN,
        "predicted": ("allocated_bytes", "device_bytes", "tensor_bytes"),
        "training": PEAKS,
        "parameters": ("trainable", "total"),
        "timing": tuple(TIMINGS),
        "energy": tuple(ENERGIES),
    }
    order = orders.get(section, ())
    place = order.index(name) if name in order else len(order)
    return (not quantity.shown, SECTIONS.index(section) if section in SECTIONS else 1.5, place)


def _words(name: str) -> str:
    return name.replace("_", " ")
