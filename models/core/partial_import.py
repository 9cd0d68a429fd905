"""Imports single modules of a package without running its ``__init__``, which would need many more packages."""

import importlib
import importlib.util
import sys
from types import ModuleType


def module_of(package: str, name: str) -> ModuleType:
    """Imports a module: ``module_of("sam3", "model.vitdet")`` is ``sam3.model.vitdet``."""
    full_name = f"{package}.{name}"
    if full_name in sys.modules or package in sys.modules:
        return importlib.import_module(full_name)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"the package '{package}' is not installed: pip install {package}", name=package)
    stand_in = ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = stand_in
    try:
        return importlib.import_module(full_name)
    finally:
        del sys.modules[package]  # so that a later import gets the real package
