"""Search methods: ``search: random`` of a sweep is the entry ``random.py`` of this folder.

An entry has

- ``PACKAGE`` and ``INSTALL``: the package that it needs and the command that installs it; ``None`` if it needs none;
- ``LEARNS``: whether it learns from the validation scores of earlier points, and so proposes a batch at a time;
- ``EXHAUSTIVE``: whether it proposes the whole space at once, with any budget;
- ``CHOSEN``: how points are chosen, in words for the report;
- ``propose(axes, observations, count, seed)``: up to ``count`` new points. The same arguments give the same points, so
  that a search which was interrupted comes to the same trials.
"""

from typing import NamedTuple

Labels = tuple[str, ...]
"""A point of the search space: its label on each axis."""


class Observation(NamedTuple):
    """A point that was proposed before, and its result."""

    labels: Labels
    value: float | None  # mean over seeds of the main metric on the validation split; higher is better
    stopped: tuple[int, float] | None = None  # last epoch and validation loss of a point that was stopped early
