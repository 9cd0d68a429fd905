"""Errors in the input of a user, and the lines that describe them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from models.core.registry import Config, Registry, did_you_mean

MOST_ERRORS = 50
"""Maximum number of errors that are printed."""


class ConfigError(ValueError):
    """Mistakes in the input, one line each. A command prints them without a traceback and ends with exit code 2."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def explain(error: ValidationError, cls: type[Config], raw: Any) -> list[str]:
    """Returns a line for each error that pydantic found: where, what came, what is allowed, the nearest remedy."""
    return [_line(found, cls, raw) for found in error.errors(include_url=False)]


def _line(found: Any, cls: type[Config], raw: Any) -> str:
    location, kind, context = found["loc"], found["type"], found.get("ctx", {})
    where = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        fields = _fields_at(cls, raw, location[:-1])
        return f"{where}: unknown key{did_you_mean(str(location[-1]), fields)} Allowed: {', '.join(fields)}"
    if kind == "missing":
        return f"{where}: is missing"
    head = f"{where}: " if where else ""  # an error of the whole input has no place
    if kind == "json_invalid":
        return f"{head}no JSON, {context['error']}"
    text = found["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if kind == "literal_error":
        text = re.sub(r"\b(False|True)\b", lambda found: found[0].lower(), text)  # as YAML writes them
    if kind == "value_error" and re.split(r"[:.]", text)[0] in _fields_at(cls, raw, location):
        head = f"{where}." if where else ""  # a validator of the whole part names the field itself
    if kind == "multiple_of" and isinstance(found["input"], int):
        step = int(context["multiple_of"])
        low = found["input"] // step * step
        text += f", e.g. {', '.join(str(n) for n in (low, low + step) if n > 0)}"
    if isinstance(found["input"], dict | Config):
        return f"{head}{text}"
    axis = ". Several values are an axis: list them under axes" if isinstance(found["input"], list) else ""
    return f"{head}{text} (got {shortened(found['input'])}){axis}"


def shortened(value: Any) -> str:
    """Returns what a user typed, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(cls: type[Config], raw: Any, location: Sequence[str | int]) -> list[str]:
    """Returns the names of the fields at ``location``; ``raw`` names the entries of registries on the way."""
    for part in location:
        field = cls.model_fields.get(str(part))
        raw = raw.get(part) if isinstance(raw, Mapping) else None
        if field is None:  # a key of a plain mapping, such as a profile's name
            continue
        registry = next((m for m in field.metadata if isinstance(m, Registry)), None)
        if registry is None:
            inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
            cls = next((a for a in inner if issubclass(a, Config)), cls)
        elif isinstance(raw, Mapping) and "name" in raw or isinstance(raw, str):
            cls = registry.module(raw if isinstance(raw, str) else raw["name"]).Config
        elif isinstance(field.default, Config):
            cls = type(field.default)
    return list(cls.model_fields)
