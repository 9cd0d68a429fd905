"""Training states on disk, so that an interrupted trial resumes instead of starting again.

They lie in ``<results>/<sweep>/.resume/<trial_id>/epoch-0003.safetensors``, at most two for each unfinished trial, and
are removed once the trial has its record. A file holds the trained tensors, the states of optimiser, learning rate
schedule and random generators, and the curve so far; no pickle. On a CPU a resumed trial ends with exactly the scores
of an uninterrupted one. The weights at the end are another file (``bench.training.trained_weights``).
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import bench
from bench.records.memory import Memory
from bench.records.record import FeatureCache, Provenance
from bench.system.files import set_aside, write_whole
from bench.training.checks import tensor_digest
from bench.training.data_parallel import Share
from bench.training.loop import Epoch, Training
from bench.training.trained_weights import LARGEST_BYTES, trained_copies, trained_tensors

FORMAT = "sam3-bench training state, version 1"
FOLDER = ".resume"
EVERY_SECONDS = 60.0
KEPT = 2
COST = 20
"""Smallest time between two states, in multiples of the time that writing the last one took: 5 % of a trial at most."""
CODE = (
    "models",
    "bench/datasets",
    "bench/system/device.py",
    "bench/system/in_order.py",
    "bench/training/feature_cache.py",
    "bench/training/losses",
    "bench/training/data_parallel.py",
    "bench/training/training_state.py",
    "bench/training/loop.py",
    "bench/training/batch_loss.py",
    "bench/training/optimiser.py",
    "bench/training/compiled.py",
    "bench/training/static_step.py",
    "bench/training/precision.py",
)
"""Code on which the rest of a training run depends; other code may change before it resumes."""


def place(folder: Path, trial_id: str) -> Path:
    """Returns the folder of a trial's states, below the folder of its record."""
    return folder / FOLDER / trial_id


class TrainingStates:
    """The stored states of one trial, a ``bench.training.loop.Resume``. Call ``expect`` first."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS, share: Share = Share()) -> None:
        """share: of this process, if several train together; the first one reads and writes for all."""
        self.folder, self.every_seconds, self.share = folder, every_seconds, share
        self.notes: list[str] = []  # for the readers of the record
        self.resumed_from: list[int] = []  # epochs after which the trial was interrupted and resumed
        self.earlier_seconds = 0.0  # duration of the parts before this one
        self.memory: Memory | None = None  # of training, once it has ended
        self.has_trained = False  # the state of the last epoch was written
        self._training: Training | None = None
        self._began = self._last = time.perf_counter()
        self._cost = 0.0
        self._fingerprint: dict[str, str] = {}

    def expect(self, fingerprint: Mapping[str, str]) -> None:
        """Sets the facts (data, weights, versions, machine) with which a state must have been written to be used."""
        self._fingerprint = dict(fingerprint)

    def restore(self, training: Training) -> None:
        """Loads the newest usable state. A damaged or unfit one is set aside and named in ``notes``."""
        newest = self.share.from_first(self._newest() if self.share.rank == 0 else None)
        if newest is not None:
            facts, tensors = newest
            _restore(training, facts, tensors, self.share.rank)
            self.resumed_from += [*facts["resumed_from"], facts["epoch"]]
            self.earlier_seconds = facts["spent_seconds"]
            measured = facts["memory"][self.share.rank]
            self.memory = None if measured is None else Memory.model_validate(measured)

    def _newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        for path in sorted(self.folder.glob("epoch-*.safetensors"), reverse=True):
            try:
                facts, tensors = _read(path)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self.notes.append(f"training state {path} is damaged ({error}); set aside as {set_aside(path).name}")
                continue
            changes = _changes(facts["fingerprint"], self._fingerprint)
            if not changes:
                return facts, tensors
            aside = set_aside(path, "unused").name
            reason = "; ".join(changes)
            self.notes.append(f"training state of epoch {facts['epoch']} not used: {reason}; set aside as {aside}")
        return None

    def after_epoch(self, training: Training) -> None:
        """Writes the state if it is due. If the disk refuses, the trial continues without it."""
        self._training, self.memory = training, None
        wait = max(self.every_seconds, COST * self._cost) if self.every_seconds else 0.0
        if self.share.from_first(time.perf_counter() - self._last >= wait):
            self._write(training)

    def after_training(self, memory: Memory) -> None:
        """Writes the state of the last epoch with the memory of training, due or not.

        If scoring fails, the same command then repeats scoring alone.
        """
        training, self._training = self._training, None  # evaluation does not need the optimiser's memory
        if training is not None:  # else this process did not train
            self.memory = memory
            self.has_trained = self._write(training)

    def _write(self, training: Training) -> bool:
        """Returns whether it has written the state; if not, ``notes`` give the reason."""
        self._last = began = time.perf_counter()
        size = _bytes(training)
        if size > LARGEST_BYTES:
            limit = f"more than the {LARGEST_BYTES / 2**20:.0f} MiB that are kept"
            self._note_once(f"no training states are kept: one has {size / 2**20:.0f} MiB, {limit}")
            return False
        facts, tensors = self._state(training)
        if self.share.rank:
            return False
        path = self.folder / f"epoch-{facts['epoch']:04d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda file: file.write(_packed(facts, tensors)))
            for old in sorted(self.folder.glob("epoch-*.safetensors"))[:-KEPT]:
                old.unlink()
        except OSError as error:
            self._note_once(f"a training state could not be written: {error}")
            return False
        finally:
            self._last = time.perf_counter()
            self._cost = self._last - began
        return True

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _state(self, training: Training) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Collects facts and tensors of the state, on the CPU."""
        optimiser = training.optimiser.state_dict()
        tensors = {f"model.{name}": value for name, value in trained_copies(training.model).items()}
        for number, moments in optimiser["state"].items():
            for name, value in moments.items():
                tensors[f"optimiser.{number}.{name}"] = value.detach().cpu()
        tensors["random.draws"] = training.generator.get_state()
        device = next(training.model.parameters()).device
        own = {"torch": torch.get_rng_state()}
        if device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(device)
        for rank, states in enumerate(self.share.gather(own)):
            tensors |= {f"random.{rank}.{name}": state for name, state in states.items()}
        facts = {
            "fingerprint": self._fingerprint,
            "epoch": training.curve[-1].epoch,
            "curve": [dataclasses.asdict(epoch) for epoch in training.curve],
            "steps": training.steps,
            "images": training.images,
            "seconds": training.seconds,
            "spent_seconds": self.earlier_seconds + time.perf_counter() - self._began,
            "resumed_from": self.resumed_from,
            "learning_rates": [group["lr"] for group in optimiser["param_groups"]],
            "memory": self.share.gather(None if self.memory is None else self.memory.model_dump()),
            "schedule": training.lr_schedule.state_dict(),
            "without_gradient": sorted(training.gradients.without_gradient),
            "scaler": training.scaler.state_dict(),
        }
        return facts, tensors


