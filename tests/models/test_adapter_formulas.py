"""Every adapter method by its formula."""

import pytest
import torch
from adapter_models import DIM, HIDDEN, build, stir
from torch.nn import functional as F


def pair(adapter):
    """A frozen block, the same block with a stirred adapter, and an input to both; in eval mode."""
    plain = build({"name": "bottleneck", "placement": "none"}).eval().encoder.blocks[1]
    adapted = stir(build(adapter)).eval().encoder.blocks[1]
    return plain, adapted, torch.randn(2, 4, 4, DIM)


def middle(block, x):
    """The residual stream between attention and MLP."""
    return x + block.attn(block.norm1(x))


def test_parallel_adds_beside_the_mlp():
    plain, adapted, x = pair({"name": "parallel", "rank": 5, "scale": 0.3})
    down, _, _, up = adapted.adapter
    hidden = F.relu(F.linear(plain.norm2(middle(plain, x)), down.weight, down.bias))
    torch.testing.assert_close(adapted(x), plain(x) + 0.3 * F.linear(hidden, up.weight, up.bias))


def test_mona_adds_after_attention_and_after_the_mlp():
    plain, adapted, x = pair({"name": "mona", "rank": 6})

    def mona(part, x):
        p = dict(part.named_parameters())
        normed = F.layer_norm(x, (DIM,), p["norm.weight"], p["norm.bias"])
        low = F.linear(normed * p["s1"] + x * p["s2"], p["down.weight"], p["down.bias"]).permute(0, 3, 1, 2)
        kernels = sum(F.pad(p[f"convs.{i}.weight"], [2 - i] * 4) for i in range(3)) / 3  # one 7 x 7 kernel is all three
        bias = sum(p[f"convs.{i}.bias"] for i in range(3)) / 3
        low = low + F.conv2d(low, kernels, bias, padding=3, groups=6)
        low = low + F.conv2d(low, p["project.weight"], p["project.bias"])
        return x + F.linear(F.gelu(low.permute(0, 2, 3, 1)), p["up.weight"], p["up.bias"])

    between = mona(adapted.adapter[0], middle(plain, x))
    expected = mona(adapted.adapter[1], between + plain.mlp(plain.norm2(between)))
    torch.testing.assert_close(adapted(x), expected)


def test_mona_starts_with_the_papers_scales():
    first = build("mona").encoder.blocks[0].adapter[0]
    assert first.s1.eq(1e-6).all() and first.s2.eq(1).all() and first.down.out_features == 64


@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_change_the_weights_as_their_equations_say(dora):
    plain, adapted, x = pair({"name": "lora", "rank": 3, "alpha": 6, "dora": dora})
    p = {n.replace(".adapter", ""): v for n, v in adapted.attn.qkv.named_parameters()}
    weight = plain.attn.qkv.weight + 6 / 3 * p["lora_B.weight"] @ p["lora_A.weight"]
    if dora:
        weight = p["lora_magnitude_vector.weight"][:, None] * weight / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(adapted.attn.qkv(x), F.linear(x, weight, plain.attn.qkv.bias), rtol=1e-4, atol=1e-5)


def test_ia3_scales_outputs_of_qkv_and_inputs_of_fc2():
    plain, adapted, x = pair("ia3")
    scale = adapted.attn.qkv.ia3_l["adapter"].flatten()
    torch.testing.assert_close(adapted.attn.qkv(x), plain.attn.qkv(x) * scale)
    hidden = torch.randn(2, HIDDEN)
    scale = adapted.mlp.fc2.ia3_l["adapter"].flatten()
    torch.testing.assert_close(adapted.mlp.fc2(hidden), plain.mlp.fc2(hidden * scale))


def test_vera_shares_frozen_matrices_that_no_seed_of_a_trial_changes():
    plain, adapted, x = pair({"name": "vera", "rank": 7})
    layer = adapted.attn.qkv
    (a, b), (d, s) = (
        (m["adapter"] for m in (layer.vera_A, layer.vera_B)),
        (m["adapter"] for m in (layer.vera_lambda_d, layer.vera_lambda_b)),
    )
    torch.testing.assert_close(layer(x), plain.attn.qkv(x) + s * (((x @ a.T) * d) @ b.T))
    models = [build({"name": "vera", "rank": 7, "projection_seed": k}, seed=s) for s, k in ((0, 0), (1, 0), (0, 1))]
    matrices = [[block.attn.qkv.vera_A["adapter"] for block in m.encoder.blocks] for m in models]
    assert all(m is matrices[0][0] for m in matrices[0])
    assert torch.equal(matrices[0][0], matrices[1][0]) and not torch.equal(matrices[0][0], matrices[2][0])
    assert not [n for n in models[0].state_dict() if "vera_A" in n or "vera_B" in n]


def test_ssf_scales_and_shifts_every_operation():
    plain, adapted, x = pair("ssf")
    for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
        own, changed = plain.get_submodule(name), adapted.get_submodule(name)
        value = torch.randn(3, HIDDEN if name == "mlp.fc2" else DIM)
        torch.testing.assert_close(changed(value), own(value) * changed.adapter["scale"] + changed.adapter["shift"])
