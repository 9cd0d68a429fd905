"""Points that Optuna's TPE sampler proposes; at random where it proposes too few new ones."""

from collections.abc import Sequence

from bench.config.axes import Axis
from bench.search.methods import Labels, Observation, random

PACKAGE = "optuna"
INSTALL = "pip install -e '.[search]'"
LEARNS = True
EXHAUSTIVE = False
CHOSEN = "by Optuna, from scores on the validation split"


def propose(axes: Sequence[Axis], observations: Sequence[Observation], count: int, seed: int) -> list[Labels]:
    """The next batch of points."""
    from bench.search.tpe import propose as propose_by_tpe  # an optional package

    proposed = propose_by_tpe(axes, observations, count, seed) if count else []
    known = [*observations, *(Observation(point, None) for point in proposed)]
    return proposed + random.propose(axes, known, count - len(proposed), seed)
