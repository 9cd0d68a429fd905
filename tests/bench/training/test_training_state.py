"""A trial that is cut short at any moment and goes on ends as if nothing had happened; what a stored state may not do."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save_file

from bench.config.trial import DATASETS, TrialConfig
from bench.records.provenance import provenance
from bench.scoring import sod_measures
from bench.system import files
from bench.training import training_state
from bench.training.loop import train
from bench.training.training_state import TrainingStates
from bench.trial import run_trial
from models import MODELS


class Cut(BaseException):
    """Ends a trial as a kill would: nothing below ``BaseException`` may catch it."""


EPOCHS, STEPS = 4, 2  # 8 scenes in batches of 4


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    """With all chance there is: drop path in the encoder, dropout in the adapter, flips, a tuned block."""
    adapter = {"name": "mona", "placement": "last:2"}
    return TrialConfig.model_validate(
        {
            "model": {
                "name": "sam3_unet",
                "encoder": {"name": "sam3_vit_tiny", "drop_path": 0.3},
                "adapter": adapter,
                "decoder": {"width": 8},
                "tuned_blocks": "last:1",
            },
            "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
            "transform": {"size": 32},
            "train": {"epochs": EPOCHS, "batch_size": 4, "lr": 5e-3, "layer_decay": 0.8},
            "device": "cpu",
            "seed": 3,
        }
    )


HERE = {"torch": "2.0", "data": "abc"}
PER_EPOCH = STEPS + 1  # signs of life: one is from validation
LAST = EPOCHS * PER_EPOCH


def trained(config, states=None, cut_at=None, fingerprint=HERE):
    """Trains as a trial does, up to its ``cut_at``-th sign of life: the epochs that ran, and the model's state."""
    data = DATASETS.build(config.dataset, config.transform)
    torch.manual_seed(config.seed)
    model = MODELS.build(config.model, config.transform.size, True)
    torch.manual_seed(config.seed)
    seen, epochs = [], []

    def step():
        seen.append(1)
        if len(seen) == cut_at:
            raise Cut

    if states is not None:
        states.expect(fingerprint)
    arguments = (model, data, config.train, config.transform, torch.device("cpu"))
    result = train(*arguments, seed=config.seed, on_epoch=epochs.append, on_step=step, resume=states)
    return result, [epoch.epoch for epoch in epochs], model.state_dict()


def cut_after(config, folder, calls):
    with pytest.raises(Cut):
        trained(config, TrainingStates(folder, 0), cut_at=calls)


@pytest.fixture(scope="module")
def whole(config):
    """What the training gives that is left alone."""
    return trained(config)


def same(found, whole):
    assert found[0].curve == whole[0].curve
    assert (found[0].steps, found[0].images) == (whole[0].steps, whole[0].images)
    assert all(torch.equal(value, whole[2][name]) for name, value in found[2].items()), "to the last bit"


@pytest.mark.parametrize("calls", sorted(random.Random(0).sample(range(PER_EPOCH + 1, LAST + 1), 4)))
def test_a_training_cut_short_at_a_random_step_ends_as_one_that_was_not(config, whole, tmp_path, calls):
    cut_after(config, tmp_path, calls)
    states = TrainingStates(tmp_path, 0)
    found = trained(config, states)
    same(found, whole)
    kept = (calls - 1) // PER_EPOCH
    assert states.resumed_from == [kept]
    assert found[1] == list(range(1, EPOCHS + 1)), "on_epoch is called for the epochs before, too"
    assert states.notes == []


def test_it_may_be_cut_short_again_and_again(config, whole, tmp_path):
    for _ in range(3):
        cut_after(config, tmp_path, PER_EPOCH + 1)
    states = TrainingStates(tmp_path, 0)
    found = trained(config, states)
    same(found, whole)
    assert states.resumed_from == [1, 2, 3] and states.earlier_seconds > 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["epoch-0003.safetensors", "epoch-0004.safetensors"]
    facts = json.loads(safe_open(tmp_path / "epoch-0004.safetensors", "pt").metadata()["facts"])
    assert facts["seconds"] == found[0].seconds < facts["spent_seconds"]


