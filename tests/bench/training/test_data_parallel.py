"""Data parallel training: the ranks together do what a single process does."""

import os
import signal

import psutil
import pytest
import torch
from conftest import children_named
from fake_cuda import FakeCuda
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from timm.layers import BatchNormAct2d
from torch import nn

from bench.config.trial import TrialConfig, with_value
from bench.processes.multi_gpu import _failure, run_parallel
from bench.processes.request import Request
from bench.records.record import TrialRecord
from bench.training import data_parallel, training_state
from bench.training.data_parallel import Share, distribute
from bench.trial import run_trial
from models.core.registry import InvalidModel


@pytest.fixture
def request_of(tmp_path):
    """``request_of(config)`` asks for two ranks, without checkpoints unless told otherwise."""

    def ask(config, threads=1, checkpoint_seconds=1e9):
        return Request(config.model_dump_json(), str(tmp_path), threads, checkpoint_seconds, gpus=2)

    return ask


CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def plain(tiny) -> TrialConfig:
    """Without batch norms, which need GPUs, and stochastic depth, which every rank draws for itself; 11 images in
    batches of 5, so that the last batch has one image and the others do not divide by two."""
    changes = {"model.encoder.drop_path": 0.0, "model.decoder": "linear", "dataset.train": 11}
    return with_value(tiny, changes | {"train.batch_size": 5, "train.epochs": 2, "train.lr": 1e-3})


@given(count=st.integers(1, 40), ranks=st.integers(1, 8))
def test_parts_make_up_the_batch_and_weights_its_mean(count, ranks):
    values = torch.arange(count, dtype=torch.float64) ** 2
    shares = [Share(rank, ranks) for rank in range(ranks)]
    parts = [values[share.part(count)] for share in shares]
    assert all(len(part) for part in parts)
    if count >= ranks:
        assert torch.equal(torch.cat(parts), values) and max(map(len, parts)) - min(map(len, parts)) <= 1
    mean = sum(share.weight(count) * part.mean() for share, part in zip(shares, parts)) / ranks
    torch.testing.assert_close(mean, values.mean())


def test_a_process_alone_changes_nothing():
    model = nn.Linear(2, 2)
    assert distribute(model, Share()) is model
    assert Share().part(7) == slice(0, 7) and Share().weight(7) == 1 and Share().seed(3) == 3
    assert len({Share(rank, 8).seed(seed) for rank in range(8) for seed in range(100)}) == 800


def test_batch_norm_needs_gpus():
    with pytest.raises(InvalidModel, match="batch norm over several processes needs GPUs, and this model has 1"):
        distribute(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), Share(0, 2))


def test_batch_norms_become_synchronised_ones_in_place_and_keep_their_names(monkeypatch):
    """As far as a machine without GPUs can see: the conversion, and what the wrapper is asked for."""

    class Cuda(nn.Parameter):
        is_cuda = True
        device = torch.device("cuda", 0)

    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), BatchNormAct2d(2))
    model[0].weight = Cuda(model[0].weight.detach())
    names = list(model.state_dict())
    asked = {}
    FakeCuda(monkeypatch, count=4, current=3)
    monkeypatch.setattr(
        data_parallel, "DistributedDataParallel", lambda model, **settings: asked.update(settings) or model
    )
    assert distribute(model, Share(1, 2)) is model
    assert isinstance(model[1], nn.SyncBatchNorm) and isinstance(model[2], nn.SyncBatchNorm)
    assert isinstance(model[2].act, nn.ReLU), "timm's norms keep their activation"
    assert list(model.state_dict()) == names and asked["device_ids"] == [3]


def test_two_ranks_train_what_one_process_trains(plain, request_of):
    told = []
    alone = run_trial(plain)
    together = run_parallel(request_of(plain, threads=2), on_epoch=told.append)
    assert together.status == "ok", together.error
    for a, b in zip(alone.curve, together.curve, strict=True):
        assert (a.epoch, a.lr) == (b.epoch, b.lr)
        assert (b.train_loss, b.val_loss) == pytest.approx((a.train_loss, a.val_loss), rel=1e-5)
    assert [epoch.epoch for epoch in told] == [1, 2]
    expected, found = load(alone.checkpoint), load(together.checkpoint)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)
    moved = load(run_trial(plain.model_copy(update={"seed": 1})).checkpoint)
    assert any((moved[name] - expected[name]).abs().max() > 1e-2 for name in expected), "the comparison can fail"
    assert together.scores == pytest.approx(alone.scores, abs=1e-3)
    assert together.image_scores["name"] == alone.image_scores["name"]
    peaks = [peak.rss_bytes for peak in together.ranks.training]
    assert len(peaks) == 2 and together.memory["training"].rss_bytes == max(peaks) == peaks[together.ranks.largest]
    assert together.provenance.devices == 2 and alone.provenance.devices == 1 and alone.ranks is None
    assert together.timing.train_images_per_second > 0 and together.memory_series


def test_the_death_of_a_rank_ends_the_others_and_is_said_and_the_trial_goes_on(plain, request_of, tmp_path):
    """To the same bits, with stochastic depth, which each rank draws for itself: its random states are kept, too."""
    config = with_value(plain, {"model.encoder.drop_path": 0.5, "train.epochs": 12})
    whole = run_parallel(request_of(config))

    def kill_rank_1(epoch):
        if epoch.epoch == 3:
            (victim,) = children_named(psutil.Process(), "multi_gpu 1")
            os.kill(victim.pid, signal.SIGKILL)

    record = run_parallel(request_of(config, checkpoint_seconds=0.0), on_epoch=kill_rank_1)
    assert record.status == "error" and "rank 1 of 2" in record.error and "SIGKILL" in record.error
    assert not children_named(psutil.Process(), "multi_gpu ")
    assert list(training_state.place(tmp_path, config.trial_id).iterdir())

    told = []
    again = run_parallel(request_of(config, checkpoint_seconds=1e9), on_epoch=told.append)
    assert again.status == "ok" and again.resumed_from_epochs and not again.notes, again.error
    assert [epoch.epoch for epoch in told] == list(range(1, 13)) and again.curve == whole.curve
    expected, found = load(whole.checkpoint), load(again.checkpoint)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_first_rank_that_fails_speaks_for_the_trial(tiny, tmp_path):
    """Others fail because of it, with words about connections."""
    said = {1: "the loss became nan", 0: "connection closed by peer"}
    for age, (rank, error) in enumerate(said.items()):
        folder = tmp_path / str(rank)
        folder.mkdir()
        TrialRecord(trial_id=tiny.trial_id, status="error", error=error, config={}).save(folder)
        os.utime(folder / f"{tiny.trial_id}.json", (age, age))
        (tmp_path / f"{rank}.stderr").write_text("RuntimeError: no room")
    record = _failure(tiny, [(0, 1), (1, 1)], tmp_path, 3)
    assert record.status == "error" and record.error == "rank 1 of 3: the loss became nan"
    record = _failure(tiny, [(0, 1), (1, -9)], tmp_path, 3)
    assert record.error.startswith("RuntimeError: no room\nrank 1 of 3: the process was killed by SIGKILL")
