"""What a trial would import only when it comes to it, ahead of time: else it counts as the trial's memory and time."""

from collections.abc import Iterable
from contextlib import suppress

import pyarrow.parquet
import torch._dynamo  # noqa: F401  all of torch's optimisers do
from PIL import Image

import bench.scoring.sod_measures  # noqa: F401
from bench.config.trial import TrialConfig
from models.core.skeleton import skeleton


def import_for(configs: Iterable[str]) -> None:
    """Imports what these trials (as JSON) will: what their models do when they are built, here without memory, and what
    is imported late by what all trials use."""
    Image.preinit()
    pyarrow.table({"a": [0]})  # imports pandas
    for text in configs:
        with suppress(Exception):  # what is wrong with a trial is its record's to say
            config = TrialConfig.model_validate_json(text)
            skeleton(config.model, config.transform.size)