def test_a_whole_trial_goes_on_to_the_same_scores(config, tmp_path):
    """Through ``run_trial``, whose evaluation may be what is cut short."""
    whole = run_trial(config)
    assert (whole.status, whole.resumed_from_epochs, whole.notes) == ("ok", [], [])
    seen = []

    def step():
        seen.append(1)
        if len(seen) == LAST + 1:
            raise Cut

    with pytest.raises(Cut):
        run_trial(config, on_step=step, checkpoints=TrainingStates(tmp_path, 0))
    record = run_trial(config, checkpoints=TrainingStates(tmp_path, 0))
    assert (record.status, record.resumed_from_epochs, record.notes) == ("ok", [EPOCHS], [])
    assert record.scores == whole.scores and record.image_scores == whole.image_scores
    assert record.curve == whole.curve and record.val_scores == whole.val_scores
    tensors = load(record.checkpoint), load(whole.checkpoint)
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert record.timing.total_seconds > record.timing.train_seconds > 0
    assert list(whole.memory) == list(record.memory) == ["training", "evaluation"]


def test_memory_of_training_is_null_where_the_process_that_trained_did_not_live_to_tell(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(TrainingStates, "after_training", lambda self, memory: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            run_trial(config, checkpoints=TrainingStates(tmp_path, 0))
    record = run_trial(config, checkpoints=TrainingStates(tmp_path, 0))
    assert (record.status, record.resumed_from_epochs) == ("ok", [EPOCHS])
    assert list(record.memory) == ["evaluation"], "nothing was trained in the part that was measured"


def test_when_scoring_fails_only_scoring_is_repeated(config, tmp_path, monkeypatch):
    """The state is written though none was due, and holds the memory that training took."""
    whole = run_trial(config)
    kept = []
    after = TrainingStates.after_training
    with monkeypatch.context() as patched:
        patched.setattr(
            TrainingStates, "after_training", lambda self, memory: kept.append(memory) or after(self, memory)
        )
        patched.setattr(sod_measures, "measure", lambda *arguments: {"s_measure": np.nan})
        failed = run_trial(config, checkpoints=TrainingStates(tmp_path, 1e9))
    assert (
        failed.status == "error" and failed.error == "salient-val-0000: s_measure of this image is not a finite number"
    )
    assert failed.notes == ["what it has learnt is kept: the same command repeats the scoring alone"]
    assert failed.curve == whole.curve

    def no_step(*arguments, **more):
        raise AssertionError("it trains again")

    monkeypatch.setattr("bench.training.compiled.batch_loss", no_step)
    record = run_trial(config, checkpoints=TrainingStates(tmp_path, 1e9))
    assert (record.status, record.resumed_from_epochs, record.notes) == ("ok", [EPOCHS], [])
    assert record.scores == whole.scores and record.curve == whole.curve
    assert record.memory["training"] == kept[0] and record.timing.train_seconds > 0


def test_no_other_random_state_than_those_kept_is_used(config):
    """Were Python's or numpy's used in training, a state would have to hold them too."""
    before = random.getstate(), np.random.get_state()[1].tolist()
    trained(config)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[-5] ^= 1
    elif how == "empty":
        content = b""
    elif how == "pickle":
        torch.save({"x": 1}, path)
        return
    elif how == "another file":
        save_file({"x": torch.zeros(2)}, path)
        return
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "pickle", "another file"])
def test_a_damaged_state_is_set_aside_and_the_one_before_is_used(config, whole, tmp_path, how):
    cut_after(config, tmp_path, 3 * PER_EPOCH + 1)
    damage(tmp_path / "epoch-0003.safetensors", how)
    states = TrainingStates(tmp_path, 1e9)
    same(trained(config, states), whole)
    assert states.resumed_from == [2]
    (note,) = states.notes
    assert "epoch-0003.safetensors is damaged" in note and "epoch-0003.safetensors.corrupt-1" in note
    assert (tmp_path / "epoch-0003.safetensors.corrupt-1").exists()


