"""One trial: build, train, measure, score, record. Needs neither Ray nor a results folder.

``python -m bench.trial FOLDER THREADS`` is how ``--executor serial`` gives every trial a process of its own: it reads
a trial's JSON from standard input, writes one JSON line per epoch to standard output, and leaves the record in FOLDER.
"""

import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.checks import CheckFailed, check_frozen, frozen_digests
from bench.config import TrialConfig
from bench.datasets import DATASETS, DataError
from bench.evaluate import predict
from bench.memory import MemoryMonitor
from bench.provenance import provenance, with_inputs
from bench.record import CurvePoint, Timing, TrialRecord
from bench.scores import Scores, score
from bench.train import Diverged, Epoch, train
from models import MODELS
from models._encoder_decoder import parameter_counts
from models._registry import InvalidModel
from models._weights import WeightsError

Item = TypeVar("Item")
EXPLAINED = (CheckFailed, DataError, Diverged, InvalidModel, WeightsError)
"""Failures that say all there is to say; anything else is recorded with its traceback."""


def run_trial(
    config: TrialConfig,
    *,
    threads: int = 1,
    trials_at_once: int = 1,
    on_epoch: Callable[[Epoch], Any] = lambda epoch: None,
) -> TrialRecord:
    """Trains and scores one configuration. Never raises: what goes wrong becomes the record's status and error.

    On a CPU the scores depend on nothing but the configuration, the versions and the number of threads.
    ``trials_at_once`` is only noted: it says who else was busy on this machine while speed was measured.
    """
    device = torch.device(config.device)
    with _torch_settings(threads, deterministic=device.type == "cpu"):
        known: dict[str, Any] = {"trial_id": config.trial_id, "config": config.model_dump(mode="json")}
        known["provenance"] = provenance(device, trials_at_once)
        return _run(config, device, known, on_epoch)


def _run(
    config: TrialConfig, device: torch.device, known: dict[str, Any], on_epoch: Callable[[Epoch], Any]
) -> TrialRecord:
    """The trial itself; ``known`` collects what the record will say even if the trial fails."""
    started = time.perf_counter()
    try:
        with MemoryMonitor(device) as monitor:
            data = DATASETS.build(config.dataset, config.transform)
            known["provenance"] = with_inputs(known["provenance"], list(config.model.weight_files()), data)
            torch.manual_seed(config.seed)
            model = MODELS.build(config.model, config.transform.size, True)
            known["parameters"] = parameter_counts(model)
            frozen = frozen_digests(model)
            model.to(device)
            torch.manual_seed(config.seed)  # stochastic depth does not depend on how much chance the weights took
            with monitor.phase() as training:
                result = train(
                    model, data, config.train, config.transform, device, seed=config.seed, on_epoch=on_epoch
                )
            known["curve"] = [CurvePoint(**dataclasses.asdict(epoch)) for epoch in result.curve]
            check_frozen(model, frozen)

            def scored(split: str, spent: list[float]) -> Scores:
                part, batch_size = getattr(data, split), config.train.batch_size
                pairs = predict(model, part, config.transform, device, batch_size, config.protocol)
                return score(_timed(pairs, spent), config.protocol)

            val = scored("val", []) if len(data.val) else None
            spent: list[float] = []
            with monitor.phase() as evaluation:
                test = scored("test", spent)
        return TrialRecord(
            **known,
            status="ok",
            scores=test.overall,
            val_scores=val.overall if val else None,
            image_scores=test.images,
            memory={"training": training[0], "evaluation": evaluation[0]},
            timing=Timing(
                train_seconds=result.seconds,
                train_images_per_second=result.images / result.seconds,
                inference_images_per_second=len(data.test) / sum(spent),
                total_seconds=time.perf_counter() - started,
            ),
        )
    except Exception as error:
        if _is_out_of_memory(error):
            return TrialRecord(**known, status="oom", error=str(error).splitlines()[0])
        text = str(error) if isinstance(error, EXPLAINED) else traceback.format_exc()
        return TrialRecord(**known, status="error", error=text)


@contextmanager
def _torch_settings(threads: int, deterministic: bool) -> Iterator[None]:
    """Threads and determinism for the body. On CUDA bilinear resizing has no deterministic gradient."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _timed(items: Iterable[Item], spent: list[float]) -> Iterator[Item]:
    """Passes items on and notes the seconds that each took to come."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        spent.append(time.perf_counter() - started)
        yield item


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's error has a type of its own; torch's CPU allocator raises a plain ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def main(arguments: list[str]) -> int:
    folder, threads = arguments
    config = TrialConfig.model_validate_json(sys.stdin.read())

    def tell(epoch: Epoch) -> None:
        print(json.dumps(dataclasses.asdict(epoch)), flush=True)

    run_trial(config, threads=int(threads), on_epoch=tell).save(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
