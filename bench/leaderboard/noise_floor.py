"""Which differences between rows are larger than those between repeats of one row, and axes that show no others."""

from itertools import pairwise
from statistics import median

from bench.leaderboard.leaderboard import Row, Table, measured_memory
from bench.records.memory import measure_of

UNTESTED_SPAN = 0.01
"""Shortest axis of scores."""
STEPS = 10
"""Shortest axis of memory, in steps or in noise of its measure."""
SHOWN_BYTES = 2**20 / 20
"""Smallest difference of memory that is not 0.0 MiB in a text."""
LEAST_SHARE = 0.02
"""Shortest axis of memory as a share of the largest mean."""


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


def floor_in_words(floor: float, pairs: str) -> str:
    """Returns a sentence about the pairs of rows, given as a text, that ``unresolved`` found."""
    if floor <= 1:
        return f"Memory: equal to the byte: {pairs}."
    size = f"{floor / 2**20:.1f} MiB" if floor >= SHOWN_BYTES else f"{floor:.0f} bytes"
    return f"Memory: neighbours in the order of memory closer than {size} are not resolved by the repeats: {pairs}."


def score_span(table: Table) -> float:
    """Returns the shortest axis of the main metric: the smallest difference that the tests of pairs resolve.

    It is the median over all tested pairs, and at least ten units of the last digit in tables.
    """
    found = table.tested(table.main_metric)
    return max(median((c.high - c.low) / 2 for c in found), UNTESTED_SPAN) if found else UNTESTED_SPAN


def memory_span(table: Table) -> float:
    """Returns the shortest axis of memory in bytes, by the steps and the noise of the measure and of the repeats.

    It is at least a fiftieth of the largest mean, also for an exact measure.
    """
    if table.memory_measure is None:
        return 0.0
    measure = measure_of(table.memory_measure)
    means = [cell.mean for row in table.rows if (cell := measured_memory(row, table)) is not None]
    least = LEAST_SHARE * max(means, default=0)
    return max(STEPS * max(measure.step_bytes, measure.noise_bytes), memory_noise_floor(table) or 0, least)


def unresolved(table: Table, floor: float) -> list[tuple[Row, Row]]:
    """Returns pairs of rows that follow each other in the order of memory and differ by less than ``floor`` bytes."""
    cells = [(measured_memory(row, table), row) for row in table.rows]
    known = sorted(((cell.mean, row) for cell, row in cells if cell is not None), key=lambda pair: pair[0])
    pairs = []
    for (low, first), (high, second) in pairwise(known):
        if high - low < floor:
            pairs.append((first, second))
    return pairs
