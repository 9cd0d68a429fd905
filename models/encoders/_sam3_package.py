"""Imports single modules of the ``sam3`` package without running ``sam3/__init__``.

``sam3/__init__`` builds the whole detector: it needs triton, pycocotools and psutil, which ``sam3`` 0.1.4 does not
declare in full and which do not exist on CPU-only and mac installs. The image encoder's file needs torch and timm.
"""

import importlib
import importlib.util
import sys
from types import ModuleType


def sam3_module(name: str) -> ModuleType:
    """``sam3_module("model.vitdet")`` is the module ``sam3.model.vitdet``."""
    full_name = f"sam3.{name}"
    if full_name in sys.modules or "sam3" in sys.modules:
        return importlib.import_module(full_name)
    spec = importlib.util.find_spec("sam3")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("the package 'sam3' is not installed: pip install sam3", name="sam3")
    stand_in = ModuleType("sam3")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["sam3"] = stand_in
    try:
        return importlib.import_module(full_name)
    finally:
        del sys.modules["sam3"]  # so that a later ``import sam3`` gets the real package
