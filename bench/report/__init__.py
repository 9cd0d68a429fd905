"""The report of a sweep: tables, figures and the page. It needs neither Ray nor a GPU."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.leaderboard.results import Results
from bench.report import page
from bench.report.page.content import downloads
from bench.report.tables import markdown
from bench.system.files import write_whole

FIGURES = "figures"
"""Name of the folder of figures, in the folder of the report."""
KINDS = ("png", "svg", "pdf")
NAMES = (page.NAME, "leaderboard.md", "leaderboard.csv", "leaderboard.tex", "comparisons.csv", "tuning.csv")


def targets(folder: Path) -> list[Path]:
    """Returns the files that ``write`` may write; one path stands for all figures."""
    return [*(folder / name for name in NAMES), folder / FIGURES / "figure.png"]


def write(results: Results, folder: Path, say: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Writes a report and returns the paths of its files; the same results give the same bytes.

    Tables and the page are always written; comparisons if rows were compared; the choice of tuned
    values if there are any; figures that the results can fill. say:
    prints a line to the user.
    """
    from bench.report import plots  # matplotlib takes a second to import, and most processes draw nothing

    board = results.board()
    saved = downloads(board)
    texts = {page.NAME: page.html(results, board, saved), "leaderboard.md": markdown(board), **saved}
    paths = []
    for name in NAMES:
        if text := texts[name]:
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
    """Returns a line about the files that ``write`` has written; figures are counted."""
    names = [path.name for path in paths if path.parent == folder]
    count = len(paths) - len(names)
    figures = f", and {count} files in {FIGURES}" if count else ""
    return f"wrote to {folder}: {', '.join(names)}{figures}"
