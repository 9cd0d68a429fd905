"""``train.compile: step``: a step that is recorded once and replayed computes what the usual step computes.

On a CPU the recording is replaced by one that runs the step again and writes its results to the first run's places, as
a CUDA graph does. The tests with a real graph need a GPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.config.trial import DATASETS, TrialConfig, with_value
from bench.training import compiled as compiled_module
from bench.training import static_step
from bench.training.batch_loss import batch_loss
from bench.training.compiled import Compiled
from bench.training.loop import train
from bench.training.precision import make_scaler
from models import MODELS
from models.core.registry import InvalidModel

CUDA = torch.device("cuda")


@pytest.fixture
def replayed(monkeypatch):
    """Replaces the graph. Returns the list of replays, each with the addresses of the step's results."""
    replays = []

    def capture(compute, parameters):
        def results():
            return [p.grad for p in parameters if p.grad is not None]

        loss = compute()
        first = results()

        def replay():
            again = compute()
            for place, value in zip(first, results(), strict=True):
                place.copy_(value)
            loss.copy_(again)
            replays.append([loss.data_ptr(), *(place.data_ptr() for place in first)])

        return replay, loss

    class OnCpu(static_step.StaticStep):
        def __init__(self, compute, images, masks, trained):
            super().__init__(compute, images, masks, trained, lambda run: capture(run, trained))

    monkeypatch.setattr(compiled_module, "StaticStep", OnCpu)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)
    return replays


def on_cpu(config):
    """The step on a CPU, where a configuration may not ask for it."""
    return config.model_copy(update={"train": config.train.model_copy(update={"compile": "step"})})


def curve_and_weights(config, device="cpu"):
    data = DATASETS.build(config.dataset, config.transform)
    torch.manual_seed(5)
    model = MODELS.build(config.model, config.transform.size, False).to(device)
    result = train(model, data, config.train, config.transform, torch.device(device), seed=0)
    return [epoch.train_loss for epoch in result.curve], model.state_dict(), result


@pytest.mark.parametrize("changes", [{}, {"train.accumulate": 2}, {"train.precision": "bfloat16"}])
def test_training_with_a_recorded_step_is_training_to_the_bit(tiny_with, replayed, changes):
    task = {"train.epochs": 2, "dataset.train": 10, "train.batch_size": 4, "model.encoder.drop_path": 0.0}
    config = tiny_with({**task, **changes})
    expected, weights, _ = curve_and_weights(config)
    found, same_weights, result = curve_and_weights(on_cpu(config))
    assert found == expected and result.compile_seconds > 0
    assert all(torch.equal(value, same_weights[name]) for name, value in weights.items())
    assert len(replayed) == 4  # two whole batches in each epoch; the last, smaller one is not recorded
    assert all(places == replayed[0] for places in replayed)


def test_each_step_has_its_own_images_and_its_own_stochastic_depth(tiny_with, replayed):
    config = on_cpu(tiny_with({"model.encoder.drop_path": 0.9}))
    model = MODELS.build(config.model, config.transform.size, False).train()
    scaler = make_scaler(torch.device("cpu"), "float32")
    with Compiled(model, config.train) as compiled:
        images = torch.randint(256, (2, 4, 32, 32, 3), dtype=torch.uint8)
        masks = torch.randint(2, (2, 4, 32, 32), dtype=torch.uint8) * 255
        compiled.warm_up(images[0], masks[0], config.transform, scaler)
        losses = [
            compiled.gradients(model, images[i], masks[i], config.transform, scaler).item() for i in (0, 0, 0, 1, 1)
        ]
    assert len(set(losses)) == 5, losses


def test_recomputed_dropout_is_refused(tiny_with, replayed):
    """Recomputation would drop other values, because a graph cannot restore the state of the random numbers."""
    config = on_cpu(tiny_with({"model.encoder.checkpointing": 2}))
    model = MODELS.build(config.model, config.transform.size, False).train()
    images = torch.zeros((4, 32, 32, 3), dtype=torch.uint8)
    model.encoder.blocks[1].register_module("more", nn.Dropout2d(0.1))
    with Compiled(model, config.train) as compiled:
        with pytest.raises(InvalidModel, match="a step with recomputed dropout cannot be recorded"):
            compiled.warm_up(images, images[..., 0], config.transform, make_scaler(images.device, "float32"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "train.compile: step is a CUDA graph, and device=cpu has none. Set train.compile=blocks"),
        (
            {"device": "cuda", "model.decoder": {"name": "fpn", "width": 64}, "model.checkpoint_decoder": True},
            "step is impossible with model.decoder.dropout=0.2.*or model.decoder.dropout=0",
        ),
        ({"device": "cuda", "model.adapter": {"name": "mona"}}, "impossible with model.adapter.name=mona"),
    ],
)
def test_where_a_step_cannot_be_recorded_the_configuration_says_so(tiny_with, changes, reason):
    with pytest.raises(Exception, match=reason):
        tiny_with({**changes, "train.compile": "step"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.accumulate": 2, "model.encoder.checkpointing": 2},
        {"train.precision": "bfloat16", "model.frozen_weights": "bfloat16", "model.encoder.residual": "bfloat16"},
        {"train.precision": "float16", "model.encoder.checkpointing": True, "model.checkpoint_decoder": True},
    ],
    ids=["float32", "micro-batches", "bfloat16", "float16, recomputed"],
)
def test_a_cuda_graph_trains_as_the_usual_step(tiny_with, monkeypatch, changes):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # the graph alone
    task = {"device": "cuda", "train.lr": 5e-3, "train.epochs": 3, "dataset.train": 10, "train.batch_size": 4}
    config: TrialConfig = tiny_with({**task, "model.encoder.drop_path": 0.0, "train.tf32": False, **changes})
    expected, _, _ = curve_and_weights(config, CUDA)
    found, _, result = curve_and_weights(with_value(config, {"train.compile": "step"}), CUDA)
    assert result.compile_seconds > 0 and found[-1] != found[0]
    tolerance = 1e-3 if config.train.precision == "float32" else 2e-2
    assert found == pytest.approx(expected, rel=tolerance)


class CopiesFromTheCpu(TorchDispatchMode):
    """Collects the operations between tensors of a CPU and of a GPU, which no graph can record."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(str(func))
        return result


def moved_to_a_fake_gpu(model):
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"model.encoder.checkpointing": True},
        {"train.precision": "bfloat16", "model.frozen_weights": "bfloat16", "model.encoder.residual": "bfloat16"},
        {"model.adapter": {"name": "lora"}, "model.decoder": {"name": "rfb_unet"}},
        {"train.loss": "weighted_structure_loss", "model.decoder": {"name": "upernet", "width": 64}},
    ],
    ids=["plain", "bfloat16", "LoRA", "other decoder and loss"],
)
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_forward_pass_on_a_gpu_neither_copies_from_the_cpu_nor_waits(tiny_with, monkeypatch, changes):
    """On tensors without contents, which refuse to give a value to Python."""
    config = tiny_with({"device": "cuda", **changes})
    model = MODELS.build(config.model, config.transform.size, False).train()
    monkeypatch.setattr(torch.utils.checkpoint, "get_device_states", lambda *inputs: ([], []))
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved_to_a_fake_gpu(model)
        images = torch.empty((2, 32, 32, 3), dtype=torch.uint8, device="cuda")
        with CopiesFromTheCpu() as copies:
            loss = batch_loss(model, images, images[..., 0], config.train, config.transform)
    assert loss.device.type == "cuda" and copies.found == []
