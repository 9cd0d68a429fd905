"""timm's backbones as encoders: one of every family that adapters fit, random weights, small images."""

import copy

import pytest
import timm
import torch
from torch import nn

from models import MODELS
from models.core import weights
from models.core.encoder_decoder import ADAPTERS, ENCODERS
from models.core.placement import resolve
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

MODELS_OF_EACH_FAMILY = {
    "vit_tiny_patch16_224": 64,  # a class token
    "vit_base_patch16_siglip_224": 32,  # no token beside the image's
    "vit_small_patch14_dinov2": 56,
    "vit_small_patch16_dinov3": 64,  # five tokens more, rotary positions
    "samvit_base_patch16": 64,
    "convnext_atto": 64,
    "swin_tiny_patch4_window7_224": 64,
}
SMALLEST = {"test_vit": 64, "test_convnext": 64}


def encoder(name, size, **more):
    return ENCODERS.build(ENCODERS.parse({"name": "timm_backbone", "model": name, "weights": "random", **more}), size)


def model(name, size, placement, **more):
    settings = {"name": "timm_backbone", "model": name, "weights": "random", **more}
    adapter = {"rank": 2, "placement": placement}
    config = {"name": "sam3_unet", "encoder": settings, "decoder": {"width": 8}, "adapter": adapter}
    return MODELS.build(MODELS.parse(config), size, True)


@pytest.mark.parametrize(("name", "size"), MODELS_OF_EACH_FAMILY.items())
def test_without_adapters_it_is_timms_own_network(name, size):
    torch.manual_seed(0)
    ours = encoder(name, size).eval()
    torch.manual_seed(0)
    fixed = {} if "convnext" in name else {"img_size": size}
    theirs = timm.create_model(name, num_classes=0, **fixed).eval()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        maps, (final, all_maps) = ours(images), theirs.forward_intermediates(images)
    assert tuple(m.shape[1] for m in maps) == ours.channels
    if len(maps) == 4:
        expected = all_maps[-4:]
    elif "sam" in name:
        expected = all_maps[-1:]
    else:  # behind the final norm, without the tokens that have no place in the image
        tokens = final[:, ours.prefix_tokens :]
        expected = [tokens.transpose(1, 2).unflatten(2, maps[0].shape[2:])]
    for ours_one, theirs_one in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours_one, theirs_one, atol=1e-5, rtol=1e-4)


class Spy(nn.Module):
    """Calls the block and notes what it was given."""

    def __init__(self, block):
        super().__init__()
        self.block = block
        self.seen = None

    def forward(self, x):
        self.seen = tuple(x.shape)
        return self.block(x)


@pytest.mark.parametrize(("name", "size"), MODELS_OF_EACH_FAMILY.items())
def test_what_replaces_a_block_is_called_as_the_contract_says_and_changes_nothing_by_itself(name, size):
    ours = encoder(name, size, checkpointing=False).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = ours(images)
        spies = [Spy(block) for block in ours.blocks]
        for i, spy in enumerate(spies):
            ours.blocks[i] = spy
        after = ours(images)
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert all(ours.blocks[i] is spy for i, spy in enumerate(spies))
    for spy, dim in zip(spies, ours.block_dims, strict=True):
        if ours.prefix_tokens:
            assert spy.seen == (2, ours.prefix_tokens + (size // ours.trunk.patch_embed.patch_size[0]) ** 2, dim)
        else:
            assert len(spy.seen) == 4 and spy.seen[-1] == dim and spy.seen[1] == spy.seen[2]


@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
@pytest.mark.parametrize("placement", ["all", "none", "first:2", "last:3", "every:2", [0, 4]])
def test_adapters_sit_where_placed_and_train(name, size, placement):
    net = model(name, size, placement).train()
    depth = len(net.encoder.blocks)
    adapted = {i for i, block in enumerate(net.encoder.blocks) if hasattr(block, "adapter")}
    assert adapted == set(resolve(ADAPTERS.parse({"name": "bottleneck", "placement": placement}).placement, depth))
    net(torch.randn(2, 3, size, size))[0].square().mean().backward()
    for parameter_name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
    counts = {i: sum(p.numel() for p in net.encoder.blocks[i].adapter.parameters()) for i in adapted}
    assert counts == {i: 5 * net.encoder.block_dims[i] + 2 for i in adapted}


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "vit_small_patch16_dinov3"])
def test_checkpointing_changes_neither_outputs_nor_gradients(name):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = model(name, 64, "all", checkpointing=checkpointing).train()
        torch.manual_seed(1)
        logits = net(torch.randn(2, 3, 64, 64))[0]
        logits.mean().backward()
        results.append([logits, *(p.grad for p in net.parameters() if p.requires_grad)])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("name", SMALLEST)
def test_full_fine_tuning_reaches_everything_that_is_used(name):
    settings = {"name": "timm_backbone", "model": name, "weights": "random"}
    config = MODELS.parse(
        {
            "name": "sam3_unet",
            "encoder": settings,
            "decoder": {"width": 8},
            "adapter": {"placement": "none"},
            "tuned_blocks": "all",
            "tuned_stem": True,
        }
    )
    net = MODELS.build(config, 64, True).train()
    net(torch.randn(2, 3, 64, 64))[0].square().mean().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None}
    assert all(n.startswith(("encoder.trunk.head", "encoder.trunk.norm_pre")) for n in idle), idle


@pytest.mark.parametrize(
    ("name", "size", "near"), [("vit_small_patch14_dinov2", 60, "56, 70"), ("convnext_atto", 30, "32, 36")]
)
def test_sizes_that_the_patches_do_not_fill_name_the_nearest(name, size, near):
    with pytest.raises(InvalidModel, match=f"Nearest: {near}"):
        encoder(name, size)


