"""Progress of long loops."""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps the items of a loop of known length and shows its progress."""


def silent(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Returns the items; this ``Progress`` shows nothing."""
    return items
