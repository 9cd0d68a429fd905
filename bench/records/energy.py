"""Energy of the card per image, as the record of a trial holds it."""

from typing import Literal

from models.core.registry import Config


class Energy(Config):
    """Energy that the whole card took, in joules, from NVML's counter; the processor's is not in it. ``None`` is
    unknown, and ``unknown`` gives the reason."""

    train_joules_per_image: float | None = None
    """Per image of the training steps, without validation."""
    train_joules: float | None = None
    train_seconds: float | None = None
    """Duration in which ``train_joules`` were counted: the epochs' training steps."""
    inference_joules_per_image: float | None = None
    """Per image of the test sets; the time in which the card waits for scores to be computed is part of it."""
    inference_joules: float | None = None
    inference_seconds: float | None = None
    """Duration in which ``inference_joules`` were counted."""
    idle_watts: float | None = None
    """Mean power of the card before the model was on it."""
    unknown: dict[Literal["train", "inference", "idle"], str] = {}
