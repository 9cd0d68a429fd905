"""``Leaderboard`` -> Markdown for people and CSV for programs."""

import pandas

from bench.report.leaderboard import (
    GIB,
    MEMORY_MEASURES,
    Cell,
    Leaderboard,
    Row,
    Table,
    memory_noise_floor,
    unresolved,
)
from bench.scores import METRICS

SHOWN = ("s_measure", "weighted_f_measure", "max_f_measure", "mean_e_measure", "mae", "mean_iou")
ARROWS = {"higher": "↑", "lower": "↓"}


def markdown(board: Leaderboard) -> str:
    """The leaderboard as Markdown: a heading, what the numbers are and are not, and one table per environment."""
    lines = [f"# {board.name}", "", escape(board.question), "", *_caption(board), ""]
    for number, table in enumerate(board.tables, start=1):
        if len(board.tables) > 1:
            lines += [f"## Environment {number} of {len(board.tables)}: not comparable with the others", ""]
        lines += [*_table(board, table), ""]
        lines += [f"Row {', '.join(map(escape, row.labels))}: {escape(e)}" for row in table.rows for e in row.errors]
        lines += [f"† {', '.join(map(escape, row.labels))}: {escape(n)}" for row in table.rows for n in row.notes]
        lines += _memory_resolution(table)
        facts = "; ".join(f"{name} {value}" for name, value in table.environment.items())
        if facts:
            busy = " to ".join(str(n) for n in dict.fromkeys((table.trials_at_once[0], table.trials_at_once[-1])))
            facts += f"; commit {', '.join(table.commits)}; speeds with {busy} trials at once on the machine"
            lines += ["", f"<sub>Measured on {escape(facts)}</sub>", ""]
    lines.append(_footnote(board))
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def _caption(board: Leaderboard) -> list[str]:
    lines = [f"Profile **{escape(board.profile)}**: {escape(board.settings)}."]
    if board.embedded:
        parts = " and ".join(escape(part) for part in board.embedded)
        lines += [
            "",
            f"> **Embedded run** ({parts}): stand-ins that ship with the suite, made to run on any machine. These "
            "numbers rank settings of a tiny model; they are not results of SAM3-UNet.",
        ]
    return lines


def _table(board: Leaderboard, table: Table) -> list[str]:
    metrics = [m for m in SHOWN if any(f"test.{m}" in row.cells for row in table.rows)]
    with_val = any("val.s_measure" in row.cells for row in table.rows)
    measures = [m for m in MEMORY_MEASURES if any(f"training.{m}" in row.cells for row in table.rows)]
    titles = [escape(axis) for axis in board.axes]
    titles += [f"{METRICS[m].label} {ARROWS[METRICS[m].better]}" for m in metrics]
    titles += ["val S ↑"] * with_val
    titles += [f"{MEMORY_MEASURES[m]} GiB ↓" for m in measures]
    titles += ["trainable M", "total M", "train img/s ↑", "infer img/s ↑", "ok", "front"]
    best = {m: _best(table, m) for m in metrics}

    def cells(row: Row) -> list[str]:
        texts = [escape(label) for label in row.labels]
        for metric in metrics:
            cell = row.cells.get(f"test.{metric}")
            text = _show(cell, 3)
            texts.append(f"**{text}**" if cell and cell.mean == best[metric] and len(table.rows) > 1 else text)
        texts += [_show(row.cells.get("val.s_measure"), 3)] * with_val
        texts += [_show(row.cells.get(f"training.{m}"), 3, GIB) for m in measures]
        texts += [_show(row.cells.get(f"parameters.{p}"), 3, 1e6) for p in ("trainable", "total")]
        texts += [_show(row.cells.get(f"timing.{t}_images_per_second"), 1) for t in ("train", "inference")]
        return [*texts, status(row) + " †" * bool(row.notes), "●" if row.on_front else ""]

    ruler = [":--"] * len(board.axes) + ["--:"] * (len(titles) - len(board.axes))
    return [f"| {' | '.join(line)} |" for line in (titles, ruler, *map(cells, table.rows))]


def _memory_resolution(table: Table) -> list[str]:
    """What repeats say about which rows' memory differs at all."""
    floor = memory_noise_floor(table)
    if floor is None:
        return []
    pairs = [f"{', '.join(a.labels)} and {', '.join(b.labels)}" for a, b in unresolved(table, floor)]
    text = f"Memory: neighbours in the order of memory closer than {floor / 2**20:.1f} MiB are not resolved by the repeats"
    return ["", escape(f"{text}: {'; '.join(pairs) or 'none here'}."), ""]


def status(row: Row) -> str:
    """``3/3``, or ``2/3 (1 oom)``."""
    others = [s for s in ("oom", "over budget", "error", "pending") if s in row.statuses]
    detail = f" ({', '.join(f'{row.statuses.count(s)} {s}' for s in others)})" if others else ""
    return f"{row.count_ok}/{len(row.statuses)}{detail}"


def _best(table: Table, metric: str) -> float | None:
    means = [row.cells[f"test.{metric}"].mean for row in table.rows if f"test.{metric}" in row.cells]
    pick = max if METRICS[metric].better == "higher" else min
    return pick(means, default=None)


def _show(cell: Cell | None, digits: int, unit: float = 1) -> str:
    if cell is None:
        return "–"
    mean = f"{cell.mean / unit:.{digits}f}"
    spread = cell.deviation is not None and cell.deviation / unit >= 0.5 * 10**-digits
    return f"{mean} ± {cell.deviation / unit:.{digits}f}" if spread else mean


def _footnote(board: Leaderboard) -> str:
    if len(board.seeds) > 1:
        seeds = f"Mean ± standard deviation over {len(board.seeds)} seeds; best mean bold, not tested for significance."
    else:
        seeds = "One seed: how much of a difference is seed noise is unknown."
    return (
        f"{seeds} Scores are of the test split after the last epoch; choose by *val*. Memory is the peak in training. "
        "● lies on the Pareto front of S-measure and memory. – could not be measured. All metrics: leaderboard.csv."
    )


def as_frame(board: Leaderboard) -> pandas.DataFrame:
    """One line per row with every quantity's mean and deviation in SI units, bytes and seconds; NaN is unknown."""
    lines = []
    for table in board.tables:
        for row in table.rows:
            line: dict[str, object] = {"sweep": board.name, "profile": board.profile}
            line |= {"embedded": "; ".join(board.embedded), **dict(zip(board.axes, row.labels))}
            line |= {"seeds_ok": row.count_ok, "seeds": len(row.statuses), "status": status(row)}
            line |= {"pareto_front": row.on_front}
            for quantity, cell in row.cells.items():
                line |= {quantity: cell.mean, f"{quantity}.deviation": cell.deviation}
            line |= {**table.environment, "commits": " ".join(table.commits), "trial_ids": " ".join(row.trial_ids)}
            lines.append(line)
    frame = pandas.DataFrame(lines)
    last = [name for name in (*_environment_names(board), "commits", "trial_ids") if name in frame]
    return frame[[name for name in frame if name not in last] + last]


def as_csv(board: Leaderboard) -> str:
    """``as_frame`` as CSV; an empty field is unknown."""
    return as_frame(board).to_csv(index=False, lineterminator="\n")


def _environment_names(board: Leaderboard) -> list[str]:
    return list(dict.fromkeys(name for table in board.tables for name in table.environment))
