"""``Leaderboard`` -> a LaTeX document for pdflatex, whose tables can be copied into a paper.

The tables use booktabs, with the best mean bold and the second-best underlined. Accuracy and cost have tables of their
own, and a long table is split into parts that fit a page. All characters that LaTeX could misread are escaped;
characters that pdflatex's fonts lack are written as their code points.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from bench.leaderboard.columns import ARROWS, UNKNOWN, Column, columns
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.ranking import marks
from bench.report.legend import embedded_note, legend, sentences
from bench.report.sections import how_chosen
from bench.scoring.metrics import METRICS

# pandas' Styler.to_latex saves twenty lines here; but its longtable cannot be scaled to the page, and it needs jinja2.
LINES_A_PAGE = 34
LONG_NAME = 28  # characters, beyond which the names on an axis are set in several lines
LONG_WORD = 16
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{amsmath,amssymb,array,booktabs,graphicx}
\newsavebox{\tablebox}
\newenvironment{fitted}{\begin{lrbox}{\tablebox}}{\end{lrbox}%
  \ifdim\wd\tablebox>\linewidth\resizebox{\linewidth}{!}{\usebox{\tablebox}}\else\usebox{\tablebox}\fi}
\setlength{\parindent}{0pt}
\pagestyle{plain}
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": "`{}",
    "'": "'{}",  # two of them would become one
    "-": "-{}",  # two of them would become a dash
    "?": "?{}",  # ?` and !` would become Spanish
    "!": "!{}",
    ",": ",{}",
    "[": "{[}",  # after a line's end it would be a length
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "≈": r"\ensuremath{\approx}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "→": r"\ensuremath{\rightarrow}",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
    "●": r"\ensuremath{\bullet}",
    "†": r"\ensuremath{\dagger}",
    "²": r"\ensuremath{^2}",
    "°": r"\ensuremath{^\circ}",
    "µ": r"\ensuremath{\mu}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "…": r"\ldots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "€": "EUR",
}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi"
)
GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", f"{_GREEK_NAMES} psi omega".split()))
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip


def latex(board: Leaderboard) -> str:
    """Returns a whole document: the legend, and for each environment a table of accuracy and one of cost."""
    lines = [PREAMBLE, r"\begin{document}", rf"\section*{{{escape(board.name)}}}", escape(board.question), ""]
    lines += _notes(board)
    for number, table in enumerate(board.tables, start=1):
        if heading := board.environment_heading(number):
            lines += [rf"\subsection*{{{heading}}}"]
        lines += _tables(board, table)
    lines += [*_external(board), *_published(board), r"\end{document}", ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escapes a text so that LaTeX prints each character and reads no command, comment or end of a line."""
    return "".join(map(_escaped, " ".join(text.split())))