def test_other_data_or_versions_start_again_and_say_so(config, whole, tmp_path):
    cut_after(config, tmp_path, 2 * PER_EPOCH + 1)
    states = TrainingStates(tmp_path, 1e9)
    same(trained(config, states, fingerprint={"torch": "2.1", "data": "abc", "code": "d"}), whole)
    assert states.resumed_from == []
    assert states.notes == [
        f"training state of epoch {n} not used: code was unknown, is d; torch was 2.0, is 2.1; "
        f"set aside as epoch-000{n}.safetensors.unused-1"
        for n in (2, 1)
    ]


def test_what_decides_how_training_goes_on_is_in_the_fingerprint(tmp_path, monkeypatch):
    known = provenance(torch.device("cpu"), 1).model_copy(update={"dataset_fingerprint": "abc", "weights": {"w": "1"}})
    here = training_state.fingerprint(known, "f")
    assert here["torch"] == known.versions["torch"] and here["data"] == "abc" and "ray" not in here
    assert here == training_state.fingerprint(known.model_copy(update={"started": "later", "trials_at_once": 9}), "f")
    others = [{"weights": {"w": "2"}}, {"dataset_fingerprint": "b"}, {"threads": 99}, {"device": "card"}]
    changed = [training_state.fingerprint(known.model_copy(update=change), "f") for change in others]
    assert all(other != here for other in [*changed, training_state.fingerprint(known, "g")])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    by_its_instructions = known.model_copy(update={"host_cpu": provenance(torch.device("cpu"), 1).host_cpu})
    assert training_state.fingerprint(by_its_instructions, "f") != here, "processors of one name need not compute alike"


def test_a_full_disk_costs_the_state_and_not_the_trial(config, whole, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    states = TrainingStates(tmp_path, 0)
    same(trained(config, states), whole)
    assert states.notes == ["a training state could not be written: [Errno 28] No space left on device"]
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_too_large_is_not_kept_and_the_record_says_so(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training_state, "LARGEST_BYTES", 1000)
    record = run_trial(config, checkpoints=TrainingStates(tmp_path, 0))
    assert record.status == "ok" and list(tmp_path.iterdir()) == []
    (note,) = record.notes
    assert note.startswith("no training states are kept: one has ") and note.endswith("that are kept")


def test_states_are_written_at_an_interval_and_cost_little(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(training_state.time, "perf_counter", lambda: clock[0])
    states = TrainingStates(tmp_path, 60)
    written = []

    def state(training):
        written.append(clock[0])
        clock[0] += 10  # a slow disk
        raise OSError("enough")

    monkeypatch.setattr(training_state, "_bytes", lambda training: 0)
    monkeypatch.setattr(TrainingStates, "_state", lambda self, t: ({"epoch": 1}, {}))
    monkeypatch.setattr(training_state, "write_whole", lambda path, fill: state(None))
    for _ in range(100):
        clock[0] += 7
        states.after_epoch(None)
    assert written[0] == 63 and all(b - a >= 200 for a, b in zip(written, written[1:])) and len(written) == 4


def test_what_lies_there_is_known_in_bytes_and_removed(config, tmp_path):
    cut_after(config, training_state.place(tmp_path, config.trial_id), 2 * PER_EPOCH + 1)
    (size,) = training_state.sizes(tmp_path).values()
    assert size == sum(path.stat().st_size for path in (tmp_path / ".resume" / config.trial_id).iterdir())
    assert 100_000 < size < 5_000_000
    training_state.remove(tmp_path, config.trial_id)
    assert training_state.sizes(tmp_path) == {} == training_state.sizes(tmp_path / "none")
