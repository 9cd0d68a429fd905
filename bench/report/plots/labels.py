"""Names beside points, placed so that none covers a point or another name; the same points give the same places.

adjustText is no replacement: with 30 names some overlap, and its result depends on a time limit.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from bench.report.plots.style import LINE, text_width

Place = tuple[float, float]
REACHES = (7, 11, 16, 23, 32, 44, 60, 80, 105)  # distances of a name from its point, in points of 1/72 inch
DIRECTIONS = [math.radians(angle) for angle in (20, -20, 160, -160, 90, -90, 50, -50, 130, -130, 0, 180)]
MARKER = 5  # half the size of a marker, in points, and a margin
LINKED = 12  # distance from which a thin line joins a name and its point
INK_COST = 6  # cost of covering one piece of a line, in points of distance


def label(
    axes: Axes,
    names: Sequence[str],
    ink: Sequence[tuple[float, float]],
    size: float,
    reach: int = 5,
    texts: Sequence[tuple[float, float]] = (),
) -> bool:
    """Writes ``names`` beside the first points of ``ink``, all or none; returns whether all found a place.

    The layout must be final. ink: places in data coordinates where something is drawn, the named points first. A name
    covers no point and no other name, and as few pieces of lines as possible. reach: number of ``REACHES`` to try; texts:
    places of other texts, which no name covers.
    """
    scale = 72 / axes.figure.dpi
    drawn = axes.transData.transform(np.asarray(ink, float)) * scale
    frame = axes.get_window_extent().extents * scale
    points, lines = drawn[: len(names)], drawn[len(names) :]
    others = axes.transData.transform(np.asarray(texts, float)) * scale if len(texts) else np.empty((0, 2))
    taken = np.vstack([points, others])
    boxes = np.empty((0, 4))
    offsets: dict[int, tuple[float, float]] = {}
    for i in sorted(range(len(names)), key=lambda i: (_room(points, i), i)):
        half = np.array([72 * text_width(names[i], size) / 2 + 1, size * LINE / 2])
        found = []
        for distance in REACHES[:reach]:
            for rank, angle in enumerate(DIRECTIONS):
                toward = np.array([math.cos(angle), math.sin(angle)])
                centre = points[i] + toward * distance + np.array([np.sign(round(toward[0], 6)), 0]) * half
                box = np.concatenate([centre - half, centre + half])
                if _fits(box, frame, taken, boxes):
                    cost = distance + rank / 4 + INK_COST * _inside(box, lines)
                    found.append((cost, rank, tuple(centre - points[i]), box))
        if not found:
            return False
        _, _, offsets[i], box = min(found, key=lambda place: place[:2])
        boxes = np.vstack([boxes, box])
    for i, (dx, dy) in sorted(offsets.items()):
        far = math.hypot(max(0, abs(dx) - 36 * text_width(names[i], size)), dy) > LINKED
        link = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3} if far else None
        place = {"ha": "center", "va": "center", "textcoords": "offset points", "zorder": 4}
        axes.annotate(names[i], ink[i], (dx, dy), fontsize=size, arrowprops=link, **place)
    return True


def pieces(start: Place, end: Place, count: int = 24) -> list[Place]:
    """Returns places along a line, as ink for ``label``."""
    return [tuple(a + (b - a) * k / count for a, b in zip(start, end)) for k in range(count + 1)]


def pieces_of_steps(corners: Sequence[Place]) -> list[Place]:
    """Returns places along a line of steps, as ``Axes.step`` draws it with ``where="post"``."""
    found: list[Place] = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:]):
        found += pieces((x0, y0), (x1, y0)) + pieces((x1, y0), (x1, y1))
    return found


def pieces_of_intervals(
    axes: Axes, places: Sequence[Place], across: Sequence[float], up: Sequence[float]
) -> list[Place]:
    """Returns places along the intervals around ``places`` within the frame. across, up: half of their lengths."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    found: list[Place] = []
    for (x, y), dx, dy in zip(places, across, up):
        found += pieces((max(left, x - dx), y), (min(right, x + dx), y)) if dx else []
        found += pieces((x, max(low, y - dy)), (x, min(high, y + dy))) if dy else []
    return found


def _room(points: np.ndarray, i: int) -> float:
    """Returns the distance to the nearest other point; points with the least room get their names first."""
    others = np.delete(points, i, axis=0)
    return float(np.hypot(*(others - points[i]).T).min()) if len(others) else 0.0


def _fits(box: np.ndarray, frame: np.ndarray, points: np.ndarray, boxes: np.ndarray) -> bool:
    """Returns whether a box lies in the frame and covers no point and no other box."""
    inside = (box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all()
    wide = box + np.array([-1, -1, 1, 1]) * MARKER
    beside = ((box[:2] >= boxes[:, 2:]) | (box[2:] <= boxes[:, :2])).any(axis=1)
    return bool(inside and beside.all() and not _inside(wide, points))


def _inside(box: np.ndarray, points: np.ndarray) -> int:
    """Returns the number of points inside a box."""
    return int(((points > box[:2]) & (points < box[2:])).all(axis=1).sum()) if len(points) else 0
