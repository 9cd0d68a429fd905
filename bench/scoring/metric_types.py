"""The types of metrics and scores; the metrics themselves are in ``bench.scoring.metrics``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """The description of a metric."""

    label: str
    """Title of its column, without the arrow."""
    better: Literal["higher", "lower"]
    source: str
    """Publication or script that defines it."""
    mean_of_images: bool = True
    """Whether the score of a set is the mean over its images. Tests and draws over images are for such metrics only."""
    shown: bool = True
    """Whether tables have a column of it; all metrics are in leaderboard.csv."""


Measured = Mapping[str, float | np.ndarray]
"""Intermediate results of one image: numbers, and curves [256] over thresholds."""


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images."""

    overall: dict[str, float]
    """Score of the whole set, by metric. A maximum over thresholds is taken of the images' mean curve."""
    images: dict[str, list]
    """Columns of the images' own scores: ``name`` and the metrics, in the order of the images."""


class NotFinite(ValueError):
    """The model's output for an image, or a score of an image, is NaN or infinite."""