def _escaped(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if character in GREEK:
        return rf"\ensuremath{{\{GREEK[character]}}}"
    if " " <= character <= "~":
        return character
    base, *rest = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isalpha() and len(rest) == 1 and rest[0] in ACCENTS:
        return rf"\{ACCENTS[rest[0]]}{{{base}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


def _notes(board: Leaderboard) -> list[str]:
    lines = [rf"Profile \textbf{{{escape(board.profile)}}}: {escape(board.settings)}.", ""]
    if note := embedded_note(board):
        lines += [rf"\textbf{{{escape(note)}}}", ""]
    lines += [*sentences(legend(board), r"\textbf{bold}", r"\underline{underlined}", escape), ""]
    for remark in (*how_chosen(board), *board.remarks):
        lines += [escape(remark.replace("**", "")), ""]
    return lines


def _tables(board: Leaderboard, table: Table) -> Iterator[str]:
    """Yields a table of accuracy and one of cost; each has the axes in front and, if it is long, several parts."""
    shown = columns(board, table)
    axes = [column for column in shown if column.group == "axis"]
    accuracy = [column for column in shown if column.group == "accuracy"]
    rest = [column for column in shown if column.group in ("cost", "state")]
    where = "; ".join(f"{name} {value}" for name, value in table.environment.items())
    for title, group in (("Accuracy", accuracy), ("Cost", rest)):
        cells = [_cells(column, table) for column in group]
        parts = list(_parts(table.rows, axes)) if group else []
        for part, numbers in enumerate(parts, start=1):
            again = f", part {part} of {len(parts)}" if len(parts) > 1 else ""
            caption = rf"{title}{again}. {escape(where)}"
            titles = [column.heading for column in (*axes, *group)]
            lines = _grouped(table.rows, numbers, list(zip(*cells)))
            yield from _tabular(caption, titles, lines, _alignment(axes, table.rows) + "r" * len(group))
    if table.answer is not None:
        yield rf"\textbf{{Answer.}} {escape(table.answer.text)}\par"
    for row in table.rows:
        for text in (*row.errors, *(f"† {note}" for note in row.notes)):
            yield rf"{{\footnotesize {escape(', '.join(row.labels))}: {escape(text)}\par}}"
    yield r"\clearpage"


def _grouped(rows: Sequence[Row], numbers: Sequence[int], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table: with several axes, a label on the first one stands once in its group."""
    before = None
    for number in numbers:
        row = rows[number]
        names = [_breakable(label) for label in row.labels]
        if before is not None and len(names) > 1:
            if row.labels[0] == before:
                names[0] = ""
            else:
                yield r"\addlinespace"
        before = row.labels[0] if row.labels else None
        yield " & ".join([*names, *cells[number]]) + r" \\"


def _cells(column: Column, table: Table) -> list[str]:
    """Returns the cells of a column, its best mean bold and its second-best underlined."""
    texts = [escape(column.text(row)) for row in table.rows]
    found = marks(table, column.metric) if column.metric else [set() for _ in table.rows]
    sign = r"\,\ensuremath{\approx}"
    some_tied = any("tied" in kinds for kinds in found)
    cells = []
    for text, kinds in zip(texts, found):
        value, plus_minus, width = text.partition(f" {SPECIAL['±']} ")
        if "best" in kinds:
            value = rf"\textbf{{{value}}}"
        elif "second" in kinds:
            value = rf"\underline{{{value}}}"
        if plus_minus:
            value += rf"\,{{\scriptsize\ensuremath{{\pm}}{width}}}"
        if "tied" in kinds:
            value += sign
        elif some_tied:
            value += rf"\phantom{{{sign}}}"
        cells.append(value)
    return cells


def _tabular(caption: str, titles: Sequence[str], lines: Iterable[str], align: str) -> Iterator[str]:
    """Yields a table; caption and lines are LaTeX already."""
    yield from (r"\begin{table}[!htbp]", r"\centering\footnotesize", rf"\caption{{{caption}}}")
    yield from (r"\begin{fitted}", rf"\begin{{tabular}}{{{align}}}", r"\toprule")
    yield " & ".join(map(escape, titles)) + r" \\"
    yield r"\midrule"
    yield from lines
    yield from (r"\bottomrule", r"\end{tabular}", r"\end{fitted}", r"\end{table}", "")


def _parts(rows: Sequence[Row], axes: Sequence[Column]) -> Iterator[list[int]]:
    """Yields the numbers of the rows of each page."""
    part, used = [], 0
    for i, row in enumerate(rows):
        height = max((-(-len(axis.text(row)) // LONG_NAME) for axis in axes), default=1)
        if part and used + height > LINES_A_PAGE:
            yield part
            part, used = [], 0
        part.append(i)
        used += height
    if part:
        yield part


def _breakable(name: str) -> str:
    """Returns an escaped name whose long words may be broken at the end of a line."""
    words = []
    for word in name.split():
        pieces = [escape(word[i : i + LONG_WORD]) for i in range(0, len(word), LONG_WORD)]
        words.append(r"\hspace{0pt}".join(pieces))
    return " ".join(words)


def _alignment(axes: Sequence[Column], rows: Sequence[Row]) -> str:
    """Returns the column types of the axes: as wide as their names, or a paragraph for long names."""
    types = []
    for axis in axes:
        is_long = any(len(axis.text(row)) > LONG_NAME for row in rows)
        types.append(r">{\raggedright\arraybackslash}p{46mm}" if is_long else "l")
    return "".join(types)


def _external(board: Leaderboard) -> Iterator[str]:
    rows = board.beside.external
    metrics = [metric for metric in METRICS if any(metric in row.record.scores for row in rows)]
    lines = []
    for row in rows:
        scores = row.record.scores
        numbers = [f"{scores[metric]:.3f}" if metric in scores else UNKNOWN for metric in metrics]
        lines.append([row.record.name, *numbers, f"not comparable: {row.differs}" if row.differs else ""])
    headings = [f"{METRICS[metric].label} {ARROWS[METRICS[metric].better]}" for metric in metrics]
    titles = ["external method", *headings, ""]
    yield from _plain("Scored from prediction files, not trained here", titles, lines, "l" + "r" * len(metrics) + "l")


def _published(board: Leaderboard) -> Iterator[str]:
    lines = []
    for row in board.beside.published:
        checked = "read in the source" if row.source.verified == "source" else "second hand"
        for metric, value in row.result.scores.items():
            gap = row.gaps.get(metric)
            again = [UNKNOWN, UNKNOWN] if gap is None else [f"{value + gap:.3f}", f"{gap:+.3f}"]
            source = f"{row.source.text}; {checked}"
            lines.append([row.result.method, METRICS[metric].label, f"{value:.3f}", *again, source])
    titles = ["method", "metric", "published", "reproduced here", "gap", "source"]
    align = r"llrrr>{\raggedright\arraybackslash}p{90mm}"
    yield from _plain(f"Published on {board.beside.test_set}, not measured here", titles, lines, align)


def _plain(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> Iterator[str]:
    for start in range(0, len(rows), LINES_A_PAGE):
        lines = [" & ".join(map(escape, row)) + r" \\" for row in rows[start : start + LINES_A_PAGE]]
        yield from _tabular(escape(caption), titles, lines, align)
