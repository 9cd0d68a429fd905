"""Overrides from the command line: key=value texts that change a profile of a sweep file."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.config.errors import _short
from bench.config.yaml_file import BadYaml, parse


def _override(settings: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Applies ``key=value`` texts to a profile in place; returns what was wrong with them.

    A key is a path below ``base``, or ``seeds``, or ``name``, or ``search`` and paths below it. The path of an axis
    replaces the axis's values. Their order does not matter: two that set the same field are an error.
    """
    errors, changes, texts = [], {}, {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
            errors.append(
                f"  {_short(text)} is no override. They look like train.epochs=5 or model.adapter.rank=[8,32]"
            )
            continue
        try:
            parsed = parse(value)
        except BadYaml as error:
            errors.append(f"  {key}: {_short(value)} is no YAML value ({error})")
            continue
        if key in ("search", "search.early_stopping") and isinstance(parsed, str):
            key += ".name"
        texts.setdefault(key, []).append(text)
        changes[key] = parsed
    if unclear := list(_unclear(texts, settings["axes"])):
        return [*errors, *unclear]
    if {"dataset.images", "dataset.masks"} & changes.keys():  # paths alone are enough to ask for a folder of pairs
        changes = {"dataset.name": "folder", **changes}
    for key, value in sorted(changes.items(), key=lambda item: _place(item[0])):
        if key in ("seeds", "name", "track"):
            single = (key == "seeds" and type(value) is int) or (key == "track" and isinstance(value, str))
            settings[key] = [value] if single else value
        elif key.partition(".")[0] == "search":
            _set_search(settings, key.split("."), value)
        elif key in settings["axes"]:
            settings["axes"][key] = value if isinstance(value, list | dict) else [value]
        else:
            errors += _set(settings["base"], key.split("."), value)
    return errors


def _unclear(texts: Mapping[str, Sequence[str]], axes: Mapping[str, Any]) -> Iterator[str]:
    """A line for each two overrides, by key, of which the later one would win.

    They have one key, or one sets a mapping that the other's field lies in. An axis's values lie in no mapping.
    """
    for key, of_key in texts.items():
        for text in of_key[1:]:
            yield f"  {_short(of_key[0])} and {_short(text)} set the same field. Give one of them"
        for above in itertools.accumulate(key.split(".")[:-1], "{}.{}".format):
            if above in texts and not {key, above} & axes.keys():
                remedy = "Give one mapping, or single fields, as in model.name=unet model.width=8"
                yield f"  {_short(of_key[0])} and {_short(texts[above][0])} set the same field. {remedy}"


def _place(key: str) -> tuple[bool, int]:
    """In which order overrides are applied: names first, as they start their mapping afresh, and outer ones before."""
    path = key.split(".")
    return path[-1] != "name", len(path)


def _set_search(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a value of the search. Unlike elsewhere, a new name leaves budgets and early stopping as they are."""
    if path == ["search"] and isinstance(value, str):
        path = ["search", "name"]
    *parents, last = path
    node = settings
    for parent in parents:
        if isinstance(node.get(parent), str):
            node[parent] = {"name": node[parent]}
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value


def _set(node: dict[str, Any], path: list[str], value: Any) -> list[str]:
    """Sets a value in nested mappings; returns why it could not. A new ``name`` starts its mapping afresh: the old
    entry's settings are gone."""
    *parents, last = path
    for depth, parent in enumerate(parents, start=1):
        if isinstance(node.get(parent), str):
            node[parent] = {"name": node[parent]}
        if node.get(parent) is None:
            node[parent] = {}
        if not isinstance(node[parent], dict):
            return [f"  {'.'.join(path)}: {'.'.join(path[:depth])} is {_short(node[parent])}, which has no fields"]
        node = node[parent]
    if last == "name" and node.get("name") != value:
        node.clear()
    node[last] = value
    return []
