"""One trial: build, train, measure, score, record. Needs neither Ray, nor a process of its own, nor a results folder."""

import dataclasses
import gc
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import DataError, Split
from bench.memory import card_generations
from bench.memory.latency import latency
from bench.memory.measure import MeasurementSpoiled, MemoryMonitor, conditions
from bench.memory.predicted_peak import predict_peak
from bench.records.provenance import provenance, with_inputs
from bench.records.record import CurvePoint, MemoryAtFailure, Timing, TrialRecord
from bench.scoring import sample_predictions
from bench.scoring.classes import score_classes
from bench.scoring.evaluate import predict
from bench.scoring.metrics import NotFinite, Scores, score
from bench.system.device import device_of, float32_products
from bench.training import feature_cache, trained_weights, training_state
from bench.training.checks import CheckFailed, check_frozen, frozen_digests
from bench.training.data_parallel import Share
from bench.training.loop import Diverged, Epoch, train
from models import MODELS
from models.core.encoder_decoder import parameter_counts
from models.core.registry import InvalidModel
from models.core.weights import WeightsError

Item = TypeVar("Item")
EXPLAINED = (CheckFailed, DataError, InvalidModel, MeasurementSpoiled, NotFinite, WeightsError)
"""Failures that say all there is to say; anything else is recorded with its traceback."""
GIB = 2**30
FAR_ABOVE = 1.2
"""A trial predicted to need more than so many times its budget is not run: the prediction's error is far smaller."""


def run_trial(
    config: TrialConfig,
    *,
    threads: int = 1,
    trials_at_once: int = 1,
    on_epoch: Callable[[Epoch], Any] = lambda epoch: None,
    on_step: Callable[[], Any] = lambda: None,
    checkpoints: training_state.TrainingStates | None = None,
    share: Share = Share(),
) -> TrialRecord:
    """Trains and scores one configuration. Never raises: what goes wrong becomes the record's status and error.

    ``on_step`` is called after every batch, in training and in evaluation. With ``checkpoints`` the trial goes on from
    the last one, and leaves new ones.

    A model without trainable parameters is only scored; what training would have measured is then ``None``.

    On a CPU the scores depend on nothing but the configuration, the versions and the number of threads.
    ``trials_at_once`` is only noted: it says who else was busy on this machine while speed was measured.

    share: of several processes that train together (``bench.processes.multi_gpu``), which this one is; only rank 0 scores.
    """
    known: dict[str, Any] = {"trial_id": config.trial_id, "config": config.model_dump(mode="json")}
    with _imports_are_no_garbage():
        record = _run(config, known, threads, trials_at_once, on_epoch, on_step, checkpoints, share)
        try:
            _clean(config)
        except Exception as error:  # it comes after the trial: what was measured stays true
            note = f"the card could not be cleaned up after the trial: {error}"
            record = record.model_copy(update={"notes": [*record.notes, note]})
    return record


