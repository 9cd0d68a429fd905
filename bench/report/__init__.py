"""From records to what people look at: a leaderboard, its tables and its figures. Needs no Ray and no GPU."""

from pathlib import Path

from bench.report.leaderboard import Leaderboard
from bench.report.tables import as_csv, comparisons_csv, markdown


def write(board: Leaderboard, folder: Path) -> list[Path]:
    """Writes leaderboard.md, leaderboard.csv, comparisons.csv and memory_accuracy.{png,svg}; returns their paths.

    The figure shows the first environment's table. It is left out when nothing could be measured, and so are the
    comparisons when there are none.
    """
    from bench.report import plots  # matplotlib: a second that a process which draws nothing should not pay

    contents = {folder / "leaderboard.md": markdown(board), folder / "leaderboard.csv": as_csv(board)}
    contents |= {folder / "comparisons.csv": text for text in [comparisons_csv(board)] if text}
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8")
    paths = list(contents)
    figure = plots.memory_accuracy(board, board.tables[0])
    for kind in ("png", "svg") if figure else ():
        path = folder / f"memory_accuracy.{kind}"
        plots.save(figure, path)
        paths.append(path)
    return paths
