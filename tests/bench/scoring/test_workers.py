"""Scoring in worker processes: the same digits, bounded memory, clear errors, and no process that is left."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from bench.config.settings import ProtocolConfig
from bench.scoring import workers
from bench.scoring.metric_types import NotFinite
from bench.scoring.metrics import score
from bench.scoring.workers import AHEAD, ScoringFailed, scoring_workers
from bench.trial import run_trial

PROTOCOL = ProtocolConfig()


@pytest.fixture(autouse=True)
def _few_images_are_enough(monkeypatch):
    monkeypatch.setattr(workers, "FEWEST_IMAGES", 1)


def triples(count, side=24):
    for i in range(count):
        draws = np.random.default_rng(i)
        mask = np.zeros((side, side + i), np.uint8)
        mask[4:12, 6:20] = 255
        yield f"image{i}", draws.integers(0, 256, mask.shape, np.uint8), mask


@pytest.mark.parametrize("name", ["sod", "mirror"])
@pytest.mark.parametrize(("cores", "turns_of"), [(1, None), (2, None), (3, None), (2, 4)])
def test_scores_are_the_same_to_the_bit_and_in_the_same_order(name, cores, turns_of):
    protocol = ProtocolConfig(name=name)
    expected = score(triples(11), protocol)
    with scoring_workers(cores, 11, turns_of) as pool:
        assert (pool is None) == (cores == 1)
        assert (pool.score if pool else score)(triples(11), protocol) == expected
    assert not _scorers()


def _scorers():
    """Workers of this process's fork server."""
    server = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return [worker for each in server for worker in each.children()]


def test_one_core_or_few_images_need_no_workers(monkeypatch):
    monkeypatch.setattr(workers, "FEWEST_IMAGES", 500)
    for cores, images in ((1, 5000), (8, 499)):
        with scoring_workers(cores, images, None) as pool:
            assert pool is None


@pytest.mark.parametrize(("turns_of", "most"), [(None, AHEAD * 2), (5, 5)])
def test_maps_that_wait_are_bounded(monkeypatch, turns_of, most):
    with scoring_workers(2, 100, turns_of) as pool:
        submitted, finished, waiting = [], [], []
        submit = pool.executor.submit

        def counted(*arguments):
            future = submit(*arguments)
            submitted.append(future)
            collect = future.result
            future.result = lambda: finished.append(future) or collect()
            waiting.append(len(submitted) - len(finished))
            return future

        monkeypatch.setattr(pool.executor, "submit", counted)
        pool.score(triples(40), PROTOCOL)
    assert len(submitted) == 40 and max(waiting) == most


def test_in_turns_nothing_is_predicted_while_a_worker_computes():
    futures = []

    def watched():
        for number, triple in enumerate(triples(9)):
            if number % 3 == 0:
                assert all(future.done() for future in futures)
            yield triple

    with scoring_workers(2, 9, 3) as pool:
        submit = pool.executor.submit
        pool.executor.submit = lambda *arguments: futures.append(submit(*arguments)) or futures[-1]
        pool.score(watched(), PROTOCOL)
    assert len(futures) == 9


def test_a_score_that_is_not_finite_names_its_image():
    def broken():
        yield from triples(3)
        yield "broken", np.full((24, 24), np.nan), np.zeros((24, 24), np.uint8)

    with scoring_workers(2, 4, None) as pool, pytest.raises(NotFinite, match="broken: .*not a finite number"):
        pool.score(broken(), ProtocolConfig(name="mirror"))


def test_an_error_of_the_predictions_ends_the_workers():
    def failing():
        yield from triples(3)
        raise NotFinite("image n3: the model's logits are not finite")

    with scoring_workers(2, 4, None) as pool, pytest.raises(NotFinite, match="n3"):
        pool.score(failing(), PROTOCOL)
    assert not _scorers()


def test_a_killed_worker_is_a_clear_error():
    def killing():
        yield from triples(4)
        os.kill(next(iter(pool.executor._processes)), signal.SIGKILL)
        yield from triples(40)

    with scoring_workers(2, 44, None) as pool, pytest.raises(ScoringFailed, match="--cpus-per-trial 1"):
        pool.score(killing(), PROTOCOL)
    assert not _scorers()


TRIAL = """
import time
from bench.scoring import workers
workers.FEWEST_IMAGES = 1
if __name__ == "__main__":
    import numpy as np
    from bench.config.settings import ProtocolConfig
    def forever():
        while True:
            yield "a", np.zeros((400, 400), np.uint8), np.full((400, 400), 255, np.uint8)
    with workers.scoring_workers(2, 5, None) as pool:
        pool.score(forever(), ProtocolConfig())
"""


def test_a_killed_trial_leaves_no_process(tmp_path):
    file = tmp_path / "trial.py"
    file.write_text(TRIAL)
    child = subprocess.Popen([sys.executable, str(file)])
    trial = psutil.Process(child.pid)
    found, deadline = [], time.monotonic() + 60
    while len(found) < 4 and time.monotonic() < deadline:  # fork server, tracker and two workers
        time.sleep(0.1)
        found = trial.children(recursive=True)
    assert len(found) == 4
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(found, timeout=20)
    assert not alive


def test_a_trial_has_the_same_scores_with_workers(tiny_with, monkeypatch):
    steps, seen = [], []
    monkeypatch.setattr(workers, "FEWEST_IMAGES", 6)
    plain = run_trial(tiny_with({}), threads=2)  # two validation and three test images, beside eight of training
    submit = workers.ScoringWorkers._submit
    monkeypatch.setattr(workers.ScoringWorkers, "_submit", lambda *given: seen.append(1) or submit(*given))
    monkeypatch.setattr(workers, "FEWEST_IMAGES", 5)
    beside = run_trial(tiny_with({}), threads=2, on_step=lambda: steps.append(1))
    assert len(seen) == 13, "the first trial has too few images for workers"
    assert (beside.status, beside.scores, beside.val_scores) == (plain.status, plain.scores, plain.val_scores)
    assert beside.image_scores == plain.image_scores and len(steps) == 2 + 1 + 13, (
        "training, validation and each scored image go on"
    )
