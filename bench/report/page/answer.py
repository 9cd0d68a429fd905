"""The answer of a sweep in sentences: which differences are resolved, what they cost in memory, what is unknown."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.leaderboard.leaderboard import Table, measured_memory
from bench.leaderboard.noise_floor import memory_noise_floor, unresolved
from bench.leaderboard.ranking import best_row, not_distinguishable
from bench.records.memory import GIB, measure_of
from bench.report.sections import resolvable
from bench.scoring.metrics import METRICS

NAMED = 6  # most rows that a sentence names; the others are counted


def verdict(table: Table, axes: Sequence[str]) -> tuple[str, str]:
    """Returns the verdict on the main metric in a few words, and its explanation."""
    metric, label = table.main_metric, METRICS[table.main_metric].label
    scored = {i: row.cells[f"test.{metric}"] for i, row in enumerate(table.rows) if f"test.{metric}" in row.cells}
    if not scored:
        return "No answer yet.", "No row has a score."
    best = best_row(table, metric)
    width = scored[best].half_width
    value = f"{label} {scored[best].mean:.3f}" + (f" ± {width:.3f}" if width is not None else "")
    leader = f"The best mean is that of {name(table.rows[best].labels, axes)}, {value}"
    if len(scored) == 1:
        only = f"Only {name(table.rows[best].labels, axes)} has a score: {value}."
        return "One row.", f"{only} There is nothing to compare it with."
    compared = table.tested(metric)
    if not compared:
        least = min(cell.count for cell in scored.values())
        why = "one seed says nothing about seed noise" if least < 2 else "per-image scores are not there"
        return "Not tested.", f"{leader}, but {why}, so no difference is tested."
    least = min(c.seeds for c in compared)
    over = f"{least} seeds and {table.images} test images"
    resolved = [c for c in compared if c.resolved]
    if not resolved:
        return "Not resolved.", f"{leader}, but {over} do not decide between any two of the {len(scored)} rows."
    tied = not_distinguishable(table, metric)
    tested = {c.first + c.second - best for c in compared if best in (c.first, c.second)}
    beaten = tested - tied
    words = "Resolved." if tested and not tied else "Partly resolved."
    text = f"{leader}. On {over} that row is better than {_count(beaten, table, axes) if beaten else 'no other row'}"
    text += f" and not distinguishable from {_count(tied, table, axes)}." if tied else "."
    return words, f"{text} {len(resolved)} of {len(compared)} pairs of rows are resolved."


def statistics(table: Table) -> list[str]:
    """Returns a sentence about the smallest difference that could be resolved; none if nothing was tested."""
    if not table.tested(table.main_metric):
        return []
    method = "Paired differences, bootstrap over seeds and images, Holm's correction over all pairs, 5 % level."
    return [f"{resolvable(table, 1)} {method}"]


def memory(table: Table, axes: Sequence[str]) -> list[str]:
    """Returns a sentence about the least memory, the front, and the differences of memory that repeats resolve."""
    rows = [row for row in table.rows if measured_memory(row, table)]
    if not rows:
        return ["No measure of memory is known of every row that was trained, so there is no Pareto front."]
    measure = measure_of(table.memory_measure).short
    least = min(rows, key=lambda row: measured_memory(row, table).mean)
    front = [i for i, row in enumerate(table.rows) if row.on_front]
    text = f"Least memory in training: {name(least.labels, axes)}, {measured_memory(least, table).mean / GIB:.3f} GiB "
    label = METRICS[table.main_metric].label
    text += f"({measure}). On the Pareto front of {label} and memory: {_count(front, table, axes)}."
    floor = memory_noise_floor(table)
    if floor is None:
        return [f"{text} Without repeats it is unknown which differences of memory are noise."]
    near = unresolved(table, floor)
    pairs = "; ".join(f"{name(a.labels, axes)} and {name(b.labels, axes)}" for a, b in near[:NAMED]) or "none here"
    more = f"; and {len(near) - NAMED} more pairs" if len(near) > NAMED else ""
    return [f"{text} Neighbours closer than {floor / 2**20:.1f} MiB are not resolved by the repeats: {pairs}{more}."]


def states(table: Table) -> list[str]:
    """Returns a sentence that counts the trials that are not ok; none if all are ok."""
    counts = Counter(status for row in table.rows for status in row.statuses)
    others = [f"{count} {status}" for status, count in sorted(counts.items()) if status != "ok"]
    return [f"Of {counts.total()} trials {counts['ok']} are ok; {', '.join(others)}."] if others else []


def name(labels: Sequence[str], axes: Sequence[str]) -> str:
    """Returns the name of a row: its labels, each after the short name of its axis, as in "rank 64, width 16"."""
    parts = []
    for axis, label in zip(axes, labels):
        parts.append(label if axis == "variant" else f"{_short(axis)} {label}")
    return ", ".join(parts)


def _short(axis: str) -> str:
    """Returns the last part of a dotted path; the last but one for a path that ends in ``name``."""
    *parents, last = axis.split(".")
    return parents[-1] if last == "name" and parents else last


def _count(numbers: Iterable[int], table: Table, axes: Sequence[str]) -> str:
    names = [name(table.rows[i].labels, axes) for i in sorted(numbers)]
    more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ("; ".join(names[:NAMED]) or "no row") + more
