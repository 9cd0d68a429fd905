"""``Leaderboard`` -> Markdown for people and CSV for programs."""

import pandas

from bench.leaderboard.cards import fit
from bench.leaderboard.columns import ARROWS, Column, columns, marks, show, status
from bench.leaderboard.leaderboard import Leaderboard, Row, Table, memory_noise_floor, unresolved
from bench.report.sections import differences, escape, external, how_chosen, published
from bench.scoring.metrics import METRICS
from bench.system.sanitize import csv_cell


def markdown(board: Leaderboard) -> str:
    """The leaderboard as Markdown: a heading, what the numbers are and are not, and one table per environment."""
    lines = [f"# {escape(board.name)}", "", escape(board.question), "", *_caption(board), ""]
    for number, table in enumerate(board.tables, start=1):
        if heading := board.environment_heading(number):
            lines += [f"## {heading}", ""]
        lines += [*_table(board, table), "", *_by_test_set(board, table)]
        lines += [f"Row {', '.join(map(escape, row.labels))}: {escape(e)}" for row in table.rows for e in row.errors]
        lines += ["", *differences(table)]
        lines += [f"† {', '.join(map(escape, row.labels))}: {escape(n)}" for row in table.rows for n in row.notes]
        lines += _memory_resolution(table)
        facts = "; ".join(f"{name} {value}" for name, value in table.environment.items())
        if facts:
            busy = " to ".join(str(n) for n in dict.fromkeys((table.trials_at_once[0], table.trials_at_once[-1])))
            facts += f"; weights {', '.join(table.weights)}" * bool(table.weights)
            facts += f"; commit {', '.join(table.commits)}; speeds with {busy} trials at once on the machine"
            lines += ["", f"<sub>Measured on {escape(facts)}</sub>", ""]
    lines += [*external(board.beside), *published(board.beside)]
    lines.append(_footnote(board))
    return "\n".join(lines) + "\n"


def _caption(board: Leaderboard) -> list[str]:
    lines = [f"Profile **{escape(board.profile)}**: {escape(board.settings)}."]
    if board.embedded:
        parts = " and ".join(escape(part) for part in board.embedded)
        lines += [
            "",
            f"> **Embedded run** ({parts}): stand-ins that ship with the suite, made to run on any machine. These "
            "numbers rank settings of a tiny model; they are not results of SAM3-UNet.",
        ]
    remarks = [line for remark in board.remarks for line in ("", escape(remark))]
    return [*lines, *how_chosen(board), *remarks]


def _table(board: Leaderboard, table: Table) -> list[str]:
    shown = columns(board, table)
    of_metric = {column.metric: marks(table, column.metric) for column in shown if column.metric}

    def cell(column: Column, number: int, row: Row) -> str:
        text = column.text(row)
        if column.group == "axis":
            return escape(text)
        found = of_metric[column.metric][number] if column.metric else ()
        text = f"**{text}**" if "best" in found else text
        return f"{text} ≈" if "tied" in found else text

    titles = [escape(column.heading) if column.group == "axis" else column.heading for column in shown]
    ruler = [":--" if column.group == "axis" else "--:" for column in shown]
    rows = [[cell(column, number, row) for column in shown] for number, row in enumerate(table.rows)]
    return [f"| {' | '.join(line)} |" for line in (titles, ruler, *rows)]


def _by_test_set(board: Leaderboard, table: Table) -> list[str]:
    """A line for every row on every test set, where there are several; the table above is on the first of them."""
    quantities = dict.fromkeys(q for row in table.rows for q in row.cells if q.startswith("test["))
    names = list(dict.fromkeys(q.removeprefix("test[").partition("].")[0] for q in quantities))
    metrics = [m for m in METRICS if any(f"test[{name}].{m}" in row.cells for row in table.rows for name in names)]
    if not names:
        return []
    labels = [f"{METRICS[m].label} {ARROWS[METRICS[m].better]}" for m in metrics]
    titles = [*map(escape, board.axes), "test set", *labels]
    ruler = [":--"] * (len(board.axes) + 1) + ["--:"] * len(metrics)
    lines = [
        [*map(escape, row.labels), escape(name), *(show(row.cells.get(f"test[{name}].{m}"), 3) for m in metrics)]
        for row in table.rows
        for name in names
    ]
    heading = f"On every test set (above: {escape(names[0])}):"
    return [heading, "", *(f"| {' | '.join(line)} |" for line in (titles, ruler, *lines)), ""]


