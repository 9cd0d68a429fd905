"""The Markdown around a leaderboard's tables: the answer, resolved differences, external methods, published numbers."""

import math

from bench.config.search import METHODS
from bench.leaderboard.columns import SHOWN
from bench.leaderboard.leaderboard import Leaderboard, Table
from bench.leaderboard.published_rows import Beside
from bench.leaderboard.statistics import Comparison
from bench.scoring.metrics import METRICS
from bench.system.sanitize import harmless

PAIRS_SHOWN = 10  # all pairs are in comparisons.csv


def escape(text: str) -> str:
    """Escapes a text so that Markdown shows it unchanged, also in the cell of a table."""
    text = harmless(" ".join(text.splitlines()))
    for character in "\\`*_{}[]<>|#&~":
        text = text.replace(character, "\\" + character)
    return text


def differences(table: Table) -> list[str]:
    """Returns the answer to the planned question, and the pairs of rows with the smallest p, if any is resolved."""
    if table.answer is None:
        return []
    lines = [f"**Answer**: {escape(table.answer.text)}", ""]
    metric = table.main_metric
    compared = table.tested(metric)
    resolved = [c for c in compared if c.resolved]
    if not resolved:
        return lines
    label = METRICS[metric].label
    names = [escape(", ".join(row.labels)) for row in table.rows]
    lines += [f"Of all pairs of rows, {len(resolved)} of {len(compared)} are resolved on {label}:", ""]
    lines += [f"| pair | difference in {label} | 95 % interval | p (adjusted) | |", "| :-- | --: | --: | --: | :-- |"]
    for c in sorted(compared, key=lambda c: c.p_adjusted)[:PAIRS_SHOWN]:
        better = c.first if (c.difference > 0) == (METRICS[metric].better == "higher") else c.second
        verdict = f"{names[better]} is better" if c.resolved else bounds(c, table.answer.ask.margin)
        interval = f"{c.low:+.3f} to {c.high:+.3f}"
        pair = f"{names[c.first]} − {names[c.second]}"
        lines.append(f"| {pair} | {c.difference:+.3f} | {interval} | {c.p_adjusted:.2g} | {verdict} |")
    return [*lines, ""]


def bounds(comparison: Comparison, margin: float) -> str:
    """Returns what the interval of an unresolved difference says: an equivalence, or how large it is at most."""
    if comparison.within(margin):
        return f"equivalent, within {margin:g}"
    largest = max(-comparison.low, comparison.high)
    return f"not resolved, at most {math.ceil(1000 * largest) / 1000:.3f}"


def how_chosen(board: Leaderboard) -> list[str]:
    """Returns sentences about rows, seeds and trials that a search or a budget has chosen."""
    search, lines = board.search, []
    rows = [row for table in board.tables for row in table.rows]
    method = METHODS.module(search.name)
    if not method.EXHAUSTIVE:
        lines.append(
            f"Search: {len(rows)} configurations, chosen {method.CHOSEN}, seed {search.seed}; others were not tried."
        )
    if search.early_stopping:
        stopped = sum("stopped early" in row.statuses for row in rows)
        lines.append(
            f"Early stopping: {stopped} of {len(rows)} configurations were stopped by their validation loss at the "
            "first seed. They were not scored on the test split and are compared with nothing."
        )
    if search.first_seeds:
        looks = search.looks(len(board.seeds))
        lines.append(
            f"**The number of seeds depended on the results**: {search.first_seeds} for every row, then one more, up "
            f"to {len(board.seeds)}, for those that were not told from the best. p values are multiplied by {looks}, "
            "the number of times that they could end this; the intervals of the means are not corrected."
        )
    budgets = {"trials": search.trials, "hours": search.hours}
    if limits := " and ".join(f"{limit:g} {unit}" for unit, limit in budgets.items() if limit is not None):
        statuses = [status for row in rows for status in row.statuses]
        waiting = f"**{statuses.count('pending')} of {len(statuses)} trials are pending.**"
        lines.append(f"Budget: {limits}. {waiting if 'pending' in statuses else 'No trial is pending.'}")
    return lines


def external(beside: Beside) -> list[str]:
    """Returns the table of external methods, which have no memory, speed or seeds."""
    rows = beside.external
    if not rows:
        return []
    metrics = [m for m in SHOWN if any(m in row.record.scores for row in rows)]
    titles = ["external method", *(METRICS[m].label for m in metrics), "images", "obtained from", ""]
    lines = ["## Scored from prediction files, not trained here", "", f"| {' | '.join(titles)} |"]
    lines.append(f"| :-- | {'--: | ' * len(metrics)}--: | :-- | :-- |")
    for row in rows:
        record = row.record
        numbers = [f"{record.scores[m]:.3f}" if m in record.scores else "–" for m in metrics]
        differs = f"not comparable: {row.differs}" if row.differs else ""
        lines.append(
            f"| {' | '.join([escape(record.name), *numbers, str(record.images), escape(row.origin), differs])} |"
        )
    return [*lines, ""]


def published(beside: Beside) -> list[str]:
    """Returns the table of published numbers and their distance to the row that builds the same model."""
    rows = beside.published
    if not rows:
        return []
    lines = [f"## Published on {escape(beside.test_set)}, not measured here", ""]
    lines += [
        "| method | metric | published | reproduced here | gap | source |",
        "| :-- | :-- | --: | --: | --: | :-- |",
    ]
    for row in rows:
        for metric, value in row.result.scores.items():
            gap = row.gaps.get(metric)
            again = ["–", "–"] if gap is None else [f"{value + gap:.3f} ({', '.join(row.point)})", f"{gap:+.3f}"]
            texts = [row.result.method, METRICS[metric].label, f"{value:.3f}", *again, row.origin]
            lines.append(f"| {' | '.join(map(escape, texts))} |")
    return [*lines, ""]
