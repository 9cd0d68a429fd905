"""Batches that are read ahead: the same ones in the same order, errors at their place, and no thread that is left."""

import functools
import threading
import time

import numpy as np
import pytest
import torch

from bench.datasets import DataError, Split
from bench.datasets.core.prefetch import batches, read_ahead
from bench.trial import run_trial

CPU = torch.device("cpu")


def split(count=10):
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    names = tuple(map(str, range(count)))
    return Split(images, images[..., 0], np.arange(count), names, lambda i: np.full((3, 3), i, np.uint8))


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_same_batches_in_the_same_order(ahead):
    order = [np.array([4, 1]), np.array([9, 0]), np.array([3])]
    found = list(batches(split(), order, CPU, with_truths=True, ahead=ahead))
    assert len(found) == 3 and not readers()
    for chosen, (images, masks, truths) in zip(order, found):
        expected = split().batch(chosen, CPU)
        assert torch.equal(images, expected[0]) and torch.equal(masks, expected[1])
        assert [truth[0, 0] for truth in truths] == list(chosen)


def test_on_a_cpu_nothing_is_read_before_it_is_needed():
    read = []
    few = split()
    lazy = Split(few.images, few.masks, few.indices, few.names, lambda i: read.append(i) or few.ground_truth(i))
    found = batches(lazy, np.split(np.arange(10), 5), CPU, with_truths=True)
    truths = iter(next(found).truths)
    assert read == [] and not readers()
    next(truths)
    assert read == [0]


def test_the_thread_is_at_most_the_given_number_of_results_ahead():
    read = []
    results = read_ahead(lambda i: read.append(i) or i, range(100), 2)
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read == [0, 1, 2]
    results.close()
    assert not readers()


def test_an_error_comes_at_the_place_of_its_batch():
    def read(i):
        if i == 2:
            raise DataError(["b.png: is gone"])
        return i

    results = read_ahead(read, range(5), 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError, match="b.png: is gone"):
        next(results)
    assert not readers()


def test_a_loop_that_fails_leaves_no_thread():
    def loop():
        for _ in batches(split(), np.split(np.arange(10), 5), CPU, ahead=1):
            raise ValueError("the step failed")

    with pytest.raises(ValueError):
        loop()
    del loop
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not readers()


def test_a_trial_whose_batches_are_read_ahead_has_the_same_digits(monkeypatch, tiny_with):
    config = tiny_with({"train.epochs": 2})
    plain = run_trial(config)
    used = []
    for user in ("bench.training.loop", "bench.scoring.evaluate"):
        read = functools.partial(batches, ahead=2)
        monkeypatch.setattr(
            f"{user}.batches", lambda *given, _read=read, **more: used.append(1) or _read(*given, **more)
        )
    ahead = run_trial(config)
    assert used and (ahead.status, ahead.curve, ahead.scores) == ("ok", plain.curve, plain.scores)
    assert ahead.image_scores == plain.image_scores and not readers()


def test_a_trial_that_diverges_leaves_no_thread(monkeypatch, tiny_with):
    monkeypatch.setattr("bench.training.loop.batches", functools.partial(batches, ahead=2))
    assert run_trial(tiny_with({"train.epochs": 3, "train.lr": 1e30})).status == "diverged"
    assert not readers()


def test_a_file_that_is_gone_is_the_error_of_the_trial(monkeypatch, tiny_with):
    def gone(split, i):
        raise DataError(["masks/b.png: is gone"])

    monkeypatch.setattr("bench.scoring.evaluate.batches", functools.partial(batches, ahead=2))
    monkeypatch.setattr(Split, "ground_truth", gone)
    record = run_trial(tiny_with({}))
    assert (record.status, record.error) == ("error", "masks/b.png: is gone") and not readers()
