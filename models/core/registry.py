"""A folder is a registry: ``models/decoders/light_unet.py`` *is* the decoder ``light_unet``.

An entry is a module with a ``Config`` (a frozen pydantic model whose ``name`` is the file's name) and a ``build``
function. It is imported only when somebody names it, so an entry may need a package that the others do not.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError


class InvalidModel(ValueError):
    """A configuration that is well formed but cannot be built, e.g. a placement beyond the encoder's depth."""


class Missing(NamedTuple):
    """Something a trial needs and this machine does not have."""

    kind: str  # "weights", "data", "device" or "package"
    field: str  # dotted path of the config field that asks for it
    what: str  # what is not there, and where it was looked for
    remedy: str  # how to get it and where to put it


class Config(BaseModel):
    """Base of every configuration: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    embedded: ClassVar[bool] = False
    """True for stand-ins that ship with the suite (tiny encoder, painted data): tables and plots say so."""
    shapeless: ClassVar[frozenset[str]] = frozenset()
    """Fields on which neither the shapes of a model's tensors depend nor whether it can be built."""
    any_aspect: ClassVar[bool] = False
    """True for encoders, and models without one, whose ``build`` takes (height, width) as well as a square's side."""

    @model_validator(mode="before")
    @classmethod
    def _change_defaults(cls, data: Any) -> Any:
        """A mapping without a name changes the default entry: ``adapter: {rank: 8}`` is still a bottleneck."""
        if not isinstance(data, dict):
            return data
        changes = {}
        for name, field in cls.model_fields.items():
            given = data.get(name)
            if isinstance(field.default, Config) and isinstance(given, dict) and "name" not in given:
                changes[name] = {**field.default.model_dump(), **given}
        return {**data, **changes}

    def shape(self) -> dict[str, Any]:
        """Equal for configurations whose models have tensors of the same names and shapes, trained or not."""
        known = {name: getattr(self, name) for name in type(self).model_fields if name not in self.shapeless}
        return {name: value.shape() if isinstance(value, Config) else value for name, value in known.items()}

    def missing(self) -> Iterator[Missing]:
        """What this configuration needs and does not find; asked before any trial starts."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Config):
                yield from (item._replace(field=f"{name}.{item.field}") for item in value.missing())

    def weight_files(self) -> Iterator[Path]:
        """The checkpoints that a model of this configuration loads."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Config):
                yield from value.weight_files()


class Registry:
    """The entries of one package folder.

    >>> DECODERS = Registry("models.decoders", "decoder")
    >>> DECODERS.parse({"name": "light_unet", "width": 64}).width
    64
    """

    def __init__(self, package: str, noun: str) -> None:
        self.package = package
        self.noun = noun

    def names(self) -> list[str]:
        """Names of all entries, found without importing any of them, once in a process."""
        return list(self._names)

    @cached_property
    def _names(self) -> list[str]:
        spec = importlib.util.find_spec(self.package)
        assert spec and spec.submodule_search_locations, f"{self.package} is not a package"
        files = Path(spec.submodule_search_locations[0]).glob("*.py")
        return sorted(f.stem for f in files if not f.stem.startswith("_"))

    def module(self, name: str) -> ModuleType:
        """The entry's module; an error with the nearest name when there is none."""
        names = self.names()
        if name not in names:
            raise PydanticCustomError(
                "unknown_entry",
                "unknown {noun} '{entry}'{hint} Available: {names}",
                {"noun": self.noun, "entry": name, "hint": did_you_mean(name, names), "names": ", ".join(names)},
            )
        return importlib.import_module(f"{self.package}.{name}")

    def parse(self, value: Any) -> Config:
        """``{name: ..., ...}``, or a bare name, to the entry's validated ``Config``."""
        if isinstance(value, Config):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "no_entry",
                "the {noun} is chosen by its name, as in {example}. Available: {names}",
                {"noun": self.noun, "example": f"{{name: {self.names()[0]}}}", "names": ", ".join(self.names())},
            )
        return self.module(value["name"]).Config.model_validate(value)

    def field(self) -> Any:
        """The type of a config field that holds one of this registry's configs."""
        return Annotated[SerializeAsAny[Config], BeforeValidator(self.parse), self]

    def name_field(self) -> Any:
        """The type of a config field that holds the name of an entry without settings of its own."""
        return Annotated[str, AfterValidator(self._existing)]

    def _existing(self, name: str) -> str:
        self.module(name)
        return name

    def build(self, config: Config, *args: Any) -> Any:
        """Calls the ``build`` of the entry that ``config`` belongs to."""
        return importlib.import_module(type(config).__module__).build(config, *args)


def did_you_mean(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or just a full stop."""
    close = get_close_matches(name, names, n=1)
    return f". Did you mean '{close[0]}'?" if close else "."
