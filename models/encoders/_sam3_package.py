"""Imports single modules of the ``sam3`` package without running ``sam3/__init__``.

``sam3/__init__`` builds the whole detector: it needs triton, pycocotools and psutil, which ``sam3`` 0.1.4 does not
declare in full and which do not exist on CPU-only and mac installs. The image encoder's file needs torch and
``timm.layers``; ``timm/__init__`` builds all of timm's models, which takes a second and 29 MB of every trial's process.
"""

from types import ModuleType

from models.core.partial_import import module_of


def sam3_module(name: str) -> ModuleType:
    """``sam3_module("model.vitdet")`` is the module ``sam3.model.vitdet``."""
    module_of("timm", "layers")
    return module_of("sam3", name)
