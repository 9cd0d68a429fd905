"""The answer of a sweep on its page: the planned question, memory, and trials that are not ok."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.config.row_names import row_name
from bench.leaderboard.leaderboard import Table, measured_memory
from bench.leaderboard.noise_floor import SHOWN_BYTES, floor_in_words, memory_noise_floor, unresolved
from bench.leaderboard.ranking import best_row
from bench.records.memory import GIB, measure_of
from bench.scoring.metrics import METRICS

NAMED = 6  # most rows that a sentence names; the others are counted


def verdict(table: Table, axes: Sequence[str]) -> tuple[str, str]:
    """Returns the verdict on the planned question in a few words, and the answer."""
    metric, label = table.main_metric, METRICS[table.main_metric].label
    scored = [row for row in table.rows if f"test.{metric}" in row.cells]
    if not scored:
        return "No answer yet.", "No row has a score."
    if len(scored) == 1:
        value = scored[0].cells[f"test.{metric}"].mean
        only = f"Only {row_name(scored[0].labels, axes)} has a score: {label} {value:.3f}."
        return "One row.", f"{only} There is nothing to compare it with."
    found = table.answer
    if found is None:
        return "Not tested.", "The scores of images are missing, so no difference is tested."
    if found.error is None:
        return "Not tested.", found.text
    if found.trend is not None:
        resolved, close = [found.trend.resolved], [found.ends_equivalent]
    else:
        asked = found.comparisons
        if found.ask.name == "best":
            best = best_row(table, metric)
            asked = [c for c in asked if best in (c.first, c.second)]
        tested = [c for c in asked if c.p_adjusted is not None]
        resolved, close = [c.resolved for c in tested], [c.within(found.ask.margin) for c in tested]
    if any(resolved):
        words = "Resolved." if all(resolved) else "Partly resolved."
    elif any(close) or found.groups:
        words = "Equivalent." if all(close) else "Partly equivalent."
    else:
        words = "Not resolved."
    return words, found.claim


def statistics(table: Table) -> list[str]:
    """Returns the assumption of the answer, and the count of resolved pairs; nothing if nothing was tested."""
    compared = table.tested(table.main_metric)
    if table.answer is None or not compared:
        return []
    count = sum(c.resolved for c in compared)
    pairs = f"Of all pairs of rows, {count} of {len(compared)} are resolved, corrected for all pairs at the 5 % level."
    return [f"{table.answer.sentences[-1]} {pairs}"]


def memory(table: Table, axes: Sequence[str]) -> list[str]:
    """Returns a sentence about the least memory, the front, and the differences of memory that repeats resolve."""
    rows = [row for row in table.rows if measured_memory(row, table)]
    if not rows:
        return ["No measure of memory is known of every row that was trained, so there is no Pareto front."]
    measure = measure_of(table.memory_measure).short
    least = min(rows, key=lambda row: measured_memory(row, table).mean)
    front = [i for i, row in enumerate(table.rows) if row.on_front]
    text = (
        f"Least memory in training: {row_name(least.labels, axes)}, {measured_memory(least, table).mean / GIB:.3f} GiB "
    )
    label = METRICS[table.main_metric].label
    text += f"({measure}). On the Pareto front of {label} and memory: {_count(front, table, axes)}."
    floor = memory_noise_floor(table)
    if floor is None:
        return [f"{text} Without repeats it is unknown which differences of memory are noise."]
    near = unresolved(table, floor)
    if floor < SHOWN_BYTES and not near:
        return [text]  # the repeats agree in all digits that are shown
    pairs = (
        "; ".join(f"{row_name(a.labels, axes)} and {row_name(b.labels, axes)}" for a, b in near[:NAMED]) or "none here"
    )
    more = f"; and {len(near) - NAMED} more pairs" if len(near) > NAMED else ""
    return [f"{text} {floor_in_words(floor, pairs + more)}"]


def states(table: Table) -> list[str]:
    """Returns a sentence that counts the trials that are not ok; none if all are ok."""
    counts = Counter(status for row in table.rows for status in row.statuses)
    others = [f"{count} {status}" for status, count in sorted(counts.items()) if status != "ok"]
    return [f"Of {counts.total()} trials {counts['ok']} are ok; {', '.join(others)}."] if others else []


def _count(numbers: Iterable[int], table: Table, axes: Sequence[str]) -> str:
    names = [row_name(table.rows[i].labels, axes) for i in sorted(numbers)]
    more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ("; ".join(names[:NAMED]) or "no row") + more
