"""The whole grid, in the order of the sweep."""

import itertools
from collections.abc import Sequence

from bench.config.axes import Axis
from bench.search.methods import Labels, Observation

PACKAGE = INSTALL = None
LEARNS = False
EXHAUSTIVE = True
CHOSEN = "as a grid"


def propose(axes: Sequence[Axis], observations: Sequence[Observation], count: float, seed: int) -> list[Labels]:
    """All points that were not proposed before."""
    known = {observation.labels for observation in observations}
    labels = [[label for label, _ in axis.points] for axis in axes]
    return [point for point in itertools.product(*labels) if point not in known]
