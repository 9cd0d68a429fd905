"""Dotted paths into nested mappings: ``model.adapter.rank`` is the key ``rank`` of ``adapter``, a part of ``model``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of ``other`` that differ from ``base``, by dotted path. A part with another name is one value."""
    differing: dict[str, Any] = {}
    for key, value in other.items():
        before = base.get(key)
        if value == before and key in base:
            continue
        if (
            _is_part(value)
            and _is_part(before)
            and value.get("name") == before.get("name")
            and value.keys() == before.keys()
        ):
            for path, inner in changes(before, value).items():
                differing[f"{key}.{path}"] = inner
        else:
            differing[key] = value
    return differing


def varied(configs: Sequence[Mapping[str, Any]], within: str = "") -> Iterator[str]:
    """Yields the dotted paths at which configurations differ, in their order.

    Parts of different names differ as a whole; parts of one name differ in their fields.
    """
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config[key] for config in configs if key in config]
        if len(values) == len(configs) and all(value == values[0] for value in values):
            continue
        parts = [value for value in values if _is_part(value)]
        if len(parts) < len(values) or len({part.get("name") for part in parts}) > 1:
            yield f"{within}{key}"
        kinds: dict[Any, list[dict]] = {}
        for part in parts:
            kinds.setdefault(part.get("name"), []).append(part)
        inner = [path for same in kinds.values() for path in varied(same, f"{within}{key}.")]
        yield from dict.fromkeys(inner)


def _is_part(value: Any) -> bool:
    """Whether dotted paths can name the fields of a value. The keys of some mappings are file names with dots."""
    return isinstance(value, dict) and not any("." in key for key in value)
