"""``Leaderboard`` -> Markdown for readers and CSV for programs."""

from collections.abc import Iterable, Sequence

import pandas

from bench.leaderboard.columns import ARROWS, Column, columns, fit, show, status, tuned_text
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.noise_floor import SHOWN_BYTES, floor_in_words, memory_noise_floor, unresolved
from bench.leaderboard.ranking import marks
from bench.report.legend import embedded_note, legend, sentences
from bench.report.sections import differences, escape, external, how_chosen, published
from bench.scoring.metrics import METRICS
from bench.system.sanitize import csv_cell


def markdown(board: Leaderboard) -> str:
    """Returns the leaderboard as Markdown: heading, warnings, one table for each environment, and the legend."""
    lines = [f"# {escape(board.name)}", "", escape(board.question), "", *_caption(board), ""]
    for number, table in enumerate(board.tables, start=1):
        if heading := board.environment_heading(number):
            lines += [f"## {heading}", ""]
        lines += [*_table(board, table), "", *_by_test_set(board, table)]
        lines += [f"Row {_name(row)}: {escape(error)}" for row in table.rows for error in row.errors]
        lines += ["", *differences(table)]
        lines += [f"† {_name(row)}: {escape(note)}" for row in table.rows for note in row.notes]
        lines += [*_memory_resolution(table), *_measured_on(table)]
    lines += [*external(board.beside), *published(board.beside)]
    lines.append(f"{' '.join(sentences(legend(board), best='**bold**'))} All metrics: leaderboard.csv.")
    return "\n".join(lines) + "\n"


def _name(row: Row) -> str:
    return ", ".join(map(escape, row.labels))


def _caption(board: Leaderboard) -> list[str]:
    lines = [f"Profile **{escape(board.profile)}**: {escape(board.settings)}."]
    if note := embedded_note(board):
        lines += ["", f"> **{escape(note)}**"]
    for remark in (*how_chosen(board), *map(escape, board.remarks)):
        lines += ["", remark]
    return lines


def _measured_on(table: Table) -> list[str]:
    """Returns a small line about the machine, the versions and the weight files behind a table."""
    if not table.environment:
        return []
    fewest, most = table.trials_at_once[0], table.trials_at_once[-1]
    at_once = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    facts = [f"{name} {value}" for name, value in table.environment.items()]
    if table.weights:
        facts.append(f"weights {', '.join(table.weights)}")
    facts += [
        f"commit {', '.join(table.commits)}",
        f"speeds with {at_once} trial{'' if most == 1 else 's'} at once on the machine",
    ]
    return ["", f"<sub>Measured on {escape('; '.join(facts))}</sub>", ""]


def _table(board: Leaderboard, table: Table) -> list[str]:
    shown = columns(board, table)
    titles = [escape(column.heading) if column.group == "axis" else column.heading for column in shown]
    ruler = [":--" if column.group == "axis" else "--:" for column in shown]
    cells = [_cells(column, table) for column in shown]
    return _lines(titles, ruler, zip(*cells))


def _cells(column: Column, table: Table) -> list[str]:
    """Returns the cells of a column: names escaped, the best mean bold, ties marked."""
    texts = [column.text(row) for row in table.rows]
    if column.group == "axis":
        return list(map(escape, texts))
    if column.metric is None:
        return list(map(escape, texts))
    cells = []
    for text, found in zip(texts, marks(table, column.metric)):
        text = f"**{text}**" if "best" in found else text
        cells.append(f"{text} ≈" if "tied" in found else text)
    return cells


def _lines(titles: Sequence[str], ruler: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (titles, ruler, *rows)]


def _by_test_set(board: Leaderboard, table: Table) -> list[str]:
    """Returns a table of every row on every test set, if there are several; the table above is on the first one."""
    names, metrics = _test_sets(table)
    if not names:
        return []
    labels = [f"{METRICS[metric].label} {ARROWS[METRICS[metric].better]}" for metric in metrics]
    titles = [*map(escape, board.axes), "test set", *labels]
    ruler = [":--"] * (len(board.axes) + 1) + ["--:"] * len(metrics)
    rows = []
    for row in table.rows:
        for name in names:
            scores = [show(row.cells.get(f"test[{name}].{metric}"), 3) for metric in metrics]
            rows.append([*map(escape, row.labels), escape(name), *scores])
    return [f"On every test set (above: {escape(names[0])}):", "", *_lines(titles, ruler, rows), ""]


