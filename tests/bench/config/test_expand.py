import pytest
import torch
from conftest import SWEEP
from safetensors.torch import load_file

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand, sizes
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.records.record import TrialRecord
from bench.records.store import check_writable, pending
from bench.run import main
from bench.scheduling.preflight import absent_of, missing_lines, prepare_data, prepare_weights
from models import MODELS
from models.core.encoder_decoder import ADAPTERS
from models.core.skeleton import skeleton
from models.encoders import sam3_vit_tiny


@pytest.fixture
def sweep(tiny):
    axes = (
        Axis.over("model.adapter.rank", {"2": 2, "4": 4}),
        Axis.over("model.adapter.placement", {"all": "all", "last:1": "last:1"}),
    )
    return Sweep("mine", "Why?", "default", tiny, axes, (0, 1, 2))


def test_expands_to_the_product_of_axes_and_seeds_in_order(sweep):
    trials = expand(sweep)
    assert [t.point for t in trials[::3]] == [("2", "all"), ("2", "last:1"), ("4", "all"), ("4", "last:1")]
    assert [t.seed for t in trials[:3]] == [0, 1, 2]
    assert len({t.trial_id for t in trials}) == 12
    assert trials[3].config.model.adapter.placement == "last:1"


def test_two_points_that_are_the_same_configuration_are_an_error(sweep):
    twice = sweep._replace(axes=(Axis.over("model.adapter", {"a": "bottleneck", "b": {"name": "bottleneck"}}),))
    with pytest.raises(ConfigError, match="a and b are the same configuration"):
        expand(twice)


def test_models_that_cannot_be_built_are_all_named_before_anything_runs(sweep):
    deep = Axis.over("model.adapter.placement", {"ok": "all", "deep": "last:9", "far": [3, 12]})
    with pytest.raises(ConfigError) as error:
        sizes(expand(sweep._replace(axes=(deep,))))
    assert "model.adapter.placement: 'last:9' asks for 9 blocks, but the encoder has 8 (at deep" in str(error.value)
    assert "names [12], but the encoder's blocks are 0 to 7 (at far" in str(error.value)
    assert len(error.value.lines) == 2


def test_a_number_of_recomputed_blocks_is_checked_in_each_row(sweep):
    """Rows that differ in it have equal shapes, and one of them may still ask for too many blocks."""
    numbers = Axis.over("model.encoder.checkpointing", {"all": True, "some": 8, "too many": 9, "none": False})
    with pytest.raises(ConfigError, match=r"checkpointing: 9, but the encoder has 8 blocks.*\(at too many\)"):
        sizes(expand(sweep._replace(axes=(numbers,))))


def test_sizes_are_of_each_trial(sweep):
    trials = expand(sweep)
    counts = sizes(trials)
    assert counts[trials[0].trial_id] == counts[trials[1].trial_id]
    assert counts[trials[0].trial_id]["adapter"] == 8 * (2 * 64 * 2 + 64 + 2)
    assert counts[trials[-1].trial_id]["adapter"] == 2 * 64 * 4 + 64 + 4


def test_finished_trials_are_not_pending_and_failed_ones_are(sweep):
    trials = expand(sweep)
    records = {
        t.trial_id: TrialRecord(trial_id=t.trial_id, status=status, config={})
        for t, status in zip(trials, ("ok", "oom", "error"))
    }
    assert pending(trials, records) == trials[2:]


def test_missing_things_are_named_once(sweep, tiny_with):
    base = tiny_with({"dataset": {"name": "folder", "images": "/nowhere/i", "masks": "/nowhere/m"}, "device": "cuda"})
    found = [line for line in missing_lines(absent_of(expand(sweep._replace(base=base)))) if "missing" in line]
    assert [line.split(":")[:2] for line in found][:2] == [
        ["  missing data", " dataset.images"],
        ["  missing data", " dataset.masks"],
    ]
    assert len(found) == len(set(found))


