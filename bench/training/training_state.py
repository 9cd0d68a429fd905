"""Checkpoints of a training under way, so that a trial which is cut short goes on instead of starting again.

They lie in ``<results>/<sweep>/.resume/<trial_id>/epoch-0003.safetensors``, at most two for each unfinished trial, and
are removed once the trial has its record. A file holds what trains, the optimiser's and the schedule's state, the
random states and the curve so far; no pickle. On a CPU a trial that goes on ends with the scores, to the last digit,
of one that was never cut short. What a trial has learnt in the end is another file (``bench.training.trained_weights``).
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
from bench.training.trained_weights import LARGEST_BYTES, in_training, learnt

FORMAT = "sam3-bench training state, version 1"
FOLDER = ".resume"
EVERY_SECONDS = 60.0
KEPT = 2
COST = 20
"""A checkpoint comes no sooner than so many times the seconds that the last one took: at most 5 % of a trial."""
CODE = (
    "models",
    "bench/datasets",
    "bench/system/device.py",
    "bench/training/feature_cache.py",
    "bench/training/losses",
    "bench/training/data_parallel.py",
    "bench/training/training_state.py",
    "bench/training/loop.py",
    "bench/datasets/core/transforms.py",
)
"""What decides how training goes on; other code may change in between."""


def place(folder: Path, trial_id: str) -> Path:
    """Where the checkpoints of a trial lie, below the folder of its record."""
    return folder / FOLDER / trial_id


class Checkpoints:
    """The checkpoints of one trial: a ``bench.training.loop.Resume``. ``expect`` says first what they must agree with."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS, share: Share = Share()) -> None:
        """share: of several ranks, each of which has one of these; rank 0 reads and writes for all."""
        self.folder, self.every_seconds, self.share = folder, every_seconds, share
        self.notes: list[str] = []  # what a reader of the record should know
        self.resumed_from: list[int] = []  # epochs after which the trial was cut short and went on
        self.earlier_seconds = 0.0  # that the parts before this one took
        self.memory: Memory | None = None  # in training, once that is over
        self.has_trained = False  # a checkpoint of the last epoch was written
        self._training: Training | None = None
        self._began = self._last = time.perf_counter()
        self._cost = 0.0
        self._fingerprint: dict[str, str] = {}

    def expect(self, fingerprint: Mapping[str, str]) -> None:
        """A checkpoint is used only if it was written with the same: data, weights, versions, machine."""
        self._fingerprint = dict(fingerprint)

    def restore(self, training: Training) -> None:
        """Puts the newest usable checkpoint in. One that is damaged, or of something else, is set aside and named."""
        found = self.share.of_first(self._newest() if self.share.rank == 0 else None)
        if found is not None:
            facts, tensors = found
            _put_in(training, facts, tensors, self.share.rank)
            self.resumed_from += [*facts["resumed_from"], facts["epoch"]]
            self.earlier_seconds = facts["spent_seconds"]
            measured = facts["memory"][self.share.rank]
            self.memory = None if measured is None else Memory.model_validate(measured)

    def _newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        for path in sorted(self.folder.glob("epoch-*.safetensors"), reverse=True):
            try:
                facts, tensors = _read(path)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self.notes.append(f"checkpoint {path} is damaged ({error}); set aside as {set_aside(path).name}")
                continue
            there, here = facts["fingerprint"], self._fingerprint
            differ = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
            if differ:
                what = "; ".join(f"{k} was {there.get(k, 'unknown')}, is {here.get(k, 'unknown')}" for k in differ)
                aside = set_aside(path, "unused").name
                self.notes.append(f"checkpoint of epoch {facts['epoch']} not used: {what}; set aside as {aside}")
                continue
            return facts, tensors
        return None

    def after_epoch(self, training: Training) -> None:
        """Writes a checkpoint if one is due. A disk that refuses costs the checkpoint, never the trial."""
        self._training, self.memory = training, None
        wait = max(self.every_seconds, COST * self._cost) if self.every_seconds else 0.0
        if self.share.of_first(time.perf_counter() - self._last >= wait):
            self._write(training)

    def after_training(self, memory: Memory) -> None:
        """Writes a checkpoint of the last epoch with the memory of training, due or not: whatever happens while the
        trial is scored, the same command goes on with scoring alone."""
        training, self._training = self._training, None  # its optimiser is not evaluation's memory
        if training is not None:  # else nothing was left to train
            self.memory = memory
            self.has_trained = self._write(training)

    def _write(self, training: Training) -> bool:
        """Whether there is a new checkpoint; if not, ``notes`` say why."""
        self._last = began = time.perf_counter()
        size = _bytes(training)
        if size > LARGEST_BYTES:
            self._note_once(f"no checkpoints: the training state is {size / 2**20:.0f} MiB, at most 512 are kept")
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
            self._note_once(f"a checkpoint could not be written: {error}")
            return False
        finally:
            self._last = time.perf_counter()
            self._cost = self._last - began
        return True

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _state(self, training: Training) -> tuple[dict[str, Any], dict[str, Tensor]]:
        optimiser = training.optimiser.state_dict()
        tensors = {f"model.{name}": value for name, value in learnt(training.model).items()}
        tensors |= {f"optimiser.{i}.{k}": v.detach().cpu() for i, s in optimiser["state"].items() for k, v in s.items()}
        tensors["random.draws"] = training.draws.get_state()
        device = next(training.model.parameters()).device
        mine = {"torch": torch.get_rng_state()}
        if device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(device)
        for rank, states in enumerate(self.share.of_all(mine)):
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
            "memory": self.share.of_all(None if self.memory is None else self.memory.model_dump()),
            "schedule": training.schedule.state_dict(),
            "without_gradient": sorted(training.gradients.unseen),
        }
        return facts, tensors


