"""Which fonts draw the texts of figures: matplotlib's own and, for characters that it lacks, fonts of this machine.

A character that no font has is drawn as a box. matplotlib would warn of it at each measure and each file.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from bench.leaderboard.leaderboard import Leaderboard
from bench.system.sanitize import INVISIBLE

SHOWN = 10


def texts_of(board: Leaderboard) -> list[str]:
    """What figures say of a board and what its user has named."""
    rows = [row for table in board.tables for row in table.rows]
    environments = [value for table in board.tables for value in table.environment.values()]
    labels = [label for row in rows for label in row.labels]
    return [board.name, board.question, board.profile, board.settings, *board.axes, *environments, *labels]


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """What is drawn in the body has the fonts that these texts need, as far as they are installed."""
    more, _ = _chosen("".join(texts))
    families = [*matplotlib.rcParams["font.family"], *more]
    with matplotlib.rc_context({"font.family": families} if more else {}):
        yield


def undrawable(texts: Iterable[str]) -> str:
    """A line about the characters of texts that no installed font has; empty where all can be drawn."""
    _, lacking = _chosen("".join(texts))
    if not lacking:
        return ""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    what = f"no font on this machine has {', '.join(lacking[:SHOWN])}{more}"
    return f"{what}; figures show boxes in their place. Install one, such as Noto, and run bench.report"


@cache
def _chosen(text: str) -> tuple[tuple[str, ...], str]:
    """Families beside the usual one, the one that adds most first; and the characters that none of all has."""
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
    """The file of each family's upright font. Last-resort fonts are left out: they draw boxes for all characters."""
    upright = [e for e in fontManager.ttflist if e.style == "normal" and not e.name.startswith("Last Resort")]
    return {entry.name: entry.fname for entry in sorted(upright, key=lambda e: (-abs(e.weight - 400), e.fname))}


def _drawn(path: str, characters: set[str]) -> set[str]:
    """Which of the characters a font can draw."""
    try:
        font = get_font(path)
        known = font.get_charmap()
        found = {c for c in characters if ord(c) in known}
        for character in found:
            font.load_char(ord(character))
    except (OSError, RuntimeError, ValueError):  # damaged, or of pictures in one size only, as for emoji
        return set()
    return found
