"""The fonts of figures: matplotlib's own font, and fonts of this machine for characters that it lacks.

A character that no font has would be drawn as a box, and all boxes look alike. Figures have its number in Unicode in its
place, as in [U+4E2D], and their small print says so.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import groupby

import matplotlib
from fontTools import subset
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from bench.leaderboard.leaderboard import Leaderboard
from bench.system.sanitize import INVISIBLE, harmless

SHOWN = 10  # most characters that a message names
LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "BASE", "JSTF", "kern")
JOINERS = "\u200c\u200d"  # invisible characters that scripts and emoji need
_lacking: ContextVar[str] = ContextVar("lacking", default="")
"""Characters of the present figures that no font has."""


def texts_of(board: Leaderboard) -> list[str]:
    """Returns the texts that figures take from a leaderboard."""
    rows = [row for table in board.tables for row in table.rows]
    environments = [value for table in board.tables for value in table.environment.values()]
    labels = [label for row in rows for label in row.labels]
    published = [row.result.method for row in board.beside.published]
    texts = [board.name, board.question, board.profile, board.settings, *board.axes]
    return [*texts, *environments, *published, *labels]


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Selects the installed fonts that these texts need, for all figures that the body draws.

    Characters that no font has are replaced (``drawable``).
    """
    more, lacking = _chosen("".join(texts))
    families = [*matplotlib.rcParams["font.family"], *more]
    before = _lacking.set(lacking)
    try:
        with matplotlib.rc_context({"font.family": families} if more else {}):
            yield
    finally:
        _lacking.reset(before)


@contextmanager
def lean_fonts() -> Iterator[None]:
    """Leaves out the tables of fonts that place and join glyphs: a PDF has them placed and joined already.

    Reading these tables takes half of the time of a PDF, and matplotlib has no setting for it.
    """
    every = subset.Options._drop_tables_default
    subset.Options._drop_tables_default = [*every, *LAYOUT_TABLES]
    try:
        yield
    finally:
        subset.Options._drop_tables_default = every


def drawable(text: str) -> str:
    """Returns the text with the Unicode numbers of the characters that no font has, as in ``[U+4E2D U+6587]``.

    Control characters are escaped.
    """
    text, lacking = harmless(text, keep=f"\n{JOINERS}"), _lacking.get()
    if not any(character in lacking for character in text):
        return text
    parts = []
    for wanting, run in groupby(text, key=lambda character: character in lacking):
        parts.append(_numbered(run) if wanting else "".join(run))
    return "".join(parts)


def _numbered(characters: Iterable[str]) -> str:
    return f"[{' '.join(f'U+{ord(character):04X}' for character in characters)}]"


def replaced_in_words() -> str:
    """Returns what the numbers of ``drawable`` mean, for the small print; empty if all characters can be drawn."""
    return "[U+...]: characters that no font on this machine has" if _lacking.get() else ""


def undrawable(texts: Iterable[str]) -> str:
    """Returns a line about the characters that no installed font has; empty if all can be drawn."""
    _, lacking = _chosen("".join(texts))
    if not lacking:
        return ""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    what = f"no font on this machine has {', '.join(lacking[:SHOWN])}{more}"
    return f"{what}; figures show their numbers, as in {_numbered(lacking[0])}. Install one, such as Noto, and run bench.report"


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
