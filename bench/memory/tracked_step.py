"""Peak memory of a real training step on a CPU: the tensors that live at the same time, the same number in every run.

The resident memory of a process depends on pages that the C library keeps, and is read every 10 ms. The bytes of living
tensors depend on neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bench.memory.step_memory import Tracker


class TrackedStep:
    """Tracks the tensors of a training step: weights, gradients, moments, activations and temporaries of operators."""

    def __init__(self) -> None:
        self.bytes: int | None = None
        """Peak of the step; ``None`` before a step was tracked."""

    @contextmanager
    def __call__(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[None]:
        """Tracks the step that runs in this context. It costs about as much time as the step itself."""
        tracker = Tracker(cuda=False)
        tracker.track_model(model)
        tracker.track_moments(optimiser)
        start = len(tracker.events)
        with tracker:
            yield
        self.bytes = tracker.peak(since=start)
