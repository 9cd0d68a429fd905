"""``Leaderboard`` -> the terminal (rich): one table per environment, rows grouped by their first axis."""

import textwrap
from collections.abc import Iterator
from typing import get_args

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from bench.leaderboard.against import Verdict, Verdicts
from bench.leaderboard.columns import ARROWS, Column, columns, marks
from bench.leaderboard.leaderboard import Leaderboard, Table
from bench.report.sections import how_chosen
from bench.scoring.metrics import METRICS
from bench.system.sanitize import harmless

HEADING_WIDTH = 14
LONG_NAME = 40  # characters, beyond which a name is cut; the files have it whole
BEST, SECOND, TIED = "*", "²", "≈"


def show(board: Leaderboard, console: Console) -> None:
    """Prints the leaderboard. Columns for which the console is too narrow are left out and named below."""
    console.print(Group(*_lines(board, console.width)), soft_wrap=True)


def show_verdicts(verdicts: Verdicts, console: Console) -> None:
    """Prints what changed between two result sets; what did not is only counted."""
    for warning in verdicts.warnings:
        console.print(Text(f"WARNING: {warning}", style="bold"))
    shown = [finding for finding in verdicts.findings if finding.verdict != "equal"]
    if shown:
        made = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title in ("row", "quantity", "old", "new", "verdict", "p (Holm)", "by"):
            made.add_column(title, justify="right" if title in ("old", "new", "p (Holm)") else "left")
        for f in shown:
            style = {"worse": "bold red", "better": "green"}.get(f.verdict, "")
            arrow = ARROWS.get(f.better, "")
            p = "" if f.p_holm is None else f"{f.p_holm:.2g}"
            texts = (_short(f.row), f"{f.quantity} {arrow}".strip(), f.old, f.new, f.verdict, p, f.note)
            made.add_row(*(Text(text, style if text == f.verdict else "") for text in texts))
        console.print(made, soft_wrap=True)
    counts = {v: sum(f.verdict == v for f in verdicts.findings) for v in get_args(Verdict)}
    console.print(
        Text(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "nothing to compare")
    )


def _lines(board: Leaderboard, width: int) -> Iterator[RenderableType]:
    yield Text(f"{board.name} ({board.profile}): {board.question}")
    yield Text(f"{board.settings}")
    if board.warning:
        yield Text(board.warning, style="bold")
    yield from (Text(line.replace("**", "")) for line in (*how_chosen(board), *board.remarks) if line)
    for number, table in enumerate(board.tables, start=1):
        if heading := board.environment_heading(number):
            yield Text(heading, style="bold")
        found = columns(board, table)
        cells = {id(column): _cells(column, table) for column in found}
        left_out = []
        while _width(found, cells) > width and (least := max(found, key=lambda column: column.rank)).rank:
            found.remove(least)
            left_out.append(least.title)
        yield _table(found, cells, table)
        yield Text("; ".join(f"{name} {value}" for name, value in table.environment.items()), style="dim")
        if left_out:
            yield Text(f"no room for: {', '.join(left_out)}", style="dim")
    yield from _published(board)
    seeds = len(board.seeds)
    yield Text(f"{BEST} best mean, {SECOND} second, {TIED} not distinguishable from the best, ● on the Pareto front")
    yield Text(f"± half of the 95 % interval over {seeds} seeds" if seeds > 1 else "one seed: its noise is unknown")


def _table(found: list[Column], cells: dict[int, list[Text]], table: Table) -> RichTable:
    made = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    axes = [column for column in found if column.group == "axis"]
    for column in found:
        if column.group == "axis":  # names are cut where there is no room, numbers never
            made.add_column(Text(_heading(column)), justify="left", no_wrap=True, overflow="ellipsis")
        else:
            least = _column_width(column, cells)
            made.add_column(Text(_heading(column)), justify="right", no_wrap=True, min_width=least)
    grouped = len(axes) > 1 and 2 * len({row.labels[0] for row in table.rows}) <= len(table.rows)
    before = None
    for number, row in enumerate(table.rows):
        line = [cells[id(column)][number] for column in found]
        if len(axes) > 1 and row.labels[0] == before:
            line[0] = Text("")
        elif grouped and number:
            made.add_section()
        before = row.labels[0]
        made.add_row(*line)
    return made


def _cells(column: Column, table: Table) -> list[Text]:
    if not column.metric:
        return [Text(_short(column.text(row)) if column.group == "axis" else column.text(row)) for row in table.rows]
    found = marks(table, column.metric)
    return [_marked(column.text(row), found[number]) for number, row in enumerate(table.rows)]


def _marked(text: str, found: set[str]) -> Text:
    sign = BEST if "best" in found else SECOND if "second" in found else ""
    style = "bold green" if "best" in found else "underline" if "second" in found else ""
    made = Text(text, style)
    made.append(sign + TIED * ("tied" in found))
    return made


def _short(name: str) -> str:
    printable = harmless(name)
    return printable if len(printable) <= LONG_NAME else printable[: LONG_NAME - 1] + "…"


def _heading(column: Column) -> str:
    """The heading in lines: a dotted path by its parts, words as a narrow column holds them."""
    if column.group == "axis":
        return column.title.removeprefix("model.").replace(".", ".\n")
    return "\n".join(textwrap.wrap(column.heading, HEADING_WIDTH, break_long_words=False))


def _column_width(column: Column, cells: dict[int, list[Text]]) -> int:
    return max(map(cell_len, (*_heading(column).splitlines(), *(cell.plain for cell in cells[id(column)]))))


def _width(found: list[Column], cells: dict[int, list[Text]]) -> int:
    return sum(_column_width(column, cells) for column in found) + 3 * (len(found) - 1)


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
