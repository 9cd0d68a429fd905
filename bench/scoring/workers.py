"""Maps of a trial are scored in worker processes, beside the forward passes; the scores are the same to the bit.

A trial with one core, with few images, or with classes scores in its own process. The workers come from Python's
``forkserver``: it is a new process without CUDA and threads, which imports once what the workers need.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice

import numpy as np

from bench.config.settings import ProtocolConfig
from bench.scoring import metrics
from bench.scoring.metric_types import Measured, Scores
from bench.system.in_order import in_order

Triple = tuple[str, np.ndarray, np.ndarray]
"""Name, prediction and mask of an image."""
FEWEST_IMAGES = 500
"""Number of images from which the workers, whose imports take about two seconds, save time."""
AHEAD = 4
"""Maps per worker that may wait for it. A trial with more of them waits before its next forward pass."""


class ScoringFailed(Exception):
    """A worker process ended before it had scored its maps."""


class ScoringWorkers:
    """Scores sets of maps in several processes. The processes start with the first map."""

    def __init__(self, executor: ProcessPoolExecutor, count: int, turns_of: int | None) -> None:
        """turns_of: number of maps that are predicted while no worker computes, and then scored while nothing is
        predicted. ``None``: both go on at the same time, with at most ``AHEAD * count`` maps in between."""
        self.executor, self.count, self.turns_of = executor, count, turns_of

    def score(self, triples: Iterable[Triple], protocol: ProtocolConfig) -> Scores:
        """Scores (name, prediction, mask) triples as ``bench.scoring.metrics.score``, whose digits and errors it has.

        Raises ``ScoringFailed``, too.
        """
        names: list[str] = []
        counted = _named(triples, names)
        measure_all = self._beside if self.turns_of is None else self._in_turns
        try:
            measured = list(measure_all(counted, protocol))
        except BrokenProcessPool:
            reason = "by a signal, perhaps for too little memory"
            remedy = "--cpus-per-trial 1 scores in the trial's own process"
            raise ScoringFailed(f"a process that scores maps was ended {reason}; {remedy}") from None
        return metrics.collect(names, measured, protocol)

    def _beside(self, triples: Iterator[Triple], protocol: ProtocolConfig) -> Iterator[Measured]:
        return in_order((self._submit(triple, protocol) for triple in triples), AHEAD * self.count - 1)

    def _in_turns(self, triples: Iterator[Triple], protocol: ProtocolConfig) -> Iterator[Measured]:
        while turn := list(islice(triples, self.turns_of)):
            for future in [self._submit(triple, protocol) for triple in turn]:
                yield future.result()

    def _submit(self, triple: Triple, protocol: ProtocolConfig) -> "Future[Measured]":
        _, prediction, mask = triple
        return self.executor.submit(metrics.measure, prediction, mask, protocol)


@contextmanager
def scoring_workers(cores: int, images: int, turns_of: int | None) -> Iterator[ScoringWorkers | None]:
    """Gives workers on ``cores`` cores for a number of images, and ends them; ``None`` where they save no time.

    turns_of: as ``ScoringWorkers`` takes it.
    """
    if cores == 1 or images < FEWEST_IMAGES:
        yield None
        return
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload([__name__, "bench.scoring.sod_measures"])
    executor = ProcessPoolExecutor(cores, context, _begin_worker)
    try:
        yield ScoringWorkers(executor, cores, turns_of)
    finally:
        executor.shutdown(cancel_futures=True)


def _named(triples: Iterable[Triple], names: list[str]) -> Iterator[Triple]:
    """Passes triples on and appends the name of each to ``names``."""
    for triple in triples:
        names.append(triple[0])
        yield triple


def _begin_worker() -> None:
    """Leaves signals to the trial, and ends this process with the trial, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_trial, daemon=True).start()


def _end_with_trial() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
