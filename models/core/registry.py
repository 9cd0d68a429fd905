"""A folder is a registry: ``models/decoders/light_unet.py`` *is* the decoder ``light_unet``.

An entry is a module with a ``Config`` (a frozen pydantic model whose ``name`` is the file's name) and a ``build``
function. It is imported only when a configuration names it, so an entry may need packages that others do not need.
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
    """An item that a trial needs and this machine lacks."""

    kind: str  # "weights", "data", "device", "package", "folder", "NVML" or "version"
    field: str  # dotted path of the config field that asks for it
    what: str  # what is not there, and where it was looked for
    remedy: str  # how to get it and where to put it


class Config(BaseModel):
    """Base of every configuration: immutable, with strict types and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    embedded: ClassVar[bool] = False
    """True for stand-ins that ship with the suite (tiny encoder, painted data). Tables and plots label them."""
    shapeless: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not affect the shapes of a model's tensors, nor whether the model can be built."""
    any_aspect: ClassVar[bool] = False
    """True for encoders, and models without one, whose ``build`` also takes (height, width) instead of one side."""

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
        """Returns a value that is equal for configurations whose models have tensors of the same names and shapes."""
        known = {name: getattr(self, name) for name in type(self).model_fields if name not in self.shapeless}
        return {name: value.shape() if isinstance(value, Config) else value for name, value in known.items()}

    def missing(self) -> Iterator[Missing]:
        """Yields the items that this configuration needs and this machine lacks. Called before any trial starts."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Config):
                yield from (item._replace(field=f"{name}.{item.field}") for item in value.missing())

    def weight_files(self) -> Iterator[Path]:
        """Yields the files of pretrained weights that a model of this configuration loads."""
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
        """Returns the names of all entries, without importing them."""
        return list(self._names)

    @cached_property
    def _names(self) -> list[str]:
        spec = importlib.util.find_spec(self.package)
        assert spec and spec.submodule_search_locations, f"{self.package} is not a package"
        files = Path(spec.submodule_search_locations[0]).glob("*.py")
        return sorted(f.stem for f in files if not f.stem.startswith("_"))

    def module(self, name: str) -> ModuleType:
        """Returns the module of an entry. Raises an error with the nearest name if there is none."""
        names = self.names()
        if name not in names:
            raise PydanticCustomError(
                "unknown_entry",
                "unknown {noun} '{entry}'{hint} Available: {names}",
                {"noun": self.noun, "entry": name, "hint": did_you_mean(name, names), "names": ", ".join(names)},
            )
        return importlib.import_module(f"{self.package}.{name}")

    def parse(self, value: Any) -> Config:
        """Validates ``{name: ..., ...}``, or a bare name, as the ``Config`` of the entry."""
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
        module = self.module(value["name"])
        found = getattr(module, "Config", None)
        if not (isinstance(found, type) and issubclass(found, Config)):
            raise PydanticCustomError(
                "no_config",
                "the file {file} needs a class Config that inherits from models.core.registry.Config",
                {"file": str(module.__file__)},
            )
        return found.model_validate(value)

    def field(self) -> Any:
        """Returns the type of a field that holds the configuration of an entry."""
        return Annotated[SerializeAsAny[Config], BeforeValidator(self.parse), self]

    def name_field(self) -> Any:
        """Returns the type of a field that holds the name of an entry without settings of its own."""
        return Annotated[str, AfterValidator(self._existing)]

    def _existing(self, name: str) -> str:
        self.module(name)
        return name

    def build(self, config: Config, *args: Any) -> Any:
        """Calls the ``build`` of the entry that ``config`` belongs to."""
        return importlib.import_module(type(config).__module__).build(config, *args)


def did_you_mean(name: str, names: list[str]) -> str:
    """Returns the end of a sentence about an unknown name: a question with the nearest known name, or a full stop."""
    close = get_close_matches(name, names, n=1)
    return f". Did you mean '{close[0]}'?" if close else "."
