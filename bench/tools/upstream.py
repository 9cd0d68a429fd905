"""The authors' own code of SAM3-UNet, imported from a clone of their repository for comparison."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from bench.config.errors import ConfigError
from models.core.registry import InvalidModel

UPSTREAM = {"SAM3UNet.py": "SAM3UNet", "sam3/model_builder.py": "_setup_tf32"}
"""Names that are used of a clone, by the files that define them."""


def check_upstream(folder: Path, needed: Mapping[str, str]) -> None:
    """Raises ``ConfigError`` unless the folder is a clone of upstream's repository with these files and names."""
    remedy = "Give a clone of github.com/WZH0120/SAM3-UNet"
    for file, name in needed.items():
        if not (folder / file).is_file():
            raise ConfigError(f"--upstream {folder}: has no {file}. {remedy}")
        try:
            found = _definitions(folder / file, name)
        except (OSError, ValueError, SyntaxError) as error:
            raise ConfigError(f"--upstream {folder}: {file} cannot be read ({error}). {remedy}") from None
        if not found:
            raise ConfigError(f"--upstream {folder}: {file} defines no {name}. {remedy}")


def upstream_network(folder: Path, size: int | tuple[int, int]) -> nn.Module:
    """Builds the class ``SAM3UNet`` of a clone, on the clone's own ``sam3``; this process can then use no other one.

    ``sam3/__init__`` is not run: it imports the whole detector, of which the network needs one file. Its one side
    effect on arithmetic is repeated here: ``_setup_tf32`` of sam3/model_builder.py allows TF32. No other statement that
    runs on import (read in fdb21da) changes arithmetic or memory.
    """
    function_of(folder / "sam3" / "model_builder.py", "_setup_tf32")()
    package = ModuleType("sam3")
    package.__path__ = [str(folder / "sam3")]
    sys.modules["sam3"] = package
    spec = importlib.util.spec_from_file_location("SAM3UNet", folder / "SAM3UNet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SAM3UNet(None, size)


def function_of(script: Path, name: str) -> Callable[..., Any]:
    """Extracts a function from a file without importing the file, which may run or need more than the function.

    Of the file's global names the function may use only ``torch`` and ``F``. Raises ``InvalidModel`` if it is absent.
    """
    found = _definitions(script, name)
    if not found:
        raise InvalidModel(f"{script} has no function {name}")
    names: dict[str, Any] = {"torch": torch, "F": nn.functional}
    exec(compile(ast.Module(found, []), str(script), "exec"), names)
    return names[name]


def _definitions(script: Path, name: str) -> list[ast.stmt]:
    """Parses a file and returns its top-level definitions of this name."""
    return [node for node in ast.parse(script.read_text()).body if getattr(node, "name", None) == name]
