"""Every adapter method: built, trained and saved at every placement, on encoders of three kinds."""

import re
from copy import deepcopy

import pytest
import torch
from adapter_models import (
    DEPTH,
    DIM,
    HIDDEN,
    SIDE,
    SMALL,
    STARTS_CHANGED,
    VARIANTS,
    adapter_parameters,
    build,
    config,
    label,
    stir,
)
from timm.models.hieradet_sam2 import HieraDet
from timm.models.vision_transformer import Block
from torch import nn

from bench.training.checks import GradientCheck, check_frozen, frozen_digests
from models.core.encoder_decoder import ADAPTERS, ENCODERS, parameter_counts, part_of
from models.core.placement import resolve
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton


def train(model, steps=3):
    """Steps with the trial's own checks: no frozen bit moves, every adapter parameter gets a gradient."""
    model.train()
    check, frozen = GradientCheck(model), frozen_digests(model)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(logits.square().mean() for logits in model(torch.randn(2, 3, SIDE, SIDE))).backward()
        check.update()
        optimiser.step()
    check.check()
    check_frozen(model, frozen)


@pytest.mark.parametrize("placement", ["all", "none", "first:1", "last:2", "every:2", [0, 3]], ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_builds_and_trains_at_every_placement(variant, placement):
    chosen = {**variant, "placement": placement}
    model = build(chosen)
    names = adapter_parameters(model)
    sites = {int(found[1]) for n in names if (found := re.search(r"\.(?:blocks|rungs)\.(\d+)\.", n))}
    assert sites == set(resolve(config(chosen).adapter.placement, DEPTH))
    assert all(p.requires_grad == (part_of(n) != "encoder") for n, p in model.named_parameters())
    assert parameter_counts(skeleton(config(chosen), SIDE)) == parameter_counts(model)
    train(model)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_starts_as_the_frozen_encoder_where_the_paper_does(variant):
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        frozen = build({"name": "bottleneck", "placement": "none"}).eval().encoder(images)[0]
        adapted = build(variant).eval().encoder(images)[0]
        stirred = stir(build(variant)).eval().encoder(images)[0]
    if variant["name"] in STARTS_CHANGED:
        assert not torch.equal(frozen, adapted)
    elif variant.get("dora"):  # divides by the weights' norm and multiplies by it again
        torch.testing.assert_close(frozen, adapted, rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(frozen, adapted)
    assert not torch.allclose(frozen, stirred, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_checkpointing_changes_no_gradient(variant):
    images = torch.randn(2, 3, SIDE, SIDE)
    gradients = []
    for checkpointing in (False, True):
        changes = {"checkpointing": checkpointing, "drop_path": 0.5}
        model = build(variant, encoder=changes).train()
        torch.manual_seed(1)
        stir(model)
        torch.manual_seed(2)  # of stochastic depth and dropout
        model(images)[0].square().mean().backward()
        gradients.append({n: p.grad for n, p in adapter_parameters(model).items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_state_and_copies_carry_everything(variant, tmp_path):
    images = torch.randn(1, 3, SIDE, SIDE)
    model = stir(build(variant)).eval()
    with torch.no_grad():
        before = model(images)[0]
        torch.save(model.state_dict(), tmp_path / "state.pt")
        other = build(variant, seed=7).eval()
        assert not torch.equal(other(images)[0], before)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert torch.equal(other(images)[0], before)
    copy = deepcopy(model).eval()
    assert torch.equal(copy(images)[0], before)
    stir(copy)
    assert torch.equal(model(images)[0], before) and not torch.equal(copy(images)[0], before)
    copy(images)[0].sum().backward()
    assert all(p.grad is None for p in model.parameters())


def linear(a, b):
    return a * b + b


FORMULAS = {  # parameters of one adapted block of width d and MLP width h, from the papers
    "bottleneck": lambda c, d, h: linear(d, c.rank) + linear(c.rank, d),
    "parallel": lambda c, d, h: linear(d, c.rank) + linear(c.rank, d),
    "ia3": lambda c, d, h: 3 * d + h,
    "lora": lambda c, d, h: sum(
        c.rank * (i + o) + c.dora * o
        for layer, i, o in (("attn.qkv", d, 3 * d), ("attn.proj", d, d), ("mlp.fc1", d, h), ("mlp.fc2", h, d))
        if layer in c.layers
    ),
    "mona": lambda c, d, h: (
        2
        * (2 * d + 2 * d + linear(d, c.rank) + linear(c.rank, d) + c.rank * (9 + 25 + 49 + 3) + linear(c.rank, c.rank))
    ),
    "ssf": lambda c, d, h: 2 * (d + 3 * d + d + d + h + d),
    "vera": lambda c, d, h: 3 * d + c.rank,
    "ladder": lambda c, d, h: linear(d, c.rank) + linear(c.rank, c.rank) + 2 * c.rank + 10 * c.rank + 1,
}
ONCE = {"ladder": lambda c, d: 2 * c.rank + linear(c.rank, d) - 1}  # the final norm, the way up; no gate on the lowest


@pytest.mark.parametrize("placement", ["all", "last:1"])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_adds_as_many_parameters_as_the_formula_says(variant, placement):
    model = build({**variant, "placement": placement})
    chosen = config({**variant, "placement": placement}).adapter
    blocks = len(resolve(placement, DEPTH))
    expected = blocks * FORMULAS[chosen.name](chosen, DIM, HIDDEN) + ONCE.get(chosen.name, lambda c, d: 0)(chosen, DIM)
    assert parameter_counts(model)["adapter"] == expected
    encoder = ENCODERS.build(ENCODERS.parse(SMALL), SIDE)
    assert parameter_counts(model)["encoder"] == sum(p.numel() for p in encoder.parameters())


# --- other encoders ---------------------------------------------------------------------------------------------------


class TokenEncoder(nn.Module):
    """A plain ViT of timm's blocks, whose blocks see a class and a register token before the 4 x 4 others."""

    def __init__(self):
        super().__init__()
        self.channels, self.block_dims, self.prefix_tokens = (DIM,), (DIM,) * DEPTH, 2
        self.embed = nn.Conv2d(3, DIM, 8, 8)
        self.extra = nn.Parameter(torch.randn(1, 2, DIM))
        self.blocks = nn.ModuleList(Block(DIM, 2, init_values=0.1, drop_path=0.1) for _ in range(DEPTH))

    def forward(self, images):
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return (x[:, 2:].transpose(1, 2).unflatten(2, (4, 4)),)


class PyramidEncoder(nn.Module):
    """timm's SAM2 Hiera: widths double and maps halve in the first block of each of the later stages."""

    def __init__(self):
        super().__init__()
        sizes = {"stages": (1, 1, 2, 1), "global_att_blocks": (3,), "window_spec": (4, 2, 2, 1)}
        self.trunk = HieraDet(embed_dim=8, num_heads=1, **sizes)
        self.channels, self.block_dims, self.prefix_tokens = (8, 16, 32, 64), (8, 8, 16, 32, 32), 0

    @property
    def blocks(self):
        return self.trunk.blocks

    def forward(self, images):
        x = self.trunk.patch_embed(images)
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.trunk.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps)


@pytest.mark.parametrize("places", [(0, 1, 2, 3), (1, 2)], ids=str)
@pytest.mark.parametrize("kind", [TokenEncoder, PyramidEncoder])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_works_on_tokens_with_a_prefix_and_on_a_pyramid(variant, kind, places):
    torch.manual_seed(0)
    encoder = kind().requires_grad_(False).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    frozen = encoder(images)
    adapted = ADAPTERS.build(ADAPTERS.parse(variant), encoder, places).eval()
    maps = adapted(images)
    assert [m.shape for m in maps] == [m.shape for m in frozen]
    if variant["name"] not in STARTS_CHANGED:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, frozen))
    stir(adapted)
    parameters = adapter_parameters(adapted)
    sum(m.square().sum() for m in adapted(images)).backward()
    assert parameters and all(p.grad is not None and p.grad.any() for p in parameters.values())
    assert {n for n, p in adapted.named_parameters() if p.requires_grad} == set(parameters)


class ConvEncoder(TokenEncoder):
    """An encoder without a transformer block."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(DIM, DIM, 3), nn.ReLU()) for _ in range(DEPTH))


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"name": "parallel"}, "needs a block's 'mlp' of linear layers, which block 1 (Sequential: 0, 1)"),
        ({"name": "mona"}, "block 1 (Sequential: 0, 1) has no such parts"),
        ({"name": "ssf"}, "ssf follows linear layers and layer norms, and block 1 (Sequential) has none"),
        ({"name": "lora"}, "block 1 has no linear layer attn.qkv. Its linear layers: none"),
        ({"name": "vera"}, "block 1 has no linear layer attn.qkv. Its linear layers: none"),
        ({"name": "ia3"}, "block 1 has no linear layer attn.qkv, mlp.fc2. Its linear layers: none"),
    ],
    ids=label,
)
def test_an_encoder_without_the_layers_is_told_what_was_looked_for(variant, said):
    with pytest.raises(InvalidModel, match=re.escape(said)):
        ADAPTERS.build(ADAPTERS.parse(variant), ConvEncoder(), (1,))


def test_a_misspelt_layer_is_told_what_there_is():
    said = "block 0 has no linear layer attn.q. Its linear layers: attn.proj, attn.qkv, mlp.fc1, mlp.fc2"
    with pytest.raises(InvalidModel, match=re.escape(said)):
        build({"name": "lora", "layers": ["attn.q", "attn.proj"]})


def test_tokens_that_are_no_square_map_are_refused():
    encoder = TokenEncoder()
    encoder.prefix_tokens = 1  # 17 tokens remain
    mona = ADAPTERS.build(ADAPTERS.parse("mona"), encoder, (0,))
    with pytest.raises(InvalidModel, match="17 tokens are no square map"):
        mona(torch.randn(1, 3, SIDE, SIDE))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v["name"] != "ladder"], ids=label)
def test_what_is_tuned_beside_an_adapter_stays_tuned(variant):
    model = build(variant, tuned_blocks="last:1", tuned_stem=True)
    trained = {n for n, p in model.named_parameters() if p.requires_grad and part_of(n) == "encoder"}
    own = {n for n, _ in model.named_parameters() if part_of(n) == "encoder"}
    assert trained == {n for n in own if ".blocks.3." in n or ".blocks." not in n}
    train(model)
