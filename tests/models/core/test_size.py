"""Images that are no squares, and sizes that do not fit."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from models import MODELS
from models.core.encoder_decoder import ENCODERS
from models.core.registry import InvalidModel
from models.core.size import Size, in_words, misfit
from models.core.skeleton import skeleton
from models.encoders import sam2_hiera, sam3_vit
from models.encoders._sam3_package import sam3_module

PARSE = TypeAdapter(Size).validate_python
TINY = {"name": "sam3_vit_tiny", "weights": "random", "drop_path": 0.0}


def test_a_square_is_one_number_however_it_is_written():
    assert PARSE(336) == PARSE([336, 336]) == 336 and PARSE([336, 448]) == PARSE((336, 448)) == (336, 448)
    assert (in_words(336), in_words((336, 448))) == ("336", "336 x 448")


@pytest.mark.parametrize("wrong", [0, -14, 336.0, "336", True, [336], [336, 0], [336, 448, 3], {"height": 1}, None])
def test_what_is_no_size_names_what_is(wrong):
    with pytest.raises(ValidationError, match=r"a side such as 336, or \[height, width\]"):
        PARSE(wrong)


@pytest.mark.parametrize(
    ("size", "step", "nearest"),
    [
        (336, 14, None),
        (340, 14, "336, 350"),
        (7, 14, "14"),
        ((336, 440), 14, "[336, 434], [336, 448]"),
        ((28, 7), 14, "[28, 14]"),
    ],
)
def test_nearest_sizes(size, step, nearest):
    assert misfit(size, step) == nearest


@pytest.mark.parametrize("side", [24, 48, 72])
def test_rope_of_a_square_is_sam3s_own(side):
    config = sam3_vit.Config(dim=64, depth=2, heads=2, global_blocks=[1], weights="random")
    trunk = sam3_vit.build(config, 14 * side).trunk
    assert torch.equal(trunk.blocks[1].attn.freqs_cis, sam3_vit.rope_table(32, (side, side), 24))


def test_rope_of_a_rectangle_turns_each_side_by_its_own_scale():
    """Against the formula: position times scale times 10000 ** (-4 i / dim), x in the first half, y in the second."""
    height, width, dim = 6, 9, 16
    table = sam3_vit.rope_table(dim, (height, width), window=3).view(height, width, dim // 2)
    for row, column in ((0, 0), (5, 0), (0, 8), (4, 7)):
        frequencies = 10000.0 ** (-torch.arange(0, dim, 4) / dim)
        angles = torch.cat([column * 3 / width * frequencies, row * 3 / height * frequencies])
        torch.testing.assert_close(table[row, column], torch.polar(torch.ones_like(angles), angles))


@pytest.mark.parametrize("size", [(64, 96), (104, 40), (96, 200)])
def test_sam3_takes_rectangles(size):
    model = MODELS.build(MODELS.parse({"name": "sam3_unet", "encoder": TINY, "decoder": {"width": 8}}), size, False)
    images = torch.randn(2, 3, *size)
    logits = model(images)[0]
    assert logits.shape == (2, 1, *size)
    logits.mean().backward()


def test_sam3_on_a_rectangle_treats_height_and_width_alike():
    """A model turned by 90 degrees (weights with x and y exchanged) gives the turned answer, on rectangles too."""
    trunk = sam3_vit.build(ENCODERS.parse(TINY), (64, 96)).trunk.eval()
    turned = sam3_vit.build(ENCODERS.parse(TINY), (96, 64)).trunk.eval()
    state = {n: v.clone() for n, v in trunk.state_dict().items() if not n.endswith("freqs_cis")}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].transpose(2, 3).contiguous()
    grid = state["pos_embed"][:, 1:].unflatten(1, (12, 12)).transpose(1, 2).flatten(1, 2)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], grid], dim=1)
    dim = trunk.blocks[0].attn.head_dim
    swap = torch.cat([torch.arange(dim // 2, dim), torch.arange(dim // 2)])  # x and y halves of a head
    for name, value in state.items():
        if ".qkv." in name:
            query, key, values = value.unflatten(0, (3, -1, dim))
            state[name] = torch.stack([query[:, swap], key[:, swap], values]).flatten(0, 2)
    turned.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        answer = turned(images.transpose(2, 3))[-1].transpose(2, 3)
        torch.testing.assert_close(answer, trunk(images)[-1], rtol=1e-4, atol=1e-4)


def test_sam2_takes_rectangles(monkeypatch):
    small = {"embed_dim": 8, "num_heads": 1, "stages": (1, 2, 1, 1), "global_att_blocks": (2,)}
    monkeypatch.setitem(sam2_hiera.SIZES, "large", small)
    model = MODELS.build(MODELS.parse({"name": "sam2_unet", "decoder": {"width": 4}}), (64, 96), False)
    assert [logits.shape for logits in model(torch.randn(2, 3, 64, 96))] == [(2, 1, 64, 96)] * 3


def test_sides_that_do_not_fit_name_the_nearest():
    with pytest.raises(InvalidModel, match=r"336 x 440 is no multiple of .* 14. Nearest: \[336, 434\], \[336, 448\]"):
        skeleton(MODELS.parse("sam3_unet"), (336, 440))


@pytest.mark.parametrize(("model", "part"), [("sam3_unet", "encoder"), ("unet", "name")])
def test_what_is_for_squares_only_says_so(monkeypatch, model, part):
    config = MODELS.parse(model)
    entry = getattr(config, "encoder", config)
    monkeypatch.setattr(type(entry), "any_aspect", False)
    with pytest.raises(InvalidModel, match=f"{part}: .* 336 x 448 is no square, and {entry.name} takes only"):
        skeleton(config, (336, 448))


def test_sam3s_own_class_is_still_for_squares_only():
    """If this fails, sam3 learnt rectangles and ``rope_table`` may go."""
    vit = sam3_module("model.vitdet").ViT(
        img_size=28, patch_size=14, embed_dim=16, depth=1, num_heads=1, global_att_blocks=(0,), rel_pos_blocks=(),
        use_rope=True, use_interp_rope=True, pretrain_img_size=28, window_size=2, retain_cls_token=False,
    )  # fmt: skip
    with pytest.raises(AssertionError):
        vit(torch.zeros(1, 3, 28, 56))
