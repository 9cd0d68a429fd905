"""Queries to NVML: the GPUs of this machine, their memory in use, and the processes on them. Imports no torch."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import pynvml


def nvml_problem() -> str | None:
    """Returns why NVML cannot list the processes on the card that a trial will use; ``None`` if it can.

    Where ``$CUDA_VISIBLE_DEVICES`` does not name cards by UUID, a trial may use any card: one that answers is enough.
    """
    gpus = Gpus()
    cards = gpus.by_uuid()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [entry for entry in visible if entry.startswith(("GPU-", "MIG-"))]
    eligible = [handle for uuid, handle in cards.items() if not named or any(is_same(uuid, one) for one in named)]
    if not eligible:
        return gpus.why_unknown()
    refusals = [gpus.observe(handle).denied.get("processes") for handle in eligible]
    return None if None in refusals else list_refused(refusals[0])


def list_refused(reason: str) -> str:
    """Words NVML's refusal to list the processes on a card."""
    return f"the list of the card's processes is refused ({reason})"


def nvml_missing(problem: str) -> str:
    """Words, in one line, an NVML that does not list the processes on the GPU, and the remedy."""
    return (
        f"NVML: {problem}. Without it nothing shows whether another process uses the card. Install the driver's "
        "libnvidia-ml and let it list the card's processes, or set memory.foreign_process=note to go on without it"
    )


def is_same(uuid: str, identifier: str) -> bool:
    """Tells whether an identifier, which may be shortened, means the device of this UUID."""
    return bare(uuid).startswith(bare(identifier))


def bare(identifier: str) -> str:
    """Returns the part of a UUID that is the same in torch, NVML and CUDA_VISIBLE_DEVICES.

    >>> bare("GPU-5F3C-a1"), bare("MIG-5f3c-a1"), bare("5f3c-a1")
    ('5f3c-a1', '5f3c-a1', '5f3c-a1')
    """
    return identifier.lower().removeprefix("mig-").removeprefix("gpu-")


@dataclass
class Observation:
    """The state of a card at one moment, as NVML shows it. A refused quantity is ``None``."""

    used: int | None = None
    """Bytes in use by all processes."""
    processes: dict[int, int | None] | None = None
    """Bytes by PID, ``None`` without a size. In a container the list may be empty, or hold PIDs of the host."""
    denied: dict[str, str] = field(default_factory=dict)
    """NVML's reason by refused quantity: ``memory``, ``processes``."""


class NoNumber(Exception):
    """An answer of NVML that is no number, as some drivers give for a quantity that a card does not have."""


def _whole(value: Any) -> int:
    """Returns a whole number from 0 on. Raises ``NoNumber``."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise NoNumber(f"the answer {value!r} is no number")
    return number


class Gpus:
    """The cards and MIG instances that NVML knows. Without a driver there are none, and ``problem`` gives the reason.

    A card that does not answer does not hide the others.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.silent: dict[int, str] = {}
        """Numbers of the cards whose UUID cannot be read, each with NVML's reason."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.problem = str(error)

    def by_uuid(self) -> dict[str, Any]:
        """Returns handles by UUID. A card with MIG instances is left out, since all of them share its figures."""
        handles = {}
        for number, card in self._cards():
            for handle in list(self._instances(card)) or [card]:
                try:
                    handles[str(pynvml.nvmlDeviceGetUUID(handle))] = handle
                except pynvml.NVMLError as error:
                    self.silent[number] = str(error)
        return handles

    def _cards(self) -> Iterator[tuple[int, Any]]:
        """Yields numbers and handles of the cards that answer."""
        count = 0
        if self.problem is None:
            try:
                count = pynvml.nvmlDeviceGetCount()
            except pynvml.NVMLError as error:
                self.problem = str(error)
        for number in range(count):
            try:
                yield number, pynvml.nvmlDeviceGetHandleByIndex(number)
            except pynvml.NVMLError as error:
                self.silent[number] = str(error)

    @staticmethod
    def _instances(card: Any) -> Iterable[Any]:
        """Yields the handles of a card's MIG instances."""
        count = 0
        with suppress(pynvml.NVMLError):  # most cards have no MIG
            count = pynvml.nvmlDeviceGetMaxMigDeviceCount(card)
        for index in range(count):
            with suppress(pynvml.NVMLError):  # an index without an instance
                yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)

    def why_unknown(self) -> str:
        """Returns why a device is not among those of ``by_uuid``."""
        known = ", ".join(self.by_uuid()) or "none"
        silent = [f"; card {number} does not answer: {reason}" for number, reason in self.silent.items()]
        return self.problem or f"NVML does not know this device; it knows {known}{''.join(silent)}"

    def capability(self) -> tuple[int, int] | None:
        """Returns the compute capability of the first card that reports one."""
        for _, card in self._cards():
            with suppress(pynvml.NVMLError):
                return tuple(pynvml.nvmlDeviceGetCudaComputeCapability(card))
        return None

    def observe(self, handle: Any) -> Observation:
        """Queries each quantity separately, since a container may refuse one and show the other."""
        observation = Observation()
        try:
            observation.used = _whole(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        except (pynvml.NVMLError, NoNumber) as error:
            observation.denied["memory"] = str(error)
        try:
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            observation.processes = {process.pid: process.usedGpuMemory for process in processes}
        except pynvml.NVMLError as error:
            observation.denied["processes"] = str(error)
        return observation

    def energy(self, handle: Any) -> tuple[int | None, str]:
        """Returns the millijoules that the card has taken since the driver was loaded; else ``None`` and the reason."""
        try:
            return _whole(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)), ""
        except (pynvml.NVMLError, NoNumber) as error:
            return None, str(error)

    def utilisation(self, handle: Any) -> int | None:
        """Returns the per cent of NVML's last period (a sixth of a second to a second) in which a kernel ran; ``None``
        where NVML refuses it, as for MIG instances, or answers something else."""
        try:
            percent = _whole(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except (pynvml.NVMLError, NoNumber):
            return None
        return percent if percent <= 100 else None

    def name(self, pid: int) -> str:
        """Returns the name of a process according to NVML, else to the operating system, else ``unknown``."""
        with suppress(pynvml.NVMLError):
            name = pynvml.nvmlSystemGetProcessName(pid)
            return (name.decode(errors="replace") if isinstance(name, bytes) else name).rsplit("/", 1)[-1]
        with suppress(psutil.Error):
            return psutil.Process(pid).name()
        return "unknown"
