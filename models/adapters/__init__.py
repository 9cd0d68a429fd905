"""Adapters: ``build(config, block, dim) -> nn.Module`` that calls ``block``; its own weights lie under ``.adapter``."""

from models._placement import Placement
from models._registry import Config as Base


class Config(Base):
    """What every adapter has: the encoder blocks that it is put at."""

    placement: Placement = "all"
