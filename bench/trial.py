"""One trial: build, train, measure, score, record. Needs neither Ray, nor a process of its own, nor a results folder."""

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import Data, DataError, Split
from bench.memory.budget import at_failure, clean_card, limit_allocator, noted_when_full, over_budget, predicted_bytes
from bench.memory.energy import Meter, busy_share, energy_of
from bench.memory.latency import latency
from bench.memory.measure import MeasurementSpoiled, MemoryMonitor, conditions
from bench.memory.tracked_step import TrackedStep
from bench.records.memory import Memory
from bench.records.outcome import Outcome
from bench.records.provenance import provenance, with_inputs
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.scoring import sample_predictions
from bench.scoring.classes import score_classes
from bench.scoring.evaluate import predict, timed
from bench.scoring.metric_types import NotFinite, Scores
from bench.scoring.metrics import columns_of, score
from bench.scoring.workers import ScoringFailed, ScoringWorkers, scoring_workers
from bench.system.device import device_of, float32_products
from bench.system.torch_settings import older_objects_are_kept, torch_settings
from bench.training import feature_cache, trained_weights, training_state
from bench.training.checks import CheckFailed, check_frozen, frozen_digests
from bench.training.data_parallel import Share
from bench.training.loop import Diverged, Epoch, TrainResult, train
from models import MODELS
from models.core.encoder_decoder import parameter_counts
from models.core.registry import InvalidModel
from models.core.weights import WeightsError

TRAINING_IMAGES = 32
"""Largest number of training images that are scored."""
UNTRAINED = {"train_seconds": None, "train_images_per_second": None}
EXPLAINED = (CheckFailed, DataError, InvalidModel, MeasurementSpoiled, NotFinite, ScoringFailed, WeightsError)
"""Errors whose text is a complete explanation. The record of any other error holds its traceback."""


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
    """Trains and scores one configuration. Never raises: an error becomes status and error text of the record.

    A model without trainable parameters is only scored; its record has no measurements of training.

    On a CPU the scores depend on the configuration, the versions of packages and the number of threads only.

    trials_at_once: number of trials that share the machine, for the record; on_epoch: called after each epoch;
    on_step: called after each batch of training and evaluation; checkpoints: where training resumes, and where its
    state is saved; share: the part of this process in data parallel training, in which only rank 0 scores.
    """
    trial = _Trial(config, threads, trials_at_once, on_epoch, on_step, checkpoints, share)
    with older_objects_are_kept():
        outcome = trial.run()
        try:
            clean_card(config)
        except Exception as error:  # the measurements before it are valid
            outcome.notes.append(f"the card could not be cleaned up after the trial: {error}")
    return outcome.record(config)


@dataclass(frozen=True)
class _Inputs:
    """The model and the data of a trial on its device."""

    device: torch.device
    model: nn.Module
    data: Data
    frozen: dict[str, str]  # digests of the frozen weights by name
    trained_part: nn.Module  # the model, or its part behind the feature cache
    its_data: Data  # the data, or features in the place of images


@dataclass(frozen=True)
class _Trained:
    result: TrainResult | None  # None for a model without trainable parameters
    memory: dict[str, Memory]
    energy: Meter | None


