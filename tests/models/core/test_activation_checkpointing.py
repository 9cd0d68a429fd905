"""What is computed twice learns exactly as what is kept, and no more is computed twice than has to be."""

from collections import Counter

import pytest
import torch

from models import MODELS
from models.core.activation_checkpointing import checkpoint_stages
from models.core.frozen import FrozenLinear


def built(recomputed, decoder="light_unet"):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1], "drop_path": 0.0}
    config = {
        "name": "sam3_unet",
        "encoder": encoder,
        "adapter": {"rank": 4},
        "decoder": {"name": decoder, "width": 16},
    }
    torch.manual_seed(0)
    return MODELS.build(MODELS.parse({**config, "checkpoint_decoder": recomputed}), 64, False).train()


def test_gradients_statistics_and_names_are_the_same():
    images = torch.randn(2, 3, 64, 64)
    models = [built(recomputed) for recomputed in (False, True)]
    for model in models:
        for _ in range(2):
            model.zero_grad()
            sum(logits.square().mean() for logits in model(images)).backward()
    plain, again = models
    assert list(plain.state_dict()) == list(again.state_dict())
    for (name, value), other in zip(plain.state_dict().items(), again.state_dict().values()):
        assert torch.equal(value, other), name
    for (name, parameter), other in zip(plain.named_parameters(), again.parameters()):
        assert (parameter.grad is None) == (other.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad), name


def test_without_a_graph_nothing_is_wrapped():
    model = built(True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images)[0], built(False).eval()(images)[0])


def test_a_stage_may_fail():
    layer = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    checkpoint_stages(layer)
    with pytest.raises(RuntimeError):
        layer(torch.randn(1, 3))


# --- blocks of the encoder --------------------------------------------------------------------------------------------

ENCODERS = {
    "sam3": {
        "name": "sam3_vit_tiny",
        "weights": "random",
        "depth": 3,
        "global_blocks": [2],
        "drop_path": 0.5,
        "checkpointing": True,
    },
    "hiera": {"name": "sam2_hiera", "size": "tiny", "weights": "random", "drop_path": 0.5, "checkpointing": True},
    "dinov2": {
        "name": "timm_backbone",
        "model": "vit_small_patch14_dinov2",
        "weights": "random",
        "checkpointing": True,
    },
}


def with_encoder(encoder, **changes):
    decoder = {"name": "linear"}
    config = {"name": "sam3_unet", "encoder": ENCODERS[encoder], "adapter": {"rank": 4}, "decoder": decoder}
    torch.manual_seed(0)
    return MODELS.build(MODELS.parse({**config, **changes}), 56 if encoder == "dinov2" else 64, False).train()


def as_torch_does(model):
    """Takes back that frozen layers, layer scale and stochastic depth keep their factors themselves."""
    for module in model.modules():
        if isinstance(module, FrozenLinear):
            module.__class__ = torch.nn.Linear
        elif type(module).__name__ in ("DropPath", "LayerScale"):
            module.__class__ = type(module).__mro__[2]
    return model


def learn(model, size, precision=torch.float32):
    """Gradients of two steps, and how often the MLPs' layers were asked in the second."""
    calls = Counter()

    def count(name):
        return lambda *_: calls.update([name])

    for block in model.encoder.modules():
        if hasattr(block, "mlp"):
            for name in ("fc1", "fc2"):
                getattr(block.mlp, name).register_forward_pre_hook(count(name))
    torch.manual_seed(1)
    for _ in range(2):
        calls.clear()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = sum(logits.float().square().mean() for logits in model(torch.randn(2, 3, size, size)))
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, calls


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_frozen_block_is_computed_again_only_up_to_its_activation(encoder, precision):
    size = 56 if encoder == "dinov2" else 64
    model = with_encoder(encoder)
    blocks = len(model.encoder.blocks)
    gradients, calls = learn(model, size, precision)
    expected, more = learn(as_torch_does(with_encoder(encoder)), size, precision)
    assert calls == {"fc1": 2 * blocks, "fc2": blocks}
    assert more == {"fc1": 2 * blocks, "fc2": 2 * blocks}
    assert gradients.keys() == expected.keys() and gradients
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected[name]), name


def test_a_tuned_block_learns_as_before():
    changes = {"tuned_blocks": "last:2", "adapter": {"placement": "none"}}
    gradients, calls = learn(with_encoder("sam3", **changes), 64)
    expected, _ = learn(as_torch_does(with_encoder("sam3", **changes)), 64)
    assert calls == {"fc1": 5, "fc2": 5}  # the first block has nothing to learn
    assert "encoder.trunk.blocks.2.mlp.fc2.weight" in gradients
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected[name]), name


def test_a_compiler_sees_plain_layers():
    """``aot_eager`` traces forward and backward as inductor does."""
    model = with_encoder("sam3")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval()(images)[0]
    torch.compile(model.train(), backend="aot_eager")(images)[0].square().mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model.eval(), backend="aot_eager")(images)[0], expected)