def _predicted(config: TrialConfig, share: Share) -> int | None:
    """Predicted peak of a training step in bytes, on the card that is here; ``None`` for a model that cannot be
    followed on fake tensors."""
    per_rank = config.train.model_copy(update={"batch_size": -(-config.train.batch_size // share.of)})
    try:
        generation = card_generations.of_device(device_of(config.device))
        return predict_peak(config.model_copy(update={"train": per_rank}), generation).allocated
    except Exception:  # a figure beside the record must never become the reason why there is none
        return None


def _over_budget(config: TrialConfig, known: dict[str, Any], predicted: int) -> TrialRecord:
    budget = config.memory.budget_gib
    limit = f"{FAR_ABOVE} x memory.budget_gib {budget:g}"
    text = f"not run: predicted to allocate {predicted / GIB:.2f} GiB, more than {limit}"
    numbers = {"predicted_allocated_bytes": predicted, "budget_bytes": round(budget * GIB)}
    at_failure = MemoryAtFailure(torch_reserved_bytes=None, **numbers)
    return TrialRecord(**known, status="over budget", error=text, memory_at_failure=at_failure)


def _limit(device: torch.device, budget_gib: float) -> None:
    """From now on torch's allocator refuses what goes beyond the budget. There is no such limit on a CPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_gib * GIB / total), device)


def _clean(config: TrialConfig) -> None:
    """Leaves nothing on the card, and no limit, for whoever runs next in this process."""
    on_gpu = config.device == "cuda" and torch.cuda.is_initialized()
    if on_gpu and config.memory.budget_gib is not None:
        torch.cuda.set_per_process_memory_fraction(1.0, device_of("cuda"))
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()


def _run(
    config: TrialConfig,
    known: dict[str, Any],
    threads: int,
    trials_at_once: int,
    on_epoch: Callable[[Epoch], Any],
    on_step: Callable[[], Any],
    checkpoints: training_state.TrainingStates | None,
    share: Share,
) -> TrialRecord:
    """The trial itself; ``known`` collects what the record will say even if the trial fails."""
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            stack.enter_context(_torch_settings(threads, deterministic=config.device == "cpu"))
            device = device_of(config.device)
            stack.enter_context(float32_products(device, config.train.tf32))
            known["provenance"] = provenance(device, trials_at_once).model_copy(update={"devices": share.of})
            checkpointing = getattr(getattr(config.model, "encoder", None), "checkpointing", None)
            known["memory_conditions"] = conditions(device, config.train.precision, checkpointing)
            if budget := config.memory.budget_gib:
                predicted_bytes = _predicted(config, share)
                if predicted_bytes is not None and predicted_bytes > FAR_ABOVE * budget * GIB:
                    return _over_budget(config, known, predicted_bytes)
                _limit(device, budget)
            monitor = stack.enter_context(MemoryMonitor(device, config.memory))
            data = DATASETS.build(config.dataset, config.transform)
            known["provenance"] = with_inputs(known["provenance"], list(config.model.weight_files()), data)
            torch.manual_seed(config.seed)
            model = MODELS.build(config.model, config.transform.size, True)
            known["parameters"] = parameter_counts(model)
            frozen = frozen_digests(model)
            model.to(device)
            running, fed, known["feature_cache"] = feature_cache.through_cache(model, data, config, device, frozen)
            # stochastic depth does not depend on how much chance the weights took
            torch.manual_seed(share.seed(config.seed))
            if checkpoints is not None:
                digest = trained_weights.frozen_digest(frozen)
                checkpoints.expect(training_state.fingerprint(known["provenance"], digest, known["feature_cache"]))
                known |= {
                    "notes": checkpoints.notes,
                    "resumed_from_epochs": checkpoints.resumed_from,
                }  # lists that grow
            result, memory = None, {}
            if known["parameters"]["trainable"]:
                with monitor.phase("training") as training:
                    result = train(
                        running,
                        fed,
                        config.train,
                        config.transform,
                        device,
                        seed=config.seed,
                        on_epoch=on_epoch,
                        on_step=on_step,
                        resume=checkpoints,
                        share=share,
                    )
                if checkpoints is None or checkpoints.resumed_from[-1:] != [config.train.epochs]:
                    memory["training"] = training[0]
                elif checkpoints.memory is not None:  # nothing was left to train, and the earlier part measured it
                    memory["training"] = checkpoints.memory
                if checkpoints is not None:
                    checkpoints.after_training(training[0])
                known["curve"] = [CurvePoint(**dataclasses.asdict(epoch)) for epoch in result.curve]
            check_frozen(model, frozen)
            if share.rank:
                return TrialRecord(**known, status="ok", memory=memory)

            def predicted(split: Split, by: nn.Module) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
                return predict(by, split, config.transform, device, config.train.batch_size, config.protocol)

            def scored(split: Split, spent: list[float]) -> Scores:
                timed = _timed(predicted(split, running), spent, on_step)
                if config.num_classes > 1:
                    return score_classes(timed, config.num_classes)
                return score(timed, config.protocol)

            learnt = trained_weights.pack(model, config, frozen) if result else None
            val = scored(fed.val, []) if len(data.val) else None
            spent: list[float] = []
            with monitor.phase("evaluation") as evaluation:
                tests = {name: scored(split, spent) for name, split in fed.tests.items()}
            first = next(iter(tests))
            whole = partial(predicted, by=model)  # a few images, whose features are not numbered
            shown = sample_predictions.take(data.tests[first], tests[first].images, whole, config.num_classes)
            if changes := data.changed():
                raise DataError(["the data changed while the trial ran:", *changes])
            one_image = latency(model, next(iter(data.tests.values())), config.transform, device)
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
            memory_series=monitor.series_table(),
            samples=shown,
            timing=Timing(
                train_seconds=result.seconds if result else None,
                train_images_per_second=result.images / result.seconds if result else None,
                inference_images_per_second=sum(map(len, data.tests.values())) / sum(spent),
                total_seconds=time.perf_counter() - started + (checkpoints.earlier_seconds if checkpoints else 0.0),
                latency_seconds=one_image,
            ),
        )
    except Diverged as error:
        known["curve"] = [CurvePoint(**dataclasses.asdict(epoch)) for epoch in error.curve]
        return TrialRecord(**known, status="diverged", error=str(error), diverged_at_step=error.step)
    except Exception as error:
        spent = time.perf_counter() - started
        known["timing"] = Timing(
            train_seconds=None, train_images_per_second=None, inference_images_per_second=None, total_seconds=spent
        )
        if _is_out_of_memory(error):
            budget = config.memory.budget_gib
            at_failure = MemoryAtFailure(
                torch_reserved_bytes=_reserved_bytes(config),
                predicted_allocated_bytes=_predicted(config, share),
                budget_bytes=budget and round(budget * GIB),
            )
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            return TrialRecord(**known, status="oom", error=text, memory_at_failure=at_failure)
        text = str(error) if isinstance(error, EXPLAINED) else traceback.format_exc()
        if checkpoints is not None and checkpoints.has_trained:
            checkpoints.notes.append("what it has learnt is kept: the same command repeats the scoring alone")
        return TrialRecord(**known, status="error", error=text)


def _reserved_bytes(config: TrialConfig) -> int | None:
    """What torch's allocator holds on the card; ``None`` on a CPU, and where the card does not answer any more."""
    with suppress(Exception):
        return torch.cuda.memory_reserved(device_of("cuda")) if config.device == "cuda" else None
    return None


def _image_scores(tests: dict[str, Scores]) -> dict[str, list]:
    """Name, test set and metrics of every image of all test sets, one after the other."""
    first = next(iter(tests.values()))
    columns = {column: [value for test in tests.values() for value in test.images[column]] for column in first.images}
    names = columns.pop("name")
    return {"name": names, "set": [name for name, test in tests.items() for _ in test.images["name"]], **columns}


@contextmanager
def _imports_are_no_garbage() -> Iterator[None]:
    """What was there before the body is left out when memory is collected: of a million objects of torch and others
    none is garbage, and to look through them before every phase takes longer than a small trial's training."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _torch_settings(threads: int, deterministic: bool) -> Iterator[None]:
    """Threads and determinism for the body. On CUDA bilinear resizing has no deterministic gradient.

    The debug mode is the same switch as ``use_deterministic_algorithms``, which also imports all of torch's compiler
    in order to tell it: more than a second in every process, and nothing is compiled here.
    """
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])


def _timed(items: Iterable[Item], spent: list[float], on_step: Callable[[], Any]) -> Iterator[Item]:
    """Passes items on, notes the seconds that each took to come, and gives a sign of life."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        spent.append(time.perf_counter() - started)
        on_step()
        yield item


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's error has a type of its own; torch's CPU allocator raises a plain ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
