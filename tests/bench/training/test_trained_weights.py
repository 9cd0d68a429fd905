"""What a trial has learnt: kept small, joined again with its encoder, and with no other."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench import trial
from bench.config.trial import DATASETS
from bench.records.store import load_all
from bench.scoring.evaluate import predict
from bench.scoring.metrics import score
from bench.training import trained_weights
from bench.training.checks import frozen_digests
from bench.training.trained_weights import TrainedWeightsError
from bench.trial import run_trial


@pytest.fixture
def trained(tiny, tmp_path):
    """A trial that has run, its record saved; the path of its weights."""
    record = run_trial(tiny)
    assert record.status == "ok", record.error
    record.save(tmp_path)
    return record, tmp_path / f"{tiny.trial_id}.safetensors"


def test_the_trained_model_comes_back_with_the_same_scores(tiny, trained):
    record, path = trained
    config, model = trained_weights.load(path)
    assert config == tiny and not model.training
    data = DATASETS.build(config.dataset, config.transform)
    again = score(predict(model, data.test, config.transform, torch.device("cpu"), config.train.batch_size))
    assert again.overall == record.scores


def test_it_holds_what_was_trained_and_nothing_of_the_frozen_encoder(trained):
    record, path = trained
    names = load_file(path)
    parts = {name.split(".")[0] for name in names if "adapter" not in name.split(".")}
    assert parts == {"decoder"} and any(name.endswith("running_var") for name in names)
    assert record.checkpoint_bytes == path.stat().st_size < 200_000
    assert "checkpoint_bytes" in path.with_suffix(".json").read_text()
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["config"]) == record.config
    assert load_all(path.parent)[0][record.trial_id].checkpoint is None


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "nf4"])
def test_weights_in_few_bits_have_digests_and_come_back(tiny_with, tmp_path, storage):
    small = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1], "window": 2}
    config = tiny_with({"model.encoder": small, "model.frozen_weights": storage})
    record = run_trial(config)
    assert record.status == "ok", record.error
    record.save(tmp_path)
    _, model = trained_weights.load(tmp_path / f"{config.trial_id}.safetensors")
    data = DATASETS.build(config.dataset, config.transform)
    again = score(predict(model, data.test, config.transform, torch.device("cpu"), config.train.batch_size))
    assert again.overall == record.scores


def test_tuned_blocks_and_random_encoders_come_back_too(tiny_with, tmp_path):
    encoder = {"name": "sam3_vit_tiny", "weights": "random"}
    config = tiny_with({"model.encoder": encoder, "model.tuned_blocks": "last:1", "seed": 3})
    record = run_trial(config)
    record.save(tmp_path)
    path = tmp_path / f"{config.trial_id}.safetensors"
    assert any(name.startswith("encoder.trunk.blocks.7.block.attn") for name in load_file(path))
    _, model = trained_weights.load(path)
    data = DATASETS.build(config.dataset, config.transform)
    again = score(predict(model, data.test, config.transform, torch.device("cpu"), config.train.batch_size))
    assert again.overall == record.scores


def test_what_is_too_large_is_not_kept_and_the_record_knows(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(trained_weights, "LARGEST_BYTES", 1000)
    record = run_trial(tiny)
    record.save(tmp_path)
    assert record.status == "ok" and record.checkpoint_bytes is None
    assert not list(tmp_path.glob("*.safetensors"))


def rewritten(path, change):
    """The file with its metadata changed."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    change(metadata)
    save_file(load_file(path), path, metadata=metadata)


def test_another_encoder_is_refused(trained):
    _, path = trained
    rewritten(path, lambda m: m.update(frozen_digest="0" * 32))
    with pytest.raises(TrainedWeightsError, match="other weights than those found here"):
        trained_weights.load(path)


def test_the_digest_sees_one_bit_of_the_frozen_weights(tiny):
    model = trial.MODELS.build(tiny.model, 32, True)
    before = trained_weights.frozen_digest(frozen_digests(model))
    model.encoder.trunk.blocks[2].block.norm1.bias.data[5] += 1e-7
    assert trained_weights.frozen_digest(frozen_digests(model)) != before


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda path: path.unlink(), "no such file. Trained weights of over 512 MiB are not kept"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "not a readable safetensors file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"),
        (lambda path: save_file({"x": torch.zeros(2)}, path), "holds no trained weights of this suite"),
        (lambda path: rewritten(path, lambda m: m.update(config="{}")), "its configuration is not of this version"),
        (lambda path: save_file({}, path, metadata=metadata(path)), "does not fit its own configuration"),
    ],
)
def test_files_that_are_no_use_say_why(trained, spoil, expected):
    _, path = trained
    spoil(path)
    with pytest.raises(TrainedWeightsError, match=expected):
        trained_weights.load(path)


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_missing_encoder_weights_come_with_their_remedy(trained, tmp_path):
    _, path = trained

    def elsewhere(fields):
        config = json.loads(fields["config"])
        config["model"]["encoder"]["weights"] = str(tmp_path / "gone.pt")
        fields["config"] = json.dumps(config)

    rewritten(path, elsewhere)
    with pytest.raises(TrainedWeightsError, match="gone.pt does not exist\n  -> give the path"):
        trained_weights.load(path)
