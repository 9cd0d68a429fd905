"""The style of all figures: colours, sizes, headings, small print, legends, and how figures are saved.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which readers with any colour vision can distinguish.
Each colour comes with its own marker, line style, hatch or shade, so that figures can be read in greyscale, too.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from bench.config import row_names
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table, measured_memory
from bench.records.memory import GIB, measure_of
from bench.records.record import TrialRecord
from bench.report.plots.fonts import drawable, lean_fonts, replaced_in_words
from bench.scoring.metrics import METRICS
from bench.system.files import write_whole

BLACK, BLUE, VERMILLION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE, YELLOW = "#E69F00", "#56B4E9", "#CC79A7", "#F0E442"
COLOURS = (BLUE, VERMILLION, GREEN, BLACK, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
MOST_CURVES = len(MARKERS) * len(DASHES)  # more curves would not differ in marker or line style
SEED = {"markersize": 4.5, "markeredgewidth": 0, "alpha": 0.75, "zorder": 2.5}  # look of the dot of a single seed
WARNING = "#B3261E"
GREY = "0.35"

WIDTH = 7.2  # inches: the text width of most papers
TITLE_SIZE, ANSWER_SIZE, WARNING_SIZE, SMALL_SIZE = 10, 9, 8, 6.5
LINE = 1.3  # height of a line of text in units of its size
EDGE = 0.06  # inches between what is drawn and the edge of the figure

AXIS_LABELS = {"s_measure": "S-measure", "iou": "IoU", "mean_class_iou": "mean IoU of the classes"}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.formatter.useoffset": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,  # fonts are embedded, so that text can be searched
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "svg.hashsalt": "sam3-bench",  # the same figure gives the same file
}
METADATA = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@contextmanager
def house_style() -> Iterator[None]:
    """Sets the style of all figures. Warnings of missing characters are hidden; reports print them once."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def lay_out(figure: Figure) -> None:
    """Lays a figure out, unless that is done; from then on the layout is final."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        figure.set_layout_engine("none")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure whole or not at all, as its suffix says (png, svg or pdf); the same figure gives the same bytes.

    ``Figure.savefig`` draws a figure twice and lays it out each time; here the layout is final with the first file.
    """
    with house_style():
        for text in figure.findobj(Text):
            text.set_text(drawable(text.get_text()))
        lay_out(figure)
        metadata = METADATA[path.suffix]
        if path.suffix == ".png":
            draw = FigureCanvasAgg(figure).print_png
        elif path.suffix == ".svg":
            draw = FigureCanvasSVG(figure).print_svg
        else:
            draw = FigureCanvasPdf(figure).print_pdf
        with lean_fonts():
            write_whole(path, partial(draw, metadata=metadata))


@dataclass(frozen=True)
class Canvas:
    """A figure with its heading and small print, and room for panels and legends between them."""

    figure: Figure
    below: tuple[float, float]  # upper left corner of the legend below the panels, in parts of the figure
    right: tuple[float, float]  # upper left corner of the key at the right of the panels
    height: float  # of the panels, in inches

    def legend(self, handles: Sequence[Artist], **look: Any) -> None:
        """Adds a legend below the panels."""
        place = {"loc": "upper left", "bbox_to_anchor": self.below, "borderaxespad": 0, "borderpad": 0}
        self.figure.legend(handles=handles, **place, **look)

    def sheet(self) -> Axes:
        """Returns one panel without axes for pictures. Its coordinates are inches from the upper left corner.

        Panels of their own for dozens of pictures would take seconds.
        """
        self.figure.set_layout_engine("none")
        share = self.height / self.figure.get_figheight()
        sheet = self.figure.add_axes((0, self.right[1] - share, 1, share))
        sheet.set(xlim=(0, WIDTH), ylim=(self.height, 0), autoscale_on=False)
        sheet.axis("off")
        return sheet

    def key(self, lines: Sequence[str], columns: int, width: float, size: float) -> None:
        """Writes lines in columns of ``width`` inches at the right of the panels; a legend would take seconds."""
        count = math.ceil(len(lines) / columns)
        x, y = self.right
        for column in range(columns):
            text = "\n".join(lines[column * count : (column + 1) * count])
            self.figure.text(x + column * width / WIDTH, y, text, fontsize=size, va="top", linespacing=1.4, gid="key")


