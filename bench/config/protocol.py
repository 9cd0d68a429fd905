"""How predictions become numbers: the choices that change published digits, as fields of a trial's configuration.

Two protocols. ``sod`` (salient and camouflaged objects, polyps, marine animals) is WZH0120/SAM3-UNet fdb21da, eval.py;
``mirror`` is Catherine-R-He/HetNet 21d9541, eval.py and misc.py. Both score what SAM3-UNet's test.py saves.
"""

from typing import Literal

from models.core.registry import Config


class ProtocolConfig(Config):
    """Defaults: upstream's test.py and eval.py."""

    name: Literal["sod", "mirror"] = "sod"
    minmax: bool = True
    """Stretch every map to 0..1 over its own range: when it is made, as test.py does, and again when it is scored, as
    py_sod_metrics and HetNet do. A quirk: a confident all-background answer becomes full-contrast noise."""
    quantise: Literal["truncate", "round", "none"] = "truncate"
    """How a map gets its 8 bits. Upstream cuts off; ``none`` scores the map as floating point numbers."""
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """How logits are brought to the mask's size, before the sigmoid. A prediction from a file is never resized."""
