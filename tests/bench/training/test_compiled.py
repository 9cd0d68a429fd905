"""``train.compile: blocks``: one graph for equal blocks, the same gradients, and nothing left behind.

Most tests compile with torch's ``aot_eager``. It traces and differentiates the same graphs as the default compiler, and
runs them without generated code, which would take minutes. The slow tests generate code.
"""

import shutil

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from bench.config import lacking
from bench.config.trial import DATASETS, TrialConfig, with_value
from bench.training.compiled import Compiled, _DropPath, _StochasticDepth, regions
from bench.training.loop import train
from bench.training.precision import make_scaler
from models import MODELS

COMPILER = pytest.mark.skipif(bool(list(lacking.compiler("cpu"))), reason="no C++ compiler")
LOW = {"train.precision": "bfloat16", "model.frozen_weights": "bfloat16", "model.encoder.residual": "bfloat16"}
UNET = {"model.decoder": {"name": "light_unet", "width": 8}}
TIMM = {"name": "timm_backbone", "model": "vit_tiny_patch16_224", "weights": "random", "checkpointing": True}
PRODUCTS = ("aten.mm.default", "aten.addmm.default")
SETTINGS = {
    "plain": {},
    "micro-batches": {"train.accumulate": 2},
    "micro-batches of two sizes": {"train.accumulate": 3},
    "all blocks recomputed": {"model.encoder.checkpointing": True},
    "two blocks recomputed": {"model.encoder.checkpointing": 2},
    "decoder": UNET,
    "decoder recomputed": {**UNET, "model.checkpoint_decoder": True},
    "bfloat16": {"train.precision": "bfloat16"},
    "bfloat16 weights and residual": LOW,
    "bfloat16, recomputed": {**LOW, **UNET, "model.encoder.checkpointing": 2, "model.checkpoint_decoder": True},
    "LoRA": {"model.adapter": {"name": "lora", "rank": 2}},
    "tuned blocks": {"model.tuned_blocks": "all", "model.adapter.placement": "none"},
    "timm": {"model.encoder": TIMM},
}


@pytest.fixture
def small() -> TrialConfig:
    """Four blocks of three kinds: windowed, global, and the first, whose input needs no gradient."""
    encoder = {"name": "sam3_vit", "weights": "random", "drop_path": 0.0, "checkpointing": False, "patch": 8, "dim": 32}
    encoder |= {"depth": 4, "heads": 2, "mlp_ratio": 2, "window": 2, "global_blocks": [3], "pretrain_size": 32}
    model = {"name": "sam3_unet", "encoder": encoder, "adapter": {"rank": 2}, "decoder": {"name": "linear"}}
    data = {"name": "procedural", "train": 6, "val": 2, "test": 2, "side": 32}
    rest = {"transform": {"size": 32}, "train": {"epochs": 1, "batch_size": 4}, "device": "cpu"}
    return TrialConfig.model_validate({"model": model, "dataset": data, **rest})


def use(monkeypatch, backend):
    """Replaces the compiler of torch.compile, and so of ``Module.compile``."""
    default = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **options: default(*a, **{**options, "backend": backend}))


def gradients(config, compiled=True):
    """Of one step of training, in a model whose adapters are no longer at their start, which is often zero."""
    torch.manual_seed(0)
    model = MODELS.build(config.model, config.transform.size, False).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.05 * torch.randn_like(parameter))
    images, masks = torch.randint(255, (4, 32, 32, 3)).byte(), torch.randint(2, (4, 32, 32)).byte()
    scaler = make_scaler(torch.device("cpu"), config.train.precision)
    with Compiled(model, config.train) as regional:
        if compiled:
            regional.warm_up(images, masks, config.transform, scaler)
        torch.manual_seed(1)
        regional.gradients(model, images, masks, config.transform, scaler)
    return torch.cat([p.grad.flatten() for p in trained])


def trained(config, device="cpu"):
    data = DATASETS.build(config.dataset, config.transform)
    model = MODELS.build(config.model, config.transform.size, False).to(device)
    return train(model, data, config.train, config.transform, torch.device(device), seed=0), model


def agree(config):
    """Whether a compiled step has the gradients of a plain one, up to the rounding of its number type."""
    counters.clear()
    expected = gradients(with_value(config, {"train.compile": False}))
    found = gradients(with_value(config, {"train.compile": "blocks"}))
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"], dict(counters["graph_break"])
    assert expected.norm() > 1e-3
    difference = (found - expected).norm() / expected.norm()
    assert difference < (1e-4 if config.train.precision == "float32" else 3e-2)
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", [n if n == "plain" else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS])
def test_gradients_are_those_of_a_plain_step(small, monkeypatch, name):
    use(monkeypatch, "aot_eager")
    graphs = agree(with_value(small, SETTINGS[name]))
    kinds = {"micro-batches of two sizes": 8, "timm": 3}
    if "recomputed" not in name and "light_unet" not in str(SETTINGS[name]):
        assert graphs == kinds.get(name, 4)  # three kinds of blocks, and the decoder