def _bytes(training: Training) -> int:
    """Size of a checkpoint but for random states, known without a copy of anything."""
    moments = (value for state in training.optimiser.state.values() for value in state.values())
    return sum(tensor.nbytes for tensor in (*in_training(training.model).values(), *moments))


def _put_in(training: Training, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], rank: int) -> None:
    training.model.load_state_dict(_below("model.", tensors), strict=False)
    optimiser = training.optimiser.state_dict()
    for group, rate in zip(optimiser["param_groups"], facts["learning_rates"], strict=True):
        group["lr"] = rate
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimiser.", tensors).items():
        number, _, key = name.partition(".")
        states.setdefault(int(number), {})[key] = value
    training.optimiser.load_state_dict({"state": states, "param_groups": optimiser["param_groups"]})
    training.schedule.load_state_dict(facts["schedule"])
    for name in training.gradients.unseen.keys() - set(facts["without_gradient"]):
        del training.gradients.unseen[name]
    training.curve[:] = [Epoch(**epoch) for epoch in facts["curve"]]
    training.steps, training.images, training.seconds = facts["steps"], facts["images"], facts["seconds"]
    training.draws.set_state(tensors["random.draws"])
    mine = _below(f"random.{rank}.", tensors)
    torch.set_rng_state(mine["torch"])
    if "cuda" in mine:
        torch.cuda.set_rng_state(mine["cuda"], next(training.model.parameters()).device)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _packed(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "digest": _digest(text, tensors)}
    return save({name: tensor.clone() for name, tensor in tensors.items()}, metadata)  # it refuses shared memory


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Raises ``ValueError``, ``KeyError``, ``OSError`` or ``SafetensorError`` for what was not written here, whole."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if metadata.get("format") != FORMAT:
        raise ValueError("not a training state of this version")
    if metadata["digest"] != _digest(metadata["facts"], tensors):
        raise ValueError("it does not hold what was written")
    return json.loads(metadata["facts"]), tensors


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """safetensors has no checksum of its own."""
    parts = [facts, *(f"{name} {list(t.shape)} {t.dtype} {tensor_digest(t)}" for name, t in sorted(tensors.items()))]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def fingerprint(known: Provenance, frozen_digest: str, cached: FeatureCache | None = None) -> dict[str, str]:
    """What a training that goes on must share with its beginning, so that it is one training."""
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
    """Forgets a trial's checkpoints; its record says all there is to say."""
    shutil.rmtree(place(folder, trial_id), ignore_errors=True)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk of each trial's checkpoints, by trial id."""
    found = {}
    for path in sorted((folder / FOLDER).glob("*/")):
        if re.fullmatch("[0-9a-f]{12}", path.name):
            found[path.name] = sum(entry.stat().st_size for entry in os.scandir(path))
    return {trial_id: size for trial_id, size in found.items() if size}
