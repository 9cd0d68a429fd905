"""Overrides from the command line: ``key=value`` texts that change a profile of a sweep file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.config import paths
from bench.config.axes import is_coupled
from bench.config.errors import shortened
from bench.config.tune import SEEDS
from bench.config.yaml_file import BadYaml, parse

KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


def apply_overrides(settings: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Changes the settings of a profile in place; returns a line for each mistake.

    A key is a path below ``base``, or ``seeds``, ``name``, ``track``, ``ask``, ``margin``, or ``search`` and paths
    below it. ``ask.reference`` and ``ask.margin`` are short for ``ask={reference: ...}`` and ``margin``. Further keys
    are ``tune`` and a tuned field below it. The path of an axis replaces the values of the axis. The order of the texts
    does not matter: two that set one field are an error.
    """
    values: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    errors = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not KEY.fullmatch(key):
            example = "They look like train.epochs=5 or model.adapter.rank=[8,32]"
            errors.append(f"  {shortened(text)} is no override. {example}")
            continue
        try:
            parsed = parse(value)
        except BadYaml as error:
            errors.append(f"  {key}: {shortened(value)} is no YAML value ({error})")
            continue
        if key in ("search", "search.early_stopping") and isinstance(parsed, str):
            key += ".name"
        elif key == "ask.reference":
            key, parsed = "ask", {"reference": parsed}
        elif key == "ask.margin":
            key = "margin"
        elif key.startswith("ask."):
            errors.append(f"  {key}: no such setting. Give ask=trend, ask=best, ask.reference=LABEL, or margin=NUMBER")
            continue
        texts.setdefault(key, []).append(text)
        values[key] = parsed
    conflicts = list(_conflicts(texts, settings["axes"]))
    conflicts += _without_effect(values, settings)
    if conflicts:
        return [*errors, *conflicts]
    if "dataset.images" in values or "dataset.masks" in values:  # the two folders alone ask for the dataset ``folder``
        values.setdefault("dataset.name", "folder")
    for key in sorted(values, key=_order):
        errors += _apply(settings, key, values[key])
    return [*errors, *_of_tuned_fields(settings, texts, values)]


def _of_tuned_fields(
    settings: Mapping[str, Any], texts: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> Iterator[str]:
    """Yields a line for each override of a field whose value the sweep chooses itself."""
    tuned: dict[str, str] = {}  # the field of tune that sets each field
    for field, values in settings["tune"].items() if isinstance(settings["tune"], Mapping) else ():
        coupled = values["with"] if is_coupled(values) and isinstance(values["with"], Mapping) else {}
        tuned |= {str(path): str(field) for path in (*coupled, field) if field != SEEDS}
    for key, (text, *_) in texts.items():
        for path in _set_by(key, given[key]) if key not in settings["axes"] else ():
            if path in tuned:
                remedy = f"Give tune=null as well, or other values, as in 'tune.{tuned[path]}=[A, B]'"
                where = "" if path == key else f" at {path}"
                yield f"  {shortened(text)} would change nothing{where}: the sweep tunes {path}. {remedy}"


def _set_by(key: str, value: Any) -> Iterator[str]:
    """Yields the fields that an override sets: its key, and those in its mapping, however deep."""
    yield key
    for inner, below in value.items() if isinstance(value, Mapping) else ():
        yield from _set_by(f"{key}.{inner}", below)


def _conflicts(texts: Mapping[str, Sequence[str]], axes: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each two overrides that set the same field, of which the later one would win.

    Their keys are equal, or one sets a mapping that holds the field of the other. Values of an axis are no mapping.
    """
    for key, of_key in texts.items():
        for text in of_key[1:]:
            yield f"  {shortened(of_key[0])} and {shortened(text)} set the same field. Give one of them"
        for above in paths.prefixes(key):
            if above in texts and key not in axes and above not in axes:
                remedy = "Give one mapping, or single fields, as in model.name=unet model.width=8"
                yield f"  {shortened(of_key[0])} and {shortened(texts[above][0])} set the same field. {remedy}"


def _without_effect(values: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each override of a field that an axis sets at all of its points, and for new values of an axis
    that lack those of the fields coupled with it."""
    for key, value in values.items():
        coupled = settings["axes"].get(key)
        if is_coupled(coupled) and isinstance(coupled["with"], Mapping) and not is_coupled(value):
            others = ", ".join(f"{other}: [...]" for other in coupled["with"])
            remedy = f"Give theirs, too, as in {key}='{{values: [...], with: {{{others}}}}}'"
            yield f"  {key}: its values belong to those of {', '.join(coupled['with'])}. {remedy}"
    given_fields = {
        field for key, value in values.items() if key not in settings["axes"] for field in _set_by(key, value)
    }
    for axis, before in settings["axes"].items():
        given = values.get(axis, before)
        if is_coupled(given) and isinstance(given["with"], Mapping):
            for other in sorted(given_fields & given["with"].keys()):
                yield f"  {other}: the axis {axis} sets it at each of its values. Change the axis instead"


def _order(key: str) -> tuple[bool, int]:
    """Sorts names first, because a new name replaces its mapping, and outer mappings before inner ones."""
    path = key.split(".")
    return path[-1] != "name", len(path)


def _apply(settings: dict[str, Any], key: str, value: Any) -> list[str]:
    """Applies one override; returns a line if it cannot be applied."""
    if key in ("seeds", "name", "track", "ask", "margin", "tune"):
        is_single = (key == "seeds" and type(value) is int) or (key == "track" and isinstance(value, str))
        settings[key] = [value] if is_single else value
        return []
    if paths.within(key, "tune"):
        tuned = settings["tune"] if isinstance(settings["tune"], dict) else {}
        settings["tune"] = tuned | {key.removeprefix("tune."): value}
        return []
    if paths.within(key, "search"):  # a new method keeps budgets and early stopping
        return _set(settings, key, value, name_replaces=False)
    if key in settings["axes"]:
        settings["axes"][key] = value if isinstance(value, list | dict) else [value]
        return []
    return _set(settings["base"], key, value, name_replaces=True)


def _set(tree: dict[str, Any], path: str, value: Any, name_replaces: bool) -> list[str]:
    """Sets a value in nested mappings; returns a line if it lies in something that has no fields.

    name_replaces: a new ``name`` removes the other settings of its mapping, which are those of another entry.
    """
    *above, last = path.split(".")
    node = tree
    for depth, key in enumerate(above, start=1):
        if node.get(key) is None:
            node[key] = {}
        if isinstance(node[key], str):  # a bare name
            node[key] = {"name": node[key]}
        if not isinstance(node[key], dict):
            return [f"  {path}: {'.'.join(above[:depth])} is {shortened(node[key])}, which has no fields"]
        node = node[key]
    if name_replaces and last == "name" and node.get("name") != value:
        node.clear()
    node[last] = value
    return []
