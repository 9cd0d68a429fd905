"""``Leaderboard`` -> the terminal (rich): one table per environment, rows grouped by their first axis."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from bench.leaderboard.against import Verdict, Verdicts
from bench.leaderboard.columns import ARROWS, Column, columns
from bench.leaderboard.leaderboard import Leaderboard, Table
from bench.leaderboard.ranking import Mark, marks
from bench.report.legend import SIGNS, legend, sentences
from bench.report.sections import how_chosen
from bench.scoring.metrics import METRICS
from bench.system.sanitize import harmless

HEADING_WIDTH = 14
LONG_NAME = 40  # characters, beyond which a name is shortened; the files have it whole
BEST, SECOND = "*", "²"


class ShownColumn(NamedTuple):
    """A column as the terminal shows it."""

    column: Column
    heading: str  # in several lines
    cells: list[Text]

    @property
    def width(self) -> int:
        """Number of characters that the column needs."""
        return max(map(cell_len, (*self.heading.splitlines(), *(cell.plain for cell in self.cells))))


def show(board: Leaderboard, console: Console) -> None:
    """Prints the leaderboard. Columns for which the console is too narrow are left out and named below."""
    console.print(Group(*_lines(board, console.width)), soft_wrap=True)


def show_verdicts(verdicts: Verdicts, console: Console) -> None:
    """Prints the findings of a comparison of two result sets; equal quantities are only counted."""
    for warning in verdicts.warnings:
        console.print(Text(f"WARNING: {warning}", style="bold"))
    shown = [finding for finding in verdicts.findings if finding.verdict != "equal"]
    if shown:
        made = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title in ("row", "quantity", "old", "new", "verdict", "p (Holm)", "95 % interval and basis"):
            made.add_column(title, justify="right" if title in ("old", "new", "p (Holm)") else "left")
        for f in shown:
            style = {"worse": "bold red", "better": "green"}.get(f.verdict, "")
            arrow = ARROWS.get(f.better, "")
            p = "" if f.p_holm is None else f"{f.p_holm:.2g}"
            texts = (_short(f.row), f"{f.quantity} {arrow}".strip(), f.old, f.new, f.verdict, p, f.note)
            made.add_row(*(Text(text, style if text == f.verdict else "") for text in texts))
        console.print(made, soft_wrap=True)
    all_verdicts = [finding.verdict for finding in verdicts.findings]
    counts = [f"{all_verdicts.count(verdict)} {verdict}" for verdict in get_args(Verdict) if verdict in all_verdicts]
    console.print(Text(", ".join(counts) or "nothing to compare"))


def _lines(board: Leaderboard, width: int) -> Iterator[RenderableType]:
    yield Text(f"{board.name} ({board.profile}): {board.question}")
    yield Text(f"{board.settings}")
    if board.warning:
        yield Text(board.warning, style="bold")
    for line in (*how_chosen(board), *board.remarks):
        yield Text(line.replace("**", ""))
    for number, table in enumerate(board.tables, start=1):
        if heading := board.environment_heading(number):
            yield Text(heading, style="bold")
        shown = [ShownColumn(column, _heading(column), _cells(column, table)) for column in columns(board, table)]
        dropped = _drop_columns(shown, width)
        yield _table(shown, table)
        if table.answer is not None:
            yield Text(f"Answer: {table.answer.text}", style="bold")
        for row in table.rows:
            for line in (*row.tuned.errors, *row.tuned.notes) if row.tuned else ():
                yield Text(harmless(f"† {', '.join(row.labels)}: {line}"))
        yield Text("; ".join(f"{name} {value}" for name, value in table.environment.items()), style="dim")
        if dropped:
            yield Text(f"columns without room here: {', '.join(dropped)}", style="dim")
    yield from _published(board)
    for sentence in sentences(legend(board), BEST, SECOND):
        yield Text(sentence)


def _drop_columns(shown: list[ShownColumn], width: int) -> list[str]:
    """Removes columns from ``shown`` until the table is at most ``width`` wide; returns the titles of the removed."""
    dropped = []
    while sum(one.width for one in shown) + 3 * (len(shown) - 1) > width:
        first = max(shown, key=lambda one: one.column.dropped)
        if not first.column.dropped:
            break
        shown.remove(first)
        dropped.append(first.column.title)
    return dropped


def _table(shown: Sequence[ShownColumn], table: Table) -> RichTable:
    made = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for one in shown:
        if one.column.group == "axis":  # a narrow table shortens names, never numbers
            made.add_column(Text(one.heading), justify="left", no_wrap=True, overflow="ellipsis")
        else:
            made.add_column(Text(one.heading), justify="right", no_wrap=True, min_width=one.width)
    several_axes = sum(one.column.group == "axis" for one in shown) > 1
    grouped = several_axes and 2 * len({row.labels[0] for row in table.rows}) <= len(table.rows)
    before = None
    for number, row in enumerate(table.rows):
        line = [one.cells[number] for one in shown]
        if several_axes and row.labels[0] == before:
            line[0] = Text("")
        elif grouped and number:
            made.add_section()
        before = row.labels[0]
        made.add_row(*line)
    return made


def _cells(column: Column, table: Table) -> list[Text]:
    texts = [column.text(row) for row in table.rows]
    if column.group == "axis":
        return [Text(_short(text)) for text in texts]
    if column.metric is None:
        return [Text(harmless(text)) for text in texts]
    return [_marked(text, found) for text, found in zip(texts, marks(table, column.metric))]


def _marked(text: str, found: set[Mark]) -> Text:
    made = Text(text)
    if "best" in found:
        made = Text(text, "bold green")
        made.append(BEST)
    elif "second" in found:
        made = Text(text, "underline")
        made.append(SECOND)
    if "tied" in found:
        made.append(SIGNS["tied"])
    return made


def _short(name: str) -> str:
    printable = harmless(name)
    return printable if len(printable) <= LONG_NAME else printable[: LONG_NAME - 1] + "…"


def _heading(column: Column) -> str:
    """Returns the heading in several lines: a dotted path is broken after its dots, other titles between words."""
    if column.group == "axis":
        return column.title.removeprefix("model.").replace(".", ".\n")
    return "\n".join(textwrap.wrap(column.heading, HEADING_WIDTH, break_long_words=False))


def _published(board: Leaderboard) -> Iterator[RenderableType]:
    rows = board.beside.published
    if not rows:
        return
    made = RichTable("method", "metric", "published", "here", "gap", show_edge=False, pad_edge=False)
    made.title = f"published on {board.beside.test_set}, not measured here"
    for row in rows:
        for metric, value in row.result.scores.items():
            gap = row.gaps.get(metric)
            again = ("–", "–") if gap is None else (f"{value + gap:.3f}", f"{gap:+.3f}")
            made.add_row(Text(row.result.method), METRICS[metric].label, f"{value:.3f}", *again)
    yield made