def test_data_errors_are_the_users(sweep, tiny_with, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    dataset = {"name": "folder", "images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}
    with pytest.raises(ConfigError, match="holds no images"):
        prepare_data(expand(sweep._replace(base=tiny_with({"dataset": dataset}))))


def test_a_batch_that_the_data_cannot_fill_is_an_error(sweep, tiny_with):
    with pytest.raises(ConfigError, match="train.batch_size: 9 is more than there are training pairs. At most 8"):
        prepare_data(expand(sweep._replace(base=tiny_with({"train.batch_size": 9}))))


@pytest.mark.parametrize(
    ("batch", "accumulate", "remedy"),
    [
        (7, 1, "Set train.batch_size=6"),
        (8, 8, "Set train.accumulate=1"),
        (4, 2, None),
        (1, 1, "Set train.batch_size=2"),
    ],
)
def test_an_image_alone_is_refused_where_a_batch_norm_needs_two(batch, accumulate, remedy, sweep, tiny_with):
    changes = {"train.batch_size": batch, "train.accumulate": accumulate}
    prepare_data(expand(sweep._replace(base=tiny_with(changes))))  # no batch norm behind global pooling
    pooled = tiny_with({**changes, "model.decoder": {"name": "upernet"}})
    trials = expand(sweep._replace(base=pooled))
    if remedy is None:
        prepare_data(trials)
        return
    with pytest.raises(ConfigError, match="leaves one of 8 images alone, and a batch norm of sam3_unet") as error:
        prepare_data(trials)
    assert len(error.value.lines) == 2 and error.value.lines[1].endswith(remedy)


def test_results_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write results there .*--results DIR"):
        check_writable(tmp_path / "file" / "results")
    check_writable(tmp_path / "new" / "results")


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_weights_are_checked_without_memory_whatever_the_adapter(sweep, tiny_with, adapter):
    """Checking must leave the model a shape: adapters that follow the encoder's device would find two."""
    base = tiny_with({"model.adapter": {"name": adapter}, "model.frozen_weights": "nf4"})
    trials = expand(sweep._replace(base=base, axes=(Axis.over("model.decoder.width", {"8": 8}),)))
    assert prepare_weights(trials) == []
    shape = skeleton(base.model, 32, pretrained=True)
    assert all(p.is_meta for p in shape.parameters())


def test_weights_are_checked_before_any_trial(sweep, tiny_with, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "wrong.pt")
    prepare_weights(expand(sweep))
    wrong = sweep._replace(base=tiny_with({"model.encoder.weights": str(tmp_path / "wrong.pt")}))
    with pytest.raises(ConfigError) as error:
        prepare_weights(expand(wrong))
    text = str(error.value)
    assert text.count("these are not the weights of this ViT") == 1 and "missing: blocks.0.attn.proj.bias" in text


def test_where_weights_were_found_is_said_before_the_trials_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis="model.adapter.rank: [1, 2]"))
    torch.save({"ema": load_file(sam3_vit_tiny.SHIPPED), "epoch": 3}, tmp_path / "mine.pt")
    assert main(["smoke.yaml", "model.encoder.weights=mine.pt", "--executor", "serial", "--page-every", "off"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said.count("note: mine.pt: tensors were found under 'ema'") == 1


def test_shapes_that_are_the_same_are_built_once(sweep, tiny_with, monkeypatch, tmp_path):
    """What is loaded, left to chance or computed again changes no tensor's shape; what trains does change a count."""
    built = []
    monkeypatch.setattr("bench.config.expand.skeleton", lambda *arguments: built.append(1) or skeleton(*arguments))
    same = {
        "model.encoder.drop_path": {"0": 0.0, "0.1": 0.1},
        "model.encoder.weights": {"random": "random", "mine": str(tmp_path / "mine.pt")},
        "model.encoder.checkpointing": {"on": True, "off": False},
        "model.checkpoint_decoder": {"on": True, "off": False},
        "train.lr": {"1e-3": 1e-3, "1e-4": 1e-4},
    }
    trials = expand(sweep._replace(axes=tuple(Axis.over(path, values) for path, values in same.items())))
    counts = sizes(trials)
    assert len(trials) == 96 and len(counts) == 96 and len(built) == 1
    trials = expand(sweep._replace(axes=(Axis.over("model.tuned_blocks", {"none": "none", "all": "all"}),)))
    assert len({size["trainable"] for size in sizes(trials).values()}) == 2 and len(built) == 3


def test_encoders_of_shapes_are_copies(tiny):
    first, second = (skeleton(tiny.model, 32) for _ in range(2))
    first.encoder.trunk.blocks[0].requires_grad_(True)
    del first.encoder.trunk.ln_pre
    third = skeleton(tiny.model, 32)
    names = {name: (value.shape, value.dtype) for name, value in second.named_parameters()}
    real = MODELS.build(tiny.model, 32, False)
    assert names == {name: (value.shape, value.dtype) for name, value in real.named_parameters()}
    for model in (second, third):
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        assert trained == {name for name, value in real.named_parameters() if value.requires_grad}


def test_a_dry_run_of_many_trials_compares_no_configurations_and_says_what_takes_long(tmp_path, monkeypatch, capsys):
    """To look for a trial in a list is to compare its configuration with all that come before it."""
    compared = []
    monkeypatch.setattr(TrialConfig, "__eq__", lambda one, other: compared.append(1) or one is other)
    monkeypatch.setattr("bench.watching.display.MANY", 3)
    monkeypatch.chdir(tmp_path)
    axis = "model.adapter.rank: [1, 2, 3]\n  train.lr: [1e-3, 2e-3, 3e-3, 4e-3]"
    (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis=axis).replace("seeds: [0]", "seeds: [0, 1, 2, 3, 4]"))
    assert main(["smoke.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "60 of 60 trials to run" in out and not compared
    assert "counting the parameters of models: 3\n" in out