def test_other_families_are_refused_with_those_that_fit():
    with pytest.raises(InvalidModel, match="is a Hiera of timm, and adapters support VisionTransformer, Eva"):
        encoder("hiera_tiny_224", 64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit_smal_patch14_dinov2", "Did you mean 'vit_small_patch14_dinov2'"), ("test_vit.nope", "pretrained tag")],
)
def test_names_that_timm_does_not_know(name, expected):
    with pytest.raises(ValueError, match=expected):
        ENCODERS.parse({"name": "timm_backbone", "model": name})


def test_weights_from_a_path_fit_another_image_size(tmp_path):
    torch.manual_seed(5)
    source = timm.create_model("test_vit", num_classes=10, img_size=160)
    torch.save(source.state_dict(), tmp_path / "test_vit.pt")
    ours = encoder("test_vit", 64, weights=str(tmp_path / "test_vit.pt"))
    assert ours.load_pretrained() == len(ours.trunk.state_dict()) == len(source.state_dict()) - 2
    state = source.state_dict()
    for tensor_name, value in ours.trunk.state_dict().items():
        if tensor_name == "pos_embed":
            assert value.shape[1] < state[tensor_name].shape[1]
        else:
            assert torch.equal(value, state[tensor_name]), tensor_name
    assert ours.trunk.blocks[0] is ours.blocks[0], "adapters go into the trunk that was loaded"


@pytest.mark.parametrize(("name", "size"), MODELS_OF_EACH_FAMILY.items())
def test_timms_own_weights_load_in_every_family(name, size, tmp_path):
    if "base" in name:
        pytest.skip("large, and of the same families as the others")
    source = timm.create_model(name)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    ours = encoder(name, size, weights=str(tmp_path / "w.pt"))
    assert ours.load_pretrained() == len(ours.trunk.state_dict())
    loaded = ours.blocks[-1].state_dict()
    blocks = source.blocks if hasattr(source, "blocks") else getattr(source, ours.family.stages)[-1].blocks
    for tensor_name, value in blocks[-1].state_dict().items():
        if "relative_position" in tensor_name:  # Swin's window shrinks with the image, and its table with it
            continue
        assert torch.equal(value, loaded[tensor_name]), tensor_name


@pytest.mark.parametrize("change", ["foreign", "incomplete", "more"])
def test_wrong_weights_are_an_error(tmp_path, change):
    """timm would log them and go on with what it has, and be it nothing at all."""
    state = timm.create_model("test_vit").state_dict()
    incomplete = {n: v for n, v in state.items() if n != "blocks.3.norm1.weight"}
    more = {**state, "blocks.9.norm1.weight": torch.zeros(64)}
    torch.save(
        {"foreign": {"x": torch.zeros(1)}, "incomplete": incomplete, "more": more}[change], tmp_path / "wrong.pt"
    )
    with pytest.raises(weights.WeightsError, match="wrong.pt: these are not the weights of test_vit"):
        encoder("test_vit", 64, weights=str(tmp_path / "wrong.pt")).load_pretrained()


def test_weights_that_are_not_there_are_missing_and_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("models.encoders.timm_backbone.try_to_load_from_cache", lambda *arguments: None)
    config = ENCODERS.parse("timm_backbone")
    (missing,) = config.missing()
    assert missing.kind == "weights" and "hf download timm/vit_base_patch14_dinov2.lvd142m" in missing.remedy
    with pytest.raises(weights.WeightsError, match="not in the Hugging Face cache"):
        encoder("test_vit", 64, weights="pretrained").load_pretrained()
    (missing,) = ENCODERS.parse({"name": "timm_backbone", "weights": str(tmp_path / "no.pt")}).missing()
    assert "no.pt does not exist" in missing.what
    assert not list(ENCODERS.parse({"name": "timm_backbone", "weights": "random"}).missing())


def test_cached_weights_are_found(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(
        "models.encoders.timm_backbone.try_to_load_from_cache", lambda repository, name: str(tmp_path / name)
    )
    config = ENCODERS.parse("timm_backbone")
    assert not list(config.missing()) and list(config.weight_files()) == [tmp_path / "model.safetensors"]


def test_the_largest_can_be_sized_without_memory():
    config = {"name": "timm_backbone", "model": "vit_large_patch14_dinov2.lvd142m"}
    shape = skeleton(MODELS.parse({"name": "sam3_unet", "encoder": config}), 336)
    assert {p.device.type for p in shape.parameters()} == {"meta"} and len(shape.encoder.blocks) == 24


def test_a_copy_is_independent_of_its_original():
    """Blocks that are handed rotary positions get those of their own network."""
    net = model("vit_small_patch16_dinov3", 64, "first:2").eval()
    images = torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        before = twin(images)[0]
        for slot in net.encoder.trunk.blocks:
            slot.context = {"rope": None}
        assert torch.equal(twin(images)[0], before)
        for parameter in net.parameters():
            parameter.zero_()
        assert torch.equal(twin(images)[0], before)


@pytest.mark.parametrize("adapter", ["parallel", "mona"])
def test_adapters_inside_the_block_fit_sams_vit_which_flattens_its_map(adapter):
    settings = {"name": "timm_backbone", "model": "samvit_base_patch16", "weights": "random"}
    placed = {"name": adapter, "rank": 2, "placement": [0, 2]}  # a windowed block and a global one
    config = {"name": "sam3_unet", "encoder": settings, "decoder": {"width": 8}, "adapter": placed}
    net = MODELS.build(MODELS.parse(config), 64, True).train()
    net(torch.randn(2, 3, 64, 64))[0].square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
