"""``train.compile: blocks``: one graph for equal blocks, the same training, and nothing left behind."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from bench.config import lacking
from bench.config.trial import DATASETS
from bench.training.compiled import Compiled, regions
from bench.training.loop import train
from models import MODELS

COMPILER = pytest.mark.skipif(bool(list(lacking.compiler("cpu"))), reason="no C++ compiler")


def trained(config, device="cpu"):
    data = DATASETS.build(config.dataset, config.transform)
    torch.manual_seed(config.seed)
    model = MODELS.build(config.model, config.transform.size, True).to(device)
    torch.manual_seed(config.seed)
    result = train(model, data, config.train, config.transform, torch.device(device), seed=0)
    return result, model


@COMPILER
@pytest.mark.slow
def test_equal_blocks_share_a_graph_and_training_is_the_same(tiny_with):
    """Of 8 blocks there are three kinds: windowed, global, and the first, whose input needs no gradient."""
    changes = {"train.epochs": 2, "dataset.train": 9, "train.batch_size": 4, "model.encoder.drop_path": 0.0}
    kinds = 3
    plain, one = trained(tiny_with(changes))
    counters.clear()
    compiled, two = trained(tiny_with({**changes, "train.compile": "blocks"}))
    assert counters["stats"]["unique_graphs"] == kinds + 1, dict(counters["stats"])  # and the decoder
    assert not counters["graph_break"]
    assert plain.compile_seconds is None and compiled.compile_seconds > 0
    for a, b in zip(plain.curve, compiled.curve, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(region._compiled_call_impl is None for region in regions(two))


@COMPILER
@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model.encoder.drop_path": 0.3, "train.accumulate": 3},
        {"model.encoder.checkpointing": True, "model.checkpoint_decoder": True},
        {"model.encoder.checkpointing": 3, "train.precision": "bfloat16", "model.frozen_weights": "bfloat16"},
    ],
    ids=["stochastic depth", "checkpointing", "bfloat16"],
)
def test_it_goes_with_the_other_settings(tiny_with, changes):
    counters.clear()
    result, model = trained(tiny_with({**changes, "train.epochs": 1, "train.compile": "blocks"}))
    assert torch.tensor(result.curve[0].train_loss).isfinite() and result.compile_seconds > 0
    assert counters["stats"]["unique_graphs"] > 0
    assert not any(name.endswith(".keep") for name, _ in model.named_buffers())


def test_warming_up_changes_neither_weights_nor_buffers_nor_random_states(tiny_with, monkeypatch):
    """Without a compiler: the steps run, the compilation is left out."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)
    config = tiny_with({"train.compile": "blocks", "model.encoder.drop_path": 0.3})
    model = MODELS.build(config.model, config.transform.size, False).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with Compiled(model, config.train) as compiled:
        sizes = []
        model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        images = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)
        random = torch.get_rng_state()
        compiled.warm_up(images, images[..., 0], config.transform)
        assert sizes == [4] and torch.equal(torch.get_rng_state(), random) and compiled.seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_without_a_compiler_the_trial_says_so_before_any_work(tiny_with, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (item,) = tiny_with({"train.compile": "blocks"}).missing()
    assert "C++ compiler" in item.what and item.field == "train.compile" and "train.compile=false" in item.remedy
    assert not list(tiny_with({}).missing())


def test_a_model_without_blocks_and_packed_weights_are_refused(tiny_with):
    with pytest.raises(Exception, match="train.compile: impossible with model.frozen_weights=nf4"):
        tiny_with({"train.compile": "blocks", "model.frozen_weights": "nf4"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_on_a_card(tiny_with):
    result, _ = trained(tiny_with({"device": "cuda", "train.compile": "blocks", "train.precision": "bfloat16"}), "cuda")
    assert result.compile_seconds > 0