def _test_sets(table: Table) -> tuple[list[str], list[str]]:
    """Returns the names of several test sets and the metrics of their scores; none if there is only one test set."""
    names: dict[str, None] = {}
    present = set()
    for row in table.rows:
        for quantity in row.cells:
            if quantity.startswith("test["):
                name, _, metric = quantity.removeprefix("test[").partition("].")
                names[name] = None
                present.add(metric)
    return list(names), [metric for metric in METRICS if metric in present]


def _memory_resolution(table: Table) -> list[str]:
    """Returns a sentence about rows whose difference in memory the repeats do not resolve."""
    floor = memory_noise_floor(table)
    if floor is None:
        return []
    pairs = [f"{', '.join(a.labels)} and {', '.join(b.labels)}" for a, b in unresolved(table, floor)]
    if floor < SHOWN_BYTES and not pairs:
        return []  # the repeats agree in all digits that are shown
    return ["", escape(floor_in_words(floor, "; ".join(pairs) or "none here")), ""]


# --- CSV --------------------------------------------------------------------------------------------------------------


def as_frame(board: Leaderboard) -> pandas.DataFrame:
    """Returns one line for each row with the mean and deviation of every quantity, in bytes and seconds.

    NaN stands for unknown.
    """
    lines = []
    for table in board.tables:
        for row in table.rows:
            line: dict[str, object] = {"sweep": board.name, "profile": board.profile}
            line |= {"embedded": "; ".join(board.embedded), **dict(zip(board.axes, row.labels))}
            line |= {"seeds_ok": row.count_ok, "seeds": len(row.statuses), "status": status(row)}
            line["pareto_front"] = row.on_front
            if board.tuning:
                line["tuned"] = tuned_text(row)
                line |= {f"tuned.{field}": value for field, value in (row.tuned.values if row.tuned else ())}
            if found := fit(row):
                line |= {"fits_card_gb": found.card, "fits_by": found.by}
            for quantity, cell in row.cells.items():
                line |= {quantity: cell.mean, f"{quantity}.deviation": cell.deviation}
                if quantity.startswith(("test.", "val.")):
                    line[f"{quantity}.half_width95"] = cell.half_width
            line |= {**table.environment, "commits": " ".join(table.commits), "trial_ids": " ".join(row.trial_ids)}
            lines.append(line)
    frame = pandas.DataFrame(lines)
    environment = dict.fromkeys(name for table in board.tables for name in table.environment)
    last = [name for name in (*environment, "commits", "trial_ids") if name in frame]
    return frame[[name for name in frame if name not in last] + last]


def as_csv(board: Leaderboard) -> str:
    """Returns ``as_frame`` as CSV."""
    return csv(as_frame(board))


def comparisons_csv(board: Leaderboard) -> str:
    """Returns all comparisons of pairs of rows as CSV, one line for each pair and metric.

    ``equivalent`` says whether the interval lies within the sweep's margin, which is one of the main metric. Empty fields
    could not be tested. The text is empty if nothing was tested.
    """
    lines = []
    for number, table in enumerate(board.tables, start=1):
        names = [", ".join(row.labels) for row in table.rows]
        for metric, found in table.comparisons.items():
            for c in found:
                facts = vars(c) | {"first": names[c.first], "second": names[c.second], "resolved": c.resolved}
                if metric == table.main_metric and c.low is not None and table.answer is not None:
                    facts["equivalent"] = c.within(table.answer.ask.margin)
                lines.append({"environment": number, "metric": metric, **facts, "images": table.images})
    if all(line["p"] is None for line in lines):
        return ""
    return csv(pandas.DataFrame(lines))


def tuning_csv(board: Leaderboard) -> str:
    """Returns the trials that chose the tuned values as CSV, one line for each; empty if nothing was tuned."""
    lines = []
    for candidate in board.tuning.candidates:
        line: dict[str, object] = dict(zip(board.axes, candidate.labels))
        line |= {f"tuned.{field}": value for field, value in candidate.values}
        line |= {"seed": candidate.seed, "status": candidate.status, "metric": candidate.metric}
        line |= {"validation_score": candidate.score, "chosen": candidate.chosen, "seconds": candidate.seconds}
        lines.append(line | {"trial_id": candidate.trial_id})
    return csv(pandas.DataFrame(lines)) if lines else ""


def csv(frame: pandas.DataFrame) -> str:
    """Returns a table as CSV whose texts no spreadsheet runs as formulas. An empty field is unknown."""
    texts = [name for name in frame if any(isinstance(value, str) for value in frame[name])]
    safe = frame.assign(**{name: frame[name].map(csv_cell) for name in texts})
    return safe.rename(columns=csv_cell).to_csv(index=False, lineterminator="\n")