def canvas(
    board: Leaderboard,
    table: Table,
    height: float,
    *,
    title: str = "",
    note: str = "",
    below: float = 0,
    right: float = 0,
) -> Canvas:
    """Returns a figure with heading and small print; ``height`` inches between them are free for panels.

    title: the subject of the figure, written under the sweep's question and its answer; note: how to read the figure,
    for the small print; below, right: inches kept free for a legend.
    """
    inside = WIDTH - 2 * EDGE
    heading = [(line, TITLE_SIZE, "black") for line in wrap(board.question, inside, TITLE_SIZE)]
    if table.answer is not None:
        heading += [(line, ANSWER_SIZE, BLUE) for line in wrap(table.answer.claim, inside, ANSWER_SIZE)]
    heading += [(line, WARNING_SIZE, GREY) for line in wrap(title, inside, WARNING_SIZE)]
    others = board.environment_heading(board.tables.index(table) + 1)
    heading += [(line, WARNING_SIZE, "black") for line in wrap(others, inside, WARNING_SIZE)]
    heading += [(line, WARNING_SIZE, WARNING) for line in wrap(board.warning, inside, WARNING_SIZE)]
    facts = [f"{board.name} ({board.profile})", board.settings, table.environment.get("device", ""), note]
    facts.append(replaced_in_words())
    foot = [(line, SMALL_SIZE, GREY) for line in wrap("; ".join(filter(None, facts)), inside, SMALL_SIZE)]
    top, bottom = _height(heading) + 2 * EDGE, _height(foot) + EDGE
    total = top + height + below + bottom
    figure = Figure(figsize=(WIDTH, total), dpi=160, layout="constrained")
    share = (bottom + below) / total
    figure.get_layout_engine().set(rect=(0, share, 1 - right / WIDTH, height / total))
    for y, lines in ((total - EDGE, heading), (bottom - EDGE / 2, foot)):
        for text, size, colour in lines:
            figure.text(EDGE / WIDTH, y / total, text, fontsize=size, color=colour, va="top")
            y -= size * LINE / 72
    return Canvas(figure, (EDGE / WIDTH, share - 0.05 / total), (1 - right / WIDTH, (total - top) / total), height)


def _height(lines: Sequence[tuple[str, float, str]]) -> float:
    return sum(size * LINE / 72 for _, size, _ in lines)


# --- widths of texts --------------------------------------------------------------------------------------------------


def text_width(text: str, size: float) -> float:
    """Returns the width of a line of text in inches."""
    return _text_width(drawable(text), size, tuple(matplotlib.rcParams["font.family"]))


@lru_cache(maxsize=20_000)  # the figures of a report share their heading and names
def _text_width(text: str, size: float, families: tuple[str, ...]) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(family=list(families), size=size), False
    )
    return width / 72


def wrap(text: str, width: float, size: float) -> list[str]:
    """Breaks a text into lines of at most ``width`` inches; longer words are shortened. An empty text has no lines."""
    lines: list[str] = []
    for word in drawable(text).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(shorten(word, width, size))
    return lines


def shorten(text: str, width: float, size: float) -> str:
    """Returns the text on one line, shortened in its middle to ``width`` inches: names often differ in their ends."""
    text = " ".join(drawable(text).split())
    whole = text_width(text, size)
    if whole <= width:
        return text
    count = int(len(text) * width / whole)  # near the end, because each measurement of a text takes a millisecond
    while count > 0 and text_width(_ends(text, count), size) > width:
        count -= 1
    while count < len(text) and text_width(_ends(text, count + 1), size) <= width:
        count += 1
    return _ends(text, count)


def _ends(text: str, count: int) -> str:
    """Returns ``count`` characters of a text, taken from both ends."""
    last = count // 2
    return f"{text[: count - last].rstrip()}…{text[len(text) - last :].lstrip()}"


# --- words and numbers ------------------------------------------------------------------------------------------------


def row_name(row: Row, board: Leaderboard) -> str:
    """Returns the name of a row, as ``rank 8, last:2``, in characters that can be drawn."""
    return drawable(row_names.row_name(row.labels, board.axes))


def fields(board: Leaderboard) -> list[str]:
    """Returns the short names of the axes, as in the names of rows."""
    return [drawable(row_names.short_name(axis)) for axis in board.axes]


def accuracy(row: Row, table: Table) -> Cell | None:
    """Returns the row's score on the test split by the table's main metric."""
    return row.cells.get(f"test.{table.main_metric}")


def memory_in_gib(row: Row, table: Table) -> Cell | None:
    """Returns the row's peak memory in training, in GiB."""
    cell = measured_memory(row, table)
    return None if cell is None else scaled(cell, 1 / GIB)


def peak_in_gib(record: TrialRecord, table: Table) -> float | None:
    """Returns the trial's peak memory in training, in GiB."""
    peak = getattr((record.memory or {}).get("training"), table.memory_measure or "", None)
    return None if peak is None else peak / GIB


def training_speed(row: Row) -> Cell | None:
    """Returns the row's images per second in training."""
    return row.cells.get("timing.train_images_per_second")


def scaled(cell: Cell, factor: float) -> Cell:
    """Returns a cell in another unit."""
    deviation = None if cell.deviation is None else cell.deviation * factor
    return replace(cell, mean=cell.mean * factor, deviation=deviation)


def accuracy_label(table: Table) -> str:
    """Returns the name of the table's main metric."""
    metric = table.main_metric
    return AXIS_LABELS.get(metric, METRICS[metric].label)


def memory_label(table: Table) -> str:
    """Returns the name of the table's measure of memory, with its unit."""
    return f"peak memory [GiB]: {measure_of(table.memory_measure).short}"


def line_look(number: int) -> dict:
    """Returns colour, marker and line style of a curve by its number; consecutive curves differ in all three."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def legend_height(lines: int, size: float) -> float:
    """Returns the height in inches of a legend of ``lines`` lines."""
    return 0.1 + lines * size * 1.4 / 72