@dataclass
class _Trial:
    config: TrialConfig
    threads: int
    trials_at_once: int
    on_epoch: Callable[[Epoch], Any]
    on_step: Callable[[], Any]
    checkpoints: training_state.TrainingStates | None
    share: Share
    outcome: Outcome = field(default_factory=Outcome)
    started: float = field(default_factory=time.perf_counter)

    def run(self) -> Outcome:
        """Runs the steps; an error ends them and is part of the outcome."""
        try:
            with noted_when_full(self.config, self.share, self.outcome), ExitStack() as stack:
                self._run(stack)
        except Diverged as error:
            self.outcome.status, self.outcome.error = "diverged", str(error)
            self.outcome.curve, self.outcome.diverged_at_step = _points(error.curve), error.step
        except Exception as error:
            self._fail(error)
        return self.outcome

    def _run(self, stack: ExitStack) -> None:
        device = self._configure(stack)
        budget = self.config.memory.budget_gib
        if budget:
            predicted = predicted_bytes(self.config, self.share)
            reason = over_budget(self.config, predicted)
            if reason:
                self.outcome.status, self.outcome.error = "over budget", reason
                self.outcome.memory_at_failure = at_failure(self.config, predicted, None)
                return
            limit_allocator(device, budget)
        monitor = stack.enter_context(MemoryMonitor(device, self.config.memory))
        idle = Meter(monitor.counters)
        idle.start()
        inputs = self._build(device, idle)
        trained = self._train(inputs, monitor)
        check_frozen(inputs.model, inputs.frozen)
        if self.share.rank == 0:
            self._evaluate(inputs, trained, monitor, idle)
        else:
            self.outcome.memory = trained.memory
        self.outcome.status = "ok"

    def _configure(self, stack: ExitStack) -> torch.device:
        """Sets up torch for the trial and notes the conditions of its measurements."""
        config, outcome = self.config, self.outcome
        stack.enter_context(torch_settings(self.threads, deterministic=config.device == "cpu"))
        device = device_of(config.device)
        stack.enter_context(float32_products(device, config.train.tf32))
        origin = provenance(device, self.trials_at_once)
        outcome.provenance = origin.model_copy(update={"devices": self.share.of})
        checkpointing = getattr(getattr(config.model, "encoder", None), "checkpointing", None)
        outcome.memory_conditions = conditions(device, config.train.precision, checkpointing)
        return device

    def _build(self, device: torch.device, idle: Meter) -> _Inputs:
        """Reads the data, builds the model on the device, and puts the feature cache between them if it is used.

        idle: measures the card until the model is on it.
        """
        config, outcome = self.config, self.outcome
        data = DATASETS.build(config.drawn_dataset, config.transform)
        outcome.provenance = with_inputs(outcome.provenance, list(config.model.weight_files()), data)
        torch.manual_seed(config.seed)
        model = MODELS.build(config.model, config.transform.size, True)
        outcome.parameters = parameter_counts(model)
        frozen = frozen_digests(model)
        idle.stop()
        model.to(device)
        trained_part, its_data, outcome.feature_cache = feature_cache.through_cache(model, data, config, device, frozen)
        # stochastic depth must not depend on the number of random draws that the weights took
        torch.manual_seed(self.share.seed(config.seed))
        if self.checkpoints is not None:
            digest = trained_weights.frozen_digest(frozen)
            state = training_state.fingerprint(outcome.provenance, digest, outcome.feature_cache)
            self.checkpoints.expect(state)
            outcome.notes = self.checkpoints.notes  # the list of the checkpoints, to which training appends
            outcome.resumed_from_epochs = self.checkpoints.resumed_from
        return _Inputs(device, model, data, frozen, trained_part, its_data)

    def _train(self, inputs: _Inputs, monitor: MemoryMonitor) -> _Trained:
        """Trains the model and measures the memory of training."""
        config, checkpoints = self.config, self.checkpoints
        if not self.outcome.parameters["trainable"]:
            return _Trained(None, {}, None)
        tracked, meter = TrackedStep(), Meter(monitor.counters)
        with monitor.phase("training") as training:
            result = train(
                inputs.trained_part,
                inputs.its_data,
                config.train,
                config.transform,
                inputs.device,
                seed=config.seed,
                on_epoch=self.on_epoch,
                on_step=self.on_step,
                observe=tracked if inputs.device.type == "cpu" else None,
                resume=checkpoints,
                share=self.share,
                meter=meter,
            )
        peaks = measured = training[0].model_copy(update={"tensor_bytes": tracked.bytes})
        if checkpoints is not None:
            if checkpoints.resumed_from[-1:] == [config.train.epochs]:
                peaks = checkpoints.memory  # an earlier process has trained and measured
            checkpoints.after_training(measured)
        self.outcome.curve = _points(result.curve)
        self.outcome.notes += result.notes
        return _Trained(result, {} if peaks is None else {"training": peaks}, meter)

    def _evaluate(self, inputs: _Inputs, trained: _Trained, monitor: MemoryMonitor, idle: Meter) -> None:
        """Scores validation and test splits, and measures memory, speed and energy of inference."""
        config, outcome, result = self.config, self.outcome, trained.result
        device, data, its_data, trained_part = inputs.device, inputs.data, inputs.its_data, inputs.trained_part
        learnt = trained_weights.pack(inputs.model, config, inputs.frozen) if result else None
        spent: list[float] = []
        meter = Meter(monitor.counters)
        with self._workers(data, device) as workers:
            val = self._score(trained_part, its_data.val, device, [], workers) if len(data.val) else None
            if result:
                some = data.train.some(TRAINING_IMAGES)
                outcome.train_scores = self._score(inputs.model, some, device, [], workers).overall
            with monitor.phase("evaluation") as evaluation:
                meter.start()
                tests = {}
                for name, split in its_data.tests.items():
                    tests[name] = self._score(trained_part, split, device, spent, workers)
                meter.stop(sum(map(len, data.tests.values())))

        def predict_images(split: Split) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            return self._predict(inputs.model, split, device)  # images, not cached features

        first = next(iter(tests))
        samples = sample_predictions.take(data.tests[first], tests[first].images, predict_images, config.num_classes)
        changes = data.changed()
        if changes:
            raise DataError(["the data changed while the trial ran:", *changes])
        one_image = latency(inputs.model, data.tests[first], config.transform, device)
        earlier = self.checkpoints.earlier_seconds if self.checkpoints else 0.0
        outcome.scores = tests[first].overall
        outcome.test_sets = {name: test.overall for name, test in tests.items()}
        outcome.val_scores = val.overall if val else None
        outcome.image_scores = columns_of(tests)
        outcome.checkpoint, outcome.checkpoint_bytes = learnt, len(learnt) if learnt else None
        outcome.memory = {**trained.memory, "evaluation": evaluation[0]}
        outcome.energy = energy_of(idle, trained.energy, meter, outcome.memory, self.share.of)
        outcome.memory_series, outcome.samples = monitor.series_table(), samples
        outcome.timing = Timing(
            **(result.timing if result else UNTRAINED),
            inference_images_per_second=sum(map(len, data.tests.values())) / sum(spent),
            total_seconds=time.perf_counter() - self.started + earlier,
            latency_seconds=one_image,
            train_busy_share=busy_share(trained.energy, outcome.memory.get("training")),
            inference_busy_share=busy_share(meter, outcome.memory["evaluation"]),
        )

    def _predict(
        self, model: nn.Module, split: Split, device: torch.device
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        config = self.config
        return predict(model, split, config.transform, device, config.train.batch_size, config.protocol)

    def _workers(self, data: Data, device: torch.device) -> AbstractContextManager[ScoringWorkers | None]:
        """Opens workers that score maps on the trial's cores. On a CPU the forward passes need the same cores."""
        cores = self.threads if self.config.num_classes == 1 else 1
        images = len(data.val) + sum(map(len, data.tests.values()))
        return scoring_workers(cores, images, self.config.train.batch_size if device.type == "cpu" else None)

    def _score(
        self, model: nn.Module, split: Split, device: torch.device, spent: list[float], workers: ScoringWorkers | None
    ) -> Scores:
        """Scores a split; appends the seconds of inference for each image to ``spent``."""
        predictions = timed(self._predict(model, split, device), spent, self.on_step)
        if self.config.num_classes > 1:
            return score_classes(predictions, self.config.num_classes)
        return (workers.score if workers else score)(predictions, self.config.protocol)

    def _fail(self, error: Exception) -> None:
        """Notes an error as out of memory, or with all that explains it."""
        outcome = self.outcome
        seconds = time.perf_counter() - self.started
        outcome.timing = Timing(**UNTRAINED, inference_images_per_second=None, total_seconds=seconds)
        if outcome.memory_at_failure is not None:  # memory ran out
            outcome.status = "oom"
            outcome.error = str(error).splitlines()[0] if str(error) else type(error).__name__
            return
        outcome.error = str(error) if isinstance(error, EXPLAINED) else traceback.format_exc()
        if self.checkpoints is not None and self.checkpoints.has_trained:
            outcome.notes.append("what it has learnt is kept: the same command repeats the scoring alone")


def _points(curve: Iterable[Epoch]) -> list[CurvePoint]:
    return [CurvePoint(**dataclasses.asdict(epoch)) for epoch in curve]
