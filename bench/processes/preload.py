"""Imports ahead of time what a trial would import late: otherwise it counts as the trial's memory and time."""

from collections.abc import Iterable
from contextlib import suppress

import pyarrow.parquet
import torch._dynamo  # noqa: F401  all of torch's optimisers import it
from PIL import Image

import bench.scoring.sod_measures  # noqa: F401
from bench.config.trial import TrialConfig
from models.core.skeleton import skeleton


def import_for(configs: Iterable[str]) -> None:
    """Imports what these trials (as JSON) need.

    Their models are built without memory, which imports what they import. Libraries that all trials use are made to do
    their late imports.
    """
    Image.preinit()
    pyarrow.table({"a": [0]})  # imports pandas
    for text in configs:
        with suppress(Exception):  # an error belongs into the trial's record
            config = TrialConfig.model_validate_json(text)
            skeleton(config.model, config.transform.size)
