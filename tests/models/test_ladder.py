"""The ladder: no gradient and no activation of the encoder, whose place it takes."""

import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from models import MODELS
from models.adapters.ladder import Ladder, Rung
from models.core.encoder_decoder import ADAPTERS, ENCODERS
from models.core.registry import InvalidModel

SIDE = 64


def build(adapter, **changes):
    torch.manual_seed(0)
    encoder = {"name": "sam3_vit_tiny", "weights": "random", **changes.pop("encoder", {})}
    raw = {"name": "sam3_unet", "encoder": encoder, "adapter": adapter, "decoder": {"width": 8}, **changes}
    return MODELS.build(MODELS.parse(raw), SIDE, False).train()


def saved_bytes(model, images):
    """Bytes that autograd keeps for the backward pass through the encoder, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept alive, so that its address stays its own
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.encoder(images)
    assert features[0].requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_activation_of_the_encoder_is_kept_and_no_gradient_enters_it(checkpointing):
    model = build("ladder", encoder={"checkpointing": checkpointing})
    inside, kept, outputs = [0], [], []

    def enter(*_):
        assert not torch.is_grad_enabled()
        inside[0] += 1

    def leave(module, arguments, output):
        inside[0] -= 1
        for value in output if isinstance(output, list | tuple) else (output,):
            outputs.append(value.grad_fn is None and not value.requires_grad)

    for module in model.encoder.encoder.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    with saved_tensors_hooks(lambda t: kept.append(inside[0]) or t, lambda t: t):
        logits = model(torch.randn(2, 3, SIDE, SIDE))[0]
    assert len(outputs) > 8 and all(outputs)
    assert len(kept) > 8 and not any(kept)
    logits.square().mean().backward()
    assert all(p.grad is None for p in model.encoder.encoder.parameters())


def test_it_keeps_a_fraction_of_what_the_bottleneck_keeps():
    """At equal parameters, without checkpointing (with it, a bottleneck keeps less and computes everything twice)."""
    images = torch.randn(2, 3, SIDE, SIDE)
    ladder = saved_bytes(build({"name": "ladder", "rank": 20}), images)
    bottleneck = saved_bytes(build({"name": "bottleneck", "rank": 16}), images)
    print(f"kept for backward: ladder {ladder}, bottleneck {bottleneck} bytes, {ladder / bottleneck:.3f}")
    assert ladder < 0.25 * bottleneck


def test_it_takes_the_encoders_place():
    encoder = ENCODERS.build(ENCODERS.parse("sam3_vit_tiny"), SIDE).requires_grad_(False)
    ladder = ADAPTERS.build(ADAPTERS.parse("ladder"), encoder, (0, 3))
    assert isinstance(ladder, Ladder)
    for name in ("blocks", "block_dims", "channels", "prefix_tokens"):
        assert getattr(ladder, name) is getattr(encoder, name)
    assert [id(p) for p in ladder.stem_parameters()] == [id(p) for p in encoder.stem_parameters()]
    assert ladder.load_pretrained() == encoder.load_pretrained() > 0
    assert {n.split(".")[0] for n, p in ladder.named_parameters() if p.requires_grad} == {"adapter"}


def test_no_rungs_is_no_ladder():
    encoder = ENCODERS.build(ENCODERS.parse("sam3_vit_tiny"), SIDE)
    assert ADAPTERS.build(ADAPTERS.parse("ladder"), encoder, ()) is encoder


def test_a_rung_is_what_its_equation_says():
    rung = Rung(6, 4, lowest=False)
    rung.gate.data.fill_(0.03)
    below, taken = torch.randn(2, 3, 3, 4), torch.randn(2, 3, 3, 6)
    p = dict(rung.named_parameters())
    share = 1 / (1 + math.exp(-0.03 / 0.1))
    state = share * F.linear(F.layer_norm(taken, (6,)), p["down.weight"], p["down.bias"]) + (1 - share) * below
    mixed = F.layer_norm(state, (4,), p["norm.weight"], p["norm.bias"]).permute(0, 3, 1, 2)
    mixed = F.conv2d(mixed, p["conv.weight"], p["conv.bias"], padding=1, groups=4).permute(0, 2, 3, 1)
    torch.testing.assert_close(rung(below, taken), state + F.linear(F.gelu(mixed), p["out.weight"], p["out.bias"]))


@pytest.mark.parametrize("change", [{"tuned_blocks": "last:1"}, {"tuned_stem": True}])
def test_tuning_the_encoder_contradicts_a_ladder(change):
    with pytest.raises(InvalidModel, match="a ladder sends no gradient into the encoder, so nothing"):
        build("ladder", **change)
    build({"name": "ladder", "placement": "none"}, **change)
