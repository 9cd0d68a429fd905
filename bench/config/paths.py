"""Dotted paths into nested mappings: ``model.adapter.rank`` is the key ``rank`` of ``adapter``, a part of ``model``."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ABSENT = object()
"""The value at a path that the mapping does not have."""


def get(tree: Mapping[str, Any], path: str) -> Any:
    """Returns the value at a path, or ``ABSENT``."""
    node: Any = tree
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node


def parent(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the mapping that holds the last key of a path; an empty one where ``tree`` has no such mapping."""
    above = path.rpartition(".")[0]
    node = get(tree, above) if above else tree
    return node if isinstance(node, dict) else {}


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a path, in place; makes the mappings that are missing on the way."""
    *above, last = path.split(".")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = value


def prefixes(path: str) -> Iterator[str]:
    """Yields the paths above a path: ``a`` and ``a.b`` for ``a.b.c``."""
    for end, character in enumerate(path):
        if character == ".":
            yield path[:end]


def within(path: str, other: str) -> bool:
    """Whether ``path`` equals ``other`` or lies below it."""
    return f"{path}.".startswith(f"{other}.")


def overlap(paths: Iterable[str], others: Iterable[str]) -> bool:
    """Whether one path of the first group and one of the second set the same field."""
    for path in paths:
        for other in others:
            if within(path, other) or within(other, path):
                return True
    return False


def flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by their dotted paths. An empty mapping is a value."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            values |= flatten(value, f"{above}{key}.")
        else:
            values[f"{above}{key}"] = value
    return values
