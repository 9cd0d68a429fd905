"""From records to what people look at: a leaderboard, its tables and its figures. Needs no Ray and no GPU."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.leaderboard.results import Results
from bench.report import page
from bench.report.latex import latex
from bench.report.tables import as_csv, comparisons_csv, markdown
from bench.system.files import write_whole

FIGURES = "figures"
"""Folder of the figures, below that of the report."""
KINDS = ("png", "svg", "pdf")
NAMES = (page.NAME, "leaderboard.md", "leaderboard.csv", "leaderboard.tex", "comparisons.csv")


def targets(folder: Path) -> list[Path]:
    """Files that ``write`` writes there, beside figures, of which the results decide."""
    return [*(folder / name for name in NAMES), folder / FIGURES / "figure.png"]


def write(results: Results, folder: Path, say: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Writes all that a report consists of and returns the paths; the same results give the same bytes.

    Tables and the page always; comparisons and figures where there is something to compare and to show. say: tells the
    user a line.
    """
    from bench.report import plots  # matplotlib: a second that a process which draws nothing should not pay

    board = results.board()
    texts = (page.html(results, board), markdown(board), as_csv(board), latex(board), comparisons_csv(board))
    paths = []
    for name, text in zip(NAMES, texts, strict=True):
        if text:
            paths.append(folder / name)
            write_whole(paths[-1], lambda file: file.write(text.encode()))
    texts = plots.texts_of(board)
    if lacking := plots.undrawable(texts):
        say(f"note: {lacking}")
    with plots.fonts_for(texts):
        for name, figure in plots.figures(results, board).items():
            (folder / FIGURES).mkdir(exist_ok=True)
            for kind in KINDS:
                paths.append(folder / FIGURES / f"{name}.{kind}")
                plots.save(figure, paths[-1])
    return paths


def wrote(paths: Sequence[Path], folder: Path) -> str:
    """What ``write`` has written, in a line; figures are counted."""
    names = [path.name for path in paths if path.parent == folder]
    count = len(paths) - len(names)
    return f"wrote to {folder}: {', '.join(names)}" + f", and {count} files in {FIGURES}" * bool(count)
