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

from bench import checkpoint
from bench.checks import CheckFailed, check_frozen, frozen_digests
from bench.class_scores import score_classes
from bench.config import TrialConfig
from bench.datasets import DATASETS, DataError, Split
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

    A model without trainable parameters is only scored; what training would have measured is then ``None``.

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
            result, memory = None, {}
            if known["parameters"]["trainable"]:
                with monitor.phase() as training:
                    result = train(
                        model, data, config.train, config.transform, device, seed=config.seed, on_epoch=on_epoch
                    )
                memory["training"] = training[0]
                known["curve"] = [CurvePoint(**dataclasses.asdict(epoch)) for epoch in result.curve]
            check_frozen(model, frozen)

            def scored(split: Split, spent: list[float]) -> Scores:
                batch_size = config.train.batch_size
                timed = _timed(predict(model, split, config.transform, device, batch_size, config.protocol), spent)
                if config.num_classes > 1:
                    return score_classes(timed, config.num_classes)
                return score(timed, config.protocol)

            learnt = checkpoint.pack(model, config, frozen) if result else None
            val = scored(data.val, []) if len(data.val) else None
            spent: list[float] = []
            with monitor.phase() as evaluation:
                tests = {name: scored(split, spent) for name, split in data.tests.items()}
            if changes := data.changed():
                raise DataError(["the data changed while the trial ran:", *changes])
            sets = {name: test.overall for name, test in tests.items()}
        return TrialRecord(
            **known,
            status="ok",
            scores=next(iter(sets.values())),
            test_sets=sets,
            val_scores=val.overall if val else None,
            image_scores=_image_scores(tests),
            checkpoint=learnt,
            checkpoint_bytes=len(learnt) if learnt else None,
            memory={**memory, "evaluation": evaluation[0]},
            timing=Timing(
                train_seconds=result.seconds if result else None,
                train_images_per_second=result.images / result.seconds if result else None,
                inference_images_per_second=sum(map(len, data.tests.values())) / sum(spent),
                total_seconds=time.perf_counter() - started,
            ),
        )
    except Exception as error:
        if _is_out_of_memory(error):
            return TrialRecord(**known, status="oom", error=str(error).splitlines()[0])
        text = str(error) if isinstance(error, EXPLAINED) else traceback.format_exc()
        return TrialRecord(**known, status="error", error=text)


def _image_scores(tests: dict[str, Scores]) -> dict[str, list]:
    """Name, test set and metrics of every image of all test sets, one after the other."""
    first = next(iter(tests.values()))
    columns = {column: [value for test in tests.values() for value in test.images[column]] for column in first.images}
    names = columns.pop("name")
    return {"name": names, "set": [name for name, test in tests.items() for _ in test.images["name"]], **columns}


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
