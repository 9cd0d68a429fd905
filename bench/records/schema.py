"""Which version of their layout the suite's files have, and what a file from the future is: left alone.

Records, external records and ``sweep.json`` share one number. A newer version may mean something else by the same
field, so nothing of its files is read, set aside or run again here.
"""

import json
from pathlib import Path

from bench.system.files import read_regular

VERSION = 1


class NewerVersion(Exception):
    """A file that a newer version of the suite wrote, in a line; ``reason`` is the line without its path."""

    def __init__(self, path: Path, version: float) -> None:
        self.reason = (
            f"written by a newer version of the suite (schema {version}, this one knows {VERSION}); update the suite"
        )
        super().__init__(f"{path}: {self.reason}")


def read(path: Path) -> bytes:
    """The content of one of these files. Raises ``OSError``, and ``NewerVersion`` for a file from the future; whether
    it is sound is for its own reader to say."""
    content = read_regular(path)
    try:
        version = json.loads(content).get("schema_version")
    except (ValueError, AttributeError, RecursionError):  # no JSON, or no mapping
        return content
    if isinstance(version, int | float) and version > VERSION:
        raise NewerVersion(path, version)
    return content


def newer(path: Path) -> str:
    """A line about a file that a newer version wrote; empty for any other."""
    try:
        read(path)
    except NewerVersion as error:
        return str(error)
    except OSError:
        pass
    return ""


def newer_in(*folders: Path) -> list[str]:
    """A line for each JSON file right in these folders that a newer version wrote."""
    return [line for folder in folders for path in sorted(folder.glob("*.json")) if (line := newer(path))]
