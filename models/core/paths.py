"""Paths with variables and ``~``, and the folder of this machine's caches.

A configuration keeps the text that a user wrote, so that it is the same trial on every machine. ``expanded`` is called
where a path is opened.
"""

import os
import re
from pathlib import Path

CACHE = "SAM3_BENCH_CACHE"


class NoCacheFolder(RuntimeError):
    """No folder of caches can be determined; the text is one line with the remedy."""


def variable(name: str) -> str | None:
    """Returns the value of an environment variable; ``None`` if it is not set or empty."""
    return os.environ.get(name) or None


def expanded(path: str | Path) -> Path:
    """Replaces variables (``$HOME``, ``${HOME}``) and a leading ``~`` in a path by their values on this machine.

    A variable that is not set or empty stays as it is written, so that a message about the path shows it.
    """
    text = re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: variable(found[1] or found[2]) or found[0], str(path))
    return Path(os.path.expanduser(text))


def given_by(name: str) -> Path | None:
    """Returns the expanded path in an environment variable; ``None`` if it is not set or empty."""
    text = variable(name)
    return None if text is None else expanded(text)


def cache_folder() -> Path:
    """Returns ``$SAM3_BENCH_CACHE``, or ``sam3-bench`` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache).

    Raises ``NoCacheFolder`` where a variable in it has no value, or the user has no home directory.
    """
    own = given_by(CACHE)
    users = given_by("XDG_CACHE_HOME") or expanded("~/.cache")
    folder = own or users / "sam3-bench"
    if lacking := re.search(r"^~[^/]*|\$\w+|\$\{\w+\}", str(folder)):
        what = f"{folder}: the folder of caches cannot be found, {lacking[0]} stands for nothing here"
        raise NoCacheFolder(f"{what}. Set {CACHE} to a folder with room")
    return folder
