"""Time limits of running trials, measured by a clock that stands still while the driver is stopped."""

import time
from dataclasses import dataclass

from bench.config.trial import TrialConfig
from bench.watching.display import duration

MOST_PER_TICK = 10.0
"""Largest advance of the driver's clock between two ticks, in seconds."""


@dataclass(frozen=True)
class Limits:
    """How long a trial may run, and how long it may send no heartbeat, in seconds; ``None`` means without limit."""

    trial: float | None = None
    silence: float | None = 1800.0


@dataclass
class _Times:
    """Times of a running trial, by the driver's clock in seconds."""

    started: float
    last_heartbeat: float


class TimeLimits:
    """Observes how long trials run, and how long they are silent; trials are numbered from 0."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running: dict[int, _Times] = {}
        self._clock, self._last_tick = 0.0, time.monotonic()

    def tick(self) -> None:
        """Advances the clock by a few seconds at most: a driver that was stopped for an hour does not blame its trials."""
        now = time.monotonic()
        self._clock += min(now - self._last_tick, MOST_PER_TICK)
        self._last_tick = now

    def start(self, index: int) -> None:
        """Starts the clock of a trial."""
        self.running[index] = _Times(self._clock, self._clock)

    def heartbeat(self, index: int) -> None:
        """Notes that a trial has done a step."""
        self.running[index].last_heartbeat = self._clock

    def stop(self, index: int) -> None:
        """Forgets a trial that has ended."""
        self.running.pop(index, None)

    def exceeded(self, index: int, config: TrialConfig) -> str | None:
        """Returns which limit a running trial has exceeded, in words.

        A trial that may wait for a free GPU (``memory.foreign_process: wait``) may be silent for that time, too.
        """
        times = self.running[index]
        limit, silence = self.limits.trial, self.limits.silence
        if limit is not None and self._clock - times.started > limit:
            return f"timed out after {duration(limit)} (--trial-time-limit)"
        if silence is not None:
            if config.memory.foreign_process == "wait":
                silence += 60 * config.memory.wait_minutes
            if self._clock - times.last_heartbeat > silence:
                return f"no sign of life for {duration(silence)} (--stall-limit); killed"
        return None
