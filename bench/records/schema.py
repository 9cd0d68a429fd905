"""The version of the layout of records, external records and ``sweep.json``, which share one number.

A newer version may give a field another meaning. So this version neither reads its files nor replaces them.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from bench.config.errors import explain
from bench.system.files import read_regular
from models.core.registry import Config

VERSION = 1


class NewerVersion(Exception):
    """A newer version of the suite wrote the file. ``reason`` is the message without the path."""

    def __init__(self, path: Path, version: float) -> None:
        self.reason = (
            f"written by a newer version of the suite (schema {version}, this one knows {VERSION}); update the suite"
        )
        super().__init__(f"{path}: {self.reason}")


def read(path: Path) -> bytes:
    """Returns the content of such a file. Raises ``OSError`` and ``NewerVersion``; checks nothing else."""
    content = read_regular(path)
    try:
        version = json.loads(content).get("schema_version")
    except (ValueError, AttributeError, RecursionError):  # no JSON, or no mapping
        return content
    if isinstance(version, int | float) and version > VERSION:
        raise NewerVersion(path, version)
    return content


def unreadable(error: ValidationError, cls: type[Config]) -> str:
    """Returns why a file holds none of ``cls``: the first error, and the number of the others."""
    first, *others = explain(error, cls, None)
    return f"{first}; and {len(others)} more" if others else first


def newer(path: Path) -> str:
    """Returns a line about a file that a newer version wrote; an empty text for any other file."""
    try:
        read(path)
    except NewerVersion as error:
        return str(error)
    except OSError:
        pass
    return ""


def newer_in(*folders: Path) -> list[str]:
    """Returns a line for each JSON file in these folders that a newer version wrote."""
    lines = []
    for folder in folders:
        lines += [newer(path) for path in sorted(folder.glob("*.json"))]
    return [line for line in lines if line]
