"""Which graphics cards a row's training fits: by measured device memory where there is some, else by the prediction."""

from dataclasses import dataclass

from bench.leaderboard.leaderboard import Row
from bench.memory.cards import fits

CARDS = (8, 12, 16, 24)
"""Sizes of cards in GB that a laboratory or a laptop is likely to have."""


@dataclass(frozen=True)
class Fit:
    """The smallest of ``CARDS`` that is large enough (``None`` if none is), and what says so."""

    card: int | None
    by: str  # "measured" or "predicted"

    def __str__(self) -> str:
        return (f"{self.card} GB" if self.card else f"over {CARDS[-1]} GB") + " (pred.)" * (self.by == "predicted")


def fit(row: Row) -> Fit | None:
    """``None`` where device memory was neither measured nor predicted: resident memory of a CPU says nothing of it."""
    for by, quantity in (("measured", "training.nvml_device_bytes"), ("predicted", "predicted.device_bytes")):
        if cell := row.cells.get(quantity):
            return Fit(next((card for card in CARDS if fits(cell.mean, card)), None), by)
    return None
