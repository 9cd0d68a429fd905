"""Energy of the card in parts of a trial, from NVML's counter of millijoules (Volta and newer cards), and the share of
the time in which it computes, from NVML's utilisation."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.records.energy import Energy
from bench.records.memory import Memory

SHORTEST_SECONDS = 1.0
"""Shortest window that counts. The counter moves every 20 to 100 ms, so shorter windows are too inexact."""
SHORT = f"no part of it took {SHORTEST_SECONDS:g} s, and shorter ones are too inexact"


@dataclass(frozen=True)
class Reading:
    """The counter at one moment."""

    millijoules: int | None
    """Since the driver was loaded; ``None`` if it cannot be read."""
    seconds: float
    problem: str = ""
    """NVML's reason if it cannot be read."""
    busy_percent: float = 0.0
    """Sum of NVML's readings of utilisation until this moment: per cent of the time in which a kernel ran."""
    busy_readings: int = 0
    """Number of these readings; it stays 0 where NVML refuses them."""


@dataclass
class Meter:
    """Sums energy, time and images over the windows between ``start`` and ``stop``."""

    read: Callable[[], Reading | None]
    """Reads the counter; ``None`` on a CPU, where nothing is measured."""
    joules: float = 0.0
    seconds: float = 0.0
    images: int = 0
    busy_percent: float = 0.0
    busy_readings: int = 0
    problem: str = ""
    """Why a window could not be measured: what was measured in others is then not the whole."""
    began: Reading | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begins a window."""
        self.began = self.read()

    def stop(self, images: int = 0) -> None:
        """Ends the window, in which this number of images was processed. A window that is too short does not count."""
        began, ended = self.began, self.read()
        if began is None or ended is None:
            return
        counts = ended.seconds - began.seconds >= SHORTEST_SECONDS
        if counts:
            self.busy_percent += ended.busy_percent - began.busy_percent
            self.busy_readings += ended.busy_readings - began.busy_readings
        if began.millijoules is None or ended.millijoules is None:
            self.problem = f"NVML says {began.problem or ended.problem}"
            return
        if ended.millijoules < began.millijoules:
            self.problem = "NVML's counter of energy went back, as after a reset of the card"
            return
        if counts and ended.millijoules == began.millijoules:
            self.problem = "NVML's counter of energy did not move"
            return
        if counts:
            self.joules += (ended.millijoules - began.millijoules) / 1000
            self.seconds += ended.seconds - began.seconds
            self.images += images

    @property
    def unknown(self) -> str:
        """Why there is no result; empty if there is one."""
        return self.problem or ("" if self.seconds else SHORT)


def joules_per_image(meter: Meter, memory: Memory | None) -> float | None:
    """Returns the energy of an image; ``None`` where it was not measured, or another process used the card."""
    return None if _not_alone(memory, gpus=1) or meter.unknown else meter.joules / meter.images


def busy_share(meter: Meter | None, memory: Memory | None) -> float | None:
    """Returns the share of a phase in which the card computed, from 0 to 1.

    ``None`` where nothing was measured, or where another process used the card.
    """
    if meter is None or not meter.busy_readings or _not_alone(memory, gpus=1):
        return None
    return meter.busy_percent / 100 / meter.busy_readings


def energy_of(
    idle: Meter, train: Meter | None, inference: Meter, memory: dict[str, Memory], gpus: int = 1
) -> Energy | None:
    """Returns the energy of a trial; ``None`` on a CPU.

    train: ``None`` if nothing was trained. memory: tells by phase which other processes were on the card, whose energy
    the counter includes; those of the first phase are taken for those before it. gpus: number of cards, of which only
    one is read.
    """
    if idle.began is None:
        return None
    first = memory.get("training") or memory.get("evaluation")
    unknown = {"idle": _not_alone(first, gpus=1) or idle.unknown}
    found: dict[str, float] = {}
    for name, phase, meter in (("train", "training", train), ("inference", "evaluation", inference)):
        if meter is None:
            continue
        unknown[name] = _not_alone(memory.get(phase), gpus) or meter.unknown
        if not unknown[name]:
            values = {"joules_per_image": meter.joules / meter.images, "joules": meter.joules, "seconds": meter.seconds}
            found |= {f"{name}_{key}": value for key, value in values.items()}
    if not unknown["idle"]:
        found["idle_watts"] = idle.joules / idle.seconds
    return Energy(**found, unknown={name: reason for name, reason in unknown.items() if reason})


def _not_alone(memory: Memory | None, gpus: int) -> str:
    """Returns why the card's energy is not that of the trial in a phase; empty if it is."""
    if gpus > 1:
        return f"the trial used {gpus} cards, of which one was read"
    if memory is None:
        return ""  # training resumed behind its last epoch, so there is no window either
    if memory.foreign_processes is None:
        return "NVML did not show whether another process used the card"
    if memory.foreign_processes:
        return f"not alone on the card: {', '.join(memory.foreign_processes)}"
    return ""