def _changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Describes each fact of two fingerprints that differs."""
    differing = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return [f"{key} was {then.get(key, 'unknown')}, is {now.get(key, 'unknown')}" for key in differing]


def _bytes(training: Training) -> int:
    """Computes the size of a state without its random states, and without copying tensors."""
    moments = (value for state in training.optimiser.state.values() for value in state.values())
    return sum(tensor.nbytes for tensor in (*trained_tensors(training.model).values(), *moments))


def _restore(training: Training, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], rank: int) -> None:
    """Puts a stored state into a training run and this process's random generators."""
    training.model.load_state_dict(_below("model.", tensors), strict=False)
    optimiser = training.optimiser.state_dict()
    for group, rate in zip(optimiser["param_groups"], facts["learning_rates"], strict=True):
        group["lr"] = rate
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimiser.", tensors).items():
        number, _, key = name.partition(".")
        states.setdefault(int(number), {})[key] = value
    training.optimiser.load_state_dict({"state": states, "param_groups": optimiser["param_groups"]})
    training.lr_schedule.load_state_dict(facts["schedule"])
    if training.scaler.is_enabled():
        training.scaler.load_state_dict(facts["scaler"])
    for name in training.gradients.without_gradient.keys() - set(facts["without_gradient"]):
        del training.gradients.without_gradient[name]
    training.curve[:] = [Epoch(**epoch) for epoch in facts["curve"]]
    training.steps, training.images, training.seconds = facts["steps"], facts["images"], facts["seconds"]
    training.generator.set_state(tensors["random.draws"])
    own = _below(f"random.{rank}.", tensors)
    torch.set_rng_state(own["torch"])
    if "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], next(training.model.parameters()).device)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _packed(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "digest": _digest(text, tensors)}
    return save({name: tensor.clone() for name, tensor in tensors.items()}, metadata)  # save refuses shared memory


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a state. Raises ``ValueError``, ``KeyError``, ``OSError`` or ``SafetensorError`` for any other file."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if metadata.get("format") != FORMAT:
        raise ValueError("not a training state of this version")
    if metadata["digest"] != _digest(metadata["facts"], tensors):
        raise ValueError("it does not hold what was written")
    return json.loads(metadata["facts"]), tensors


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Hashes a state, since safetensors has no checksum of its own."""
    parts = [facts, *(f"{name} {list(t.shape)} {t.dtype} {tensor_digest(t)}" for name, t in sorted(tensors.items()))]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def fingerprint(known: Provenance, frozen_digest: str, cached: FeatureCache | None = None) -> dict[str, str]:
    """Collects the facts that must be the same when a training run resumes."""
    cpu = {"cpu": f"{known.host_cpu}, {known.threads} threads"} if known.device == "cpu" else {}
    return {
        "data": f"{known.dataset_fingerprint}",
        "weights": _short({**known.weights, "frozen": frozen_digest}),
        "code": _short({path: hashlib.blake2b(content).hexdigest() for path, content in _code()}),
        "cached blocks": f"{cached and cached.blocks}",
        "device": known.device,
        "devices": f"{known.devices}",
        **cpu,
        "platform": known.platform,
        "cuda": f"{known.cuda}",
        **{name: version for name, version in known.versions.items() if name not in ("ray", "pysodmetrics")},
    }


def _short(facts: Mapping[str, str]) -> str:
    return hashlib.blake2b(json.dumps(sorted(facts.items())).encode(), digest_size=6).hexdigest()


def _code() -> Iterable[tuple[str, bytes]]:
    root = Path(bench.__file__).resolve().parent.parent
    for name in CODE:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield str(file.relative_to(root)), file.read_bytes()


def remove(folder: Path, trial_id: str) -> None:
    """Removes a trial's states, which are not needed once there is a record."""
    shutil.rmtree(place(folder, trial_id), ignore_errors=True)


def sizes(folder: Path) -> dict[str, int]:
    """Measures the bytes on disk of each trial's states, by trial id; trials without a state are left out."""
    found = {}
    for path in sorted((folder / FOLDER).glob("*/")):
        if re.fullmatch("[0-9a-f]{12}", path.name):
            size = sum(entry.stat().st_size for entry in os.scandir(path))
            if size:
                found[path.name] = size
    return found