def _memory_resolution(table: Table) -> list[str]:
    """What repeats say about which rows' memory differs at all."""
    floor = memory_noise_floor(table)
    if floor is None:
        return []
    pairs = [f"{', '.join(a.labels)} and {', '.join(b.labels)}" for a, b in unresolved(table, floor)]
    text = (
        f"Memory: neighbours in the order of memory closer than {floor / 2**20:.1f} MiB are not resolved by the repeats"
    )
    return ["", escape(f"{text}: {'; '.join(pairs) or 'none here'}."), ""]


def _footnote(board: Leaderboard) -> str:
    if len(board.seeds) > 1:
        first = board.search.first_seeds
        count = f"{first} to {len(board.seeds)}" if first else f"{len(board.seeds)}"
        lines = [f"Means ± half of their 95 % interval over {count} seeds; best mean bold."]
        tested = any(c.p is not None for table in board.tables for found in table.comparisons.values() for c in found)
        how = "≈ is not distinguishable from its column's best: bootstrap over seeds and images, Holm over all pairs."
        lines.append(how if tested else "Differences are not tested for significance.")
    else:
        lines = ["One seed: how much of a difference is seed noise is unknown, and nothing is tested."]
    front = METRICS[board.tables[0].main_metric].label
    lines += [
        "Scores are of the test split after the last epoch; choose by *val*. Memory is the peak in training.",
        f"● lies on the Pareto front of {front} and memory. – could not be measured. All metrics: leaderboard.csv.",
    ]
    return " ".join(lines)


def as_frame(board: Leaderboard) -> pandas.DataFrame:
    """One line per row with every quantity's mean and deviation in SI units, bytes and seconds; NaN is unknown."""
    lines = []
    for table in board.tables:
        for row in table.rows:
            line: dict[str, object] = {"sweep": board.name, "profile": board.profile}
            line |= {"embedded": "; ".join(board.embedded), **dict(zip(board.axes, row.labels))}
            line |= {"seeds_ok": row.count_ok, "seeds": len(row.statuses), "status": status(row)}
            line |= {"pareto_front": row.on_front}
            line |= {"fits_card_gb": found.card, "fits_by": found.by} if (found := fit(row)) else {}
            for quantity, cell in row.cells.items():
                line |= {quantity: cell.mean, f"{quantity}.deviation": cell.deviation}
                line |= {f"{quantity}.half_width95": cell.half_width} if quantity.startswith(("test.", "val.")) else {}
            line |= {**table.environment, "commits": " ".join(table.commits), "trial_ids": " ".join(row.trial_ids)}
            lines.append(line)
    frame = pandas.DataFrame(lines)
    last = [name for name in (*_environment_names(board), "commits", "trial_ids") if name in frame]
    return frame[[name for name in frame if name not in last] + last]


def as_csv(board: Leaderboard) -> str:
    """``as_frame`` as CSV."""
    return csv(as_frame(board))


def comparisons_csv(board: Leaderboard) -> str:
    """All comparisons of pairs of rows, one line per pair and metric; empty fields could not be tested.

    No text where nothing could.
    """
    lines = []
    for number, table in enumerate(board.tables, start=1):
        names = [", ".join(row.labels) for row in table.rows]
        for metric, found in table.comparisons.items():
            for c in found:
                facts = vars(c) | {"first": names[c.first], "second": names[c.second], "resolved": c.resolved}
                lines.append({"environment": number, "metric": metric, **facts, "images": table.images})
    if all(line["p"] is None for line in lines):
        return ""
    return csv(pandas.DataFrame(lines))


def csv(frame: pandas.DataFrame) -> str:
    """A table as CSV that no spreadsheet takes for formulas; an empty field is unknown."""
    texts = [name for name in frame if any(isinstance(value, str) for value in frame[name])]
    safe = frame.assign(**{name: frame[name].map(csv_cell) for name in texts})
    return safe.rename(columns=csv_cell).to_csv(index=False, lineterminator="\n")


def _environment_names(board: Leaderboard) -> list[str]:
    return list(dict.fromkeys(name for table in board.tables for name in table.environment))