@COMPILER
@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {**LOW, "model.encoder.checkpointing": 1}], ids=["float32", "bfloat16"])
def test_generated_code_computes_the_same_gradients(small, changes):
    one = {"model.encoder.depth": 1, "model.encoder.global_blocks": [0]}
    assert agree(with_value(small, {**one, **changes})) == 2


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_stochastic_depth_has_one_graph_for_all_probabilities(small, monkeypatch, checkpointing):
    use(monkeypatch, "aot_eager")
    changes = {"model.encoder.drop_path": 0.5, "model.encoder.checkpointing": checkpointing}
    config = with_value(small, {**changes, "train.compile": "blocks"})
    counters.clear()
    found, expected = gradients(config), gradients(config, compiled=False)
    assert counters["stats"]["unique_graphs"] == 4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_stochastic_depth_keeps_the_mean_and_drops_nothing_in_evaluation():
    model = nn.Module()
    model.encoder = nn.Sequential(DropPath(0.25), nn.Linear(1, 1), DropPath(0.0))
    with _StochasticDepth(model) as depth:
        depth.draw(4000)
        depth.choose(slice(1000, 4000))
        layer, never, x = model.encoder[0], model.encoder[2], torch.ones(3000, 2, 3)
        kept = layer(x)[:, 0, 0]
        assert set(kept.tolist()) == {0.0, torch.tensor(1 / 0.75).item()} and abs(kept.mean() - 1) < 0.05
        assert torch.equal(never(x), x) and layer.eval()(x) is x
        depth.draw(4000)
        depth.choose(slice(1000, 4000))
        assert not torch.equal(layer.train()(x)[:, 0, 0], kept)
    assert type(layer) is DropPath and not dict(model.named_buffers())


def test_compiled_blocks_contain_no_complex_arithmetic(small, monkeypatch):
    """torch's compiler generates no code for it."""
    complex_ops = []

    def look(graph, inputs):
        for node in graph.graph.nodes:
            value = node.meta.get("val")
            if node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_complex():
                complex_ops.append(str(node.target))
        return graph

    use(monkeypatch, aot_autograd(fw_compiler=look))
    config = with_value(
        small, {"train.compile": "blocks", "model.encoder.depth": 1, "model.encoder.global_blocks": [0]}
    )
    gradients(config)
    assert complex_ops == []


def products_of_a_block(monkeypatch, config):
    """Matrix products in the forward and in the backward graph of a block, and the tensors that the first one keeps."""
    graphs = {"forward": [], "backward": []}

    def look(kind):
        def keep(graph, inputs):
            graphs[kind].append(graph.graph)
            return graph

        return keep

    with monkeypatch.context() as patch:
        use(patch, aot_autograd(fw_compiler=look("forward"), bw_compiler=look("backward")))
        gradients(config)
    counted = []
    for kind in graphs:
        products = [[n for n in graph.nodes if str(n.target) in PRODUCTS] for graph in graphs[kind]]
        counted.append(max(map(len, products)))  # the decoder has fewer
    (output,) = [node for node in graphs["forward"][0].nodes if node.op == "output"]
    made = [node for node in output.args[0] if getattr(node, "op", "") == "call_function"]
    return *counted, len(made) - 1  # the first one is the block's result


def test_a_recomputed_block_keeps_nothing_and_leaves_out_its_last_product(small, monkeypatch):
    """It is frozen, so that the backward pass needs the input of its last layer no more."""
    one = {"model.encoder.depth": 1, "model.encoder.global_blocks": [0], "train.compile": "blocks", **LOW}
    plain = with_value(small, one)
    forward, backward, kept = products_of_a_block(monkeypatch, plain)
    assert kept > 3
    recomputed = with_value(small, {**one, "model.encoder.checkpointing": True})
    assert products_of_a_block(monkeypatch, recomputed) == (forward, backward + forward - 1, 0)


@pytest.mark.slow
def test_training_leaves_nothing_behind(small, monkeypatch):
    """The last, smaller batch and the evaluation run uncompiled: they would be graphs of their own."""
    use(monkeypatch, "aot_eager")
    config = with_value(small, {"train.compile": "blocks", "train.epochs": 2, "model.encoder.drop_path": 0.3})
    counters.clear()
    result, model = trained(config)
    assert len(result.curve) == 2 and result.compile_seconds > 0
    assert counters["stats"]["unique_graphs"] == 4
    MODELS.build(config.model, config.transform.size, False).load_state_dict(model.state_dict())
    assert all(region._compiled_call_impl is None for region in regions(model))
    assert not any(name.endswith(".factor") for name, _ in model.named_buffers())
    assert not any(isinstance(module, _DropPath) for module in model.modules())


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
        compiled.warm_up(images, images[..., 0], config.transform, make_scaler(images.device, "float32"))
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
    for name in ("mona", "parallel", "ladder"):
        with pytest.raises(Exception, match=f"train.compile: impossible with model.adapter.name={name}"):
            tiny_with({"train.compile": "blocks", "model.adapter": {"name": name}})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_on_a_card(tiny_with):
    result, _ = trained(tiny_with({"device": "cuda", "train.compile": "blocks", "train.precision": "bfloat16"}), "cuda")
    assert result.compile_seconds > 0
