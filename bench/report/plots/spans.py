"""The ends of axes: around means, seeds and intervals, and never narrower than the measurement can resolve."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from bench.leaderboard.leaderboard import Cell, Leaderboard

WIDEST = 2.0
"""Longest axis that intervals may ask for, in spans of means and seeds; longer intervals are cut and get arrows."""
SPEED_SHARE = 0.05
"""Shortest axis of speed, as a share of the highest speed: other programs on the machine change speeds by as much."""
Span = tuple[float, float]


def limits(cells: Sequence[Cell], seeds: Sequence[float] = (), least: float = 0.0) -> Span:
    """Returns both ends of an axis.

    All means and seeds lie within; intervals, too, unless they ask for more than ``WIDEST`` times their span. The axis
    is at least ``least`` long. Quantities that are never negative have no negative end.
    """
    places = [*(c.mean for c in cells), *seeds]
    low, high = min(places), max(places)
    ends = [end for c in cells for end in _interval(c)]
    if max(ends) - min(ends) <= WIDEST * max(high - low, least):
        low, high = min(low, *ends), max(high, *ends)
    margin = 0.08 * max(high - low, least) or 0.05 * abs(high) or 0.5
    wanting = max(0.0, least - (high - low)) / 2
    low, high = low - margin - wanting, high + margin + wanting
    if low < 0 <= min(places):
        low, high = 0.0, max(high, least)
    return low, high


def is_cut(cells: Iterable[Cell], span: Span) -> bool:
    """Returns whether an interval leaves the axis."""
    return any(low < span[0] or high > span[1] for low, high in map(_interval, cells))


def mark_cuts(axes: Axes, cells: Sequence[Cell], across: Sequence[float], colours: Sequence, along: str) -> None:
    """Draws an arrow at the frame for each end of an interval that leaves the axis ``along`` ("x" or "y").

    across: the places of the cells on the other axis. The limits of the axis must be final.
    """
    span = axes.get_xlim() if along == "x" else axes.get_ylim()
    ends = list(map(_interval, cells))
    cut = ([low < span[0] for low, _ in ends], [high > span[1] for _, high in ends])
    for edge, sign, leaves in zip(span, ("<", ">") if along == "x" else ("v", "^"), cut):
        places = [place for place, leaving in zip(across, leaves) if leaving]
        if places:
            spots = ([edge] * len(places), places) if along == "x" else (places, [edge] * len(places))
            look = {"c": [colour for colour, leaving in zip(colours, leaves) if leaving], "linewidths": 0}
            axes.scatter(*spots, s=25, marker=sign, clip_on=False, zorder=5, gid="cut", **look)


def _interval(cell: Cell) -> Span:
    reach = cell.half_width or 0
    return cell.mean - reach, cell.mean + reach


def spread_in_words(board: Leaderboard, mark: str, cut: bool = False) -> str:
    """Returns the meaning of dots and of bars or bands, for the small print; cut: whether some leave the frame."""
    seeds = len(board.seeds)
    if seeds < 2:
        return "one seed: no spread known"
    arrows = "; arrows: the interval goes on beyond the frame" if cut else ""
    return f"small dots: single seeds; {mark}: 95 % interval of the mean over {seeds} seeds{arrows}"
