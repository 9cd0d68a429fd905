"""The fonts of figures: matplotlib's own font, and fonts of this machine for characters that it lacks.

A character that no font has is drawn as a box. matplotlib warns of it each time it measures or draws the text.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from bench.leaderboard.leaderboard import Leaderboard
from bench.system.sanitize import INVISIBLE

SHOWN = 10  # most characters that a message names


def texts_of(board: Leaderboard) -> list[str]:
    """Returns the texts that figures take from a leaderboard."""
    rows = [row for table in board.tables for row in table.rows]
    environments = [value for table in board.tables for value in table.environment.values()]
    labels = [label for row in rows for label in row.labels]
    return [board.name, board.question, board.profile, board.settings, *board.axes, *environments, *labels]


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Selects the installed fonts that these texts need, for all figures that the body draws."""
    more, _ = _chosen("".join(texts))
    families = [*matplotlib.rcParams["font.family"], *more]
    with matplotlib.rc_context({"font.family": families} if more else {}):
        yield


def undrawable(texts: Iterable[str]) -> str:
    """Returns a line about the characters that no installed font has; empty if all can be drawn."""
    _, lacking = _chosen("".join(texts))
    if not lacking:
        return ""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    what = f"no font on this machine has {', '.join(lacking[:SHOWN])}{more}"
    return f"{what}; figures show boxes in their place. Install one, such as Noto, and run bench.report"


@cache
def _chosen(text: str) -> tuple[tuple[str, ...], str]:
    """Returns the font families that are needed, and the characters that no family has.

    The family that adds most characters is the first.
    """
    own = get_font(findfont(FontProperties())).get_charmap()
    seen = (c for c in dict.fromkeys(text) if unicodedata.category(c) not in INVISIBLE)
    lacking = {c for c in seen if ord(c) not in own}
    families: list[str] = []
    while lacking:
        found = {family: _drawn(path, lacking) for family, path in _installed().items()}
        best = max(sorted(found), key=lambda family: len(found[family]), default=None)
        if best is None or not found[best]:
            break
        families.append(best)
        lacking -= found[best]
    return tuple(families), "".join(c for c in dict.fromkeys(text) if c in lacking)


def _installed() -> dict[str, str]:
    """Returns the files of upright fonts by family, without last-resort fonts, which draw boxes for all characters."""
    upright = [e for e in fontManager.ttflist if e.style == "normal" and not e.name.startswith("Last Resort")]
    return {entry.name: entry.fname for entry in sorted(upright, key=lambda e: (-abs(e.weight - 400), e.fname))}


def _drawn(path: str, characters: set[str]) -> set[str]:
    """Returns the characters that a font can draw."""
    try:
        font = get_font(path)
        known = font.get_charmap()
        found = {c for c in characters if ord(c) in known}
        for character in found:
            font.load_char(ord(character))
    except (OSError, RuntimeError, ValueError):  # a damaged font, or one of bitmaps, as for emoji
        return set()
    return found
