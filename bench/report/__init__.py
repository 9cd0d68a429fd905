"""From records to what people look at: a leaderboard, its tables and its figures. Needs no Ray and no GPU."""

from pathlib import Path

from bench.report.results import Results
from bench.report.tables import as_csv, comparisons_csv, markdown


def write(results: Results, folder: Path) -> list[Path]:
    """Writes all that a report consists of and returns the paths; the same results give the same bytes.

    The figure shows the first environment's table. It is left out when nothing could be measured, and so are the
    comparisons when there are none.
    """
    from bench.report import plots  # matplotlib: a second that a process which draws nothing should not pay

    board = results.board()
    contents = {
        "leaderboard.md": markdown(board),
        "leaderboard.csv": as_csv(board),
        "comparisons.csv": comparisons_csv(board),
        # the page joins here: "page.html": page.html(results, board)
    }
    paths = []
    for name, text in contents.items():
        if text:
            (folder / name).write_text(text, encoding="utf-8")
            paths.append(folder / name)
    # all figures join here: plots.figures(results, board)
    figures = {"memory_accuracy": plots.memory_accuracy(board, board.tables[0])}
    for name, figure in figures.items():
        for kind in ("png", "svg") if figure else ():
            path = folder / f"{name}.{kind}"
            plots.save(figure, path)
            paths.append(path)
    return paths
