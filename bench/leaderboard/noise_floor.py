"""Which differences of memory between rows are larger than those between repeats of one row."""

from itertools import pairwise

from bench.leaderboard.leaderboard import Row, Table, measured_memory
from bench.records.memory import measure_of


def memory_noise_floor(table: Table) -> float | None:
    """Returns the difference in bytes below which the training memory of two rows is not resolved.

    It is two standard errors of a difference, with the deviation pooled over all rows that have repeats, and at least
    the smallest step of the measure. ``None`` if no row has repeats.
    """
    cells = [measured_memory(row, table) for row in table.rows]
    cells = [cell for cell in cells if cell is not None and cell.deviation is not None]
    if not cells:
        return None
    freedom = sum(cell.count - 1 for cell in cells)
    pooled = sum(cell.deviation**2 * (cell.count - 1) for cell in cells) / freedom
    fewest = min(cell.count for cell in cells)
    return max(2 * (2 * pooled / fewest) ** 0.5, measure_of(table.memory_measure).step_bytes)


def unresolved(table: Table, floor: float) -> list[tuple[Row, Row]]:
    """Returns pairs of rows that follow each other in the order of memory and differ by less than ``floor`` bytes."""
    cells = [(measured_memory(row, table), row) for row in table.rows]
    known = sorted(((cell.mean, row) for cell, row in cells if cell is not None), key=lambda pair: pair[0])
    pairs = []
    for (low, first), (high, second) in pairwise(known):
        if high - low < floor:
            pairs.append((first, second))
    return pairs
