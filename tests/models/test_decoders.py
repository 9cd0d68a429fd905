"""Decoders behind the tiny encoder, and the pyramid that some of them stand on."""

import pytest
import torch
from torch import nn

from models import MODELS
from models.core.encoder_decoder import DECODERS
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton
from models.decoders._pyramid import Pyramid


@pytest.mark.parametrize("name", DECODERS.names())
def test_every_decoder_takes_a_training_step_behind_the_tiny_encoder(name):
    config = MODELS.parse({"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": name, "adapter": {"rank": 2}})
    model = MODELS.build(config, 96, True).train()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and "idle" not in n.split(".")}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-2)
    sum(each.square().mean() for each in model(torch.randn(2, 3, 96, 96))).backward()
    assert [n for n, p in trained.items() if p.grad is None] == []
    optimiser.step()
    moved = {n.split(".")[0] for n, p in trained.items() if not torch.equal(p, before[n])}
    assert moved == {"encoder", "decoder"}


@pytest.mark.parametrize("name", DECODERS.names())
@pytest.mark.parametrize("size", [42, 322, 336])
def test_grids_that_do_not_halve_evenly_are_no_obstacle(name, size):
    """336 px in patches of 16 are 21 x 21; ConvNeXt's maps of 336 px are 84, 42, 21 and 10."""
    decoder = DECODERS.build(DECODERS.parse(name), (32,), 1).eval()
    side = size // 14
    assert decoder((torch.randn(1, 32, side, side),), (size, size))[0].shape == (1, 1, size, size)
    sides = [max(1, size // stride) for stride in (4, 8, 16, 32)]
    decoder = DECODERS.build(DECODERS.parse(name), (8, 16, 24, 32), 1).eval()
    maps = tuple(torch.randn(1, c, s, s) for c, s in zip((8, 16, 24, 32), sides))
    assert decoder(maps, (size, size))[0].shape == (1, 1, size, size)


@pytest.mark.parametrize("name", DECODERS.names())
def test_decoders_can_be_built_without_memory(name):
    model = skeleton(MODELS.parse({"name": "sam3_unet", "decoder": name}), 336)
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize(("side", "expected"), [(24, (96, 48, 24, 12)), (21, (88, 44, 22, 11)), (1, (8, 4, 2, 1))])
def test_pyramid_of_one_map_has_the_scales_of_vitdet(side, expected):
    pyramid = Pyramid((16,), 12)
    maps = pyramid((torch.randn(2, 16, side, side),))
    assert [tuple(m.shape) for m in maps] == [(2, 12, s, s) for s in expected] and pyramid.channels == (12,) * 4


def test_pyramid_has_vitdets_layers():
    """Two transposed convolutions, one, none and a pooling, then 1x1 and 3x3 without bias: parameters by hand."""
    up4 = (16 * 8 * 4 + 8) + 2 * 8 + (8 * 4 * 4 + 4)
    up2 = 16 * 8 * 4 + 8
    tails = sum(c * 12 + 12 * 12 * 9 + 2 * 2 * 12 for c in (4, 8, 16, 16))
    assert sum(p.numel() for p in Pyramid((16,), 12).parameters()) == up4 + up2 + tails


def test_pyramid_leaves_four_maps_as_they_are():
    maps = tuple(torch.randn(1, c, s, s) for c, s in ((3, 16), (4, 8), (5, 4), (6, 2)))
    pyramid = Pyramid((3, 4, 5, 6), 99)
    assert all(torch.equal(a, b) for a, b in zip(pyramid(maps), maps)) and not list(pyramid.parameters())


def test_four_maps_of_one_size_are_brought_to_the_same_scales():
    maps = tuple(torch.randn(1, 3, 21, 21) for _ in range(4))
    assert [tuple(m.shape[2:]) for m in Pyramid((3,) * 4, 9)(maps)] == [(88, 88), (44, 44), (22, 22), (11, 11)]


def test_another_number_of_maps_is_an_error():
    with pytest.raises(InvalidModel, match="one feature map or 4, but the encoder has 3"):
        Pyramid((8, 8, 8), 8)


def test_linear_probe_is_one_convolution_resized():
    decoder = DECODERS.build(DECODERS.parse("linear"), (6,), 3)
    feature = torch.randn(2, 6, 4, 4)
    weight, bias = decoder.head.weight[:, :, 0, 0], decoder.head.bias
    by_hand = torch.einsum("kc,bchw->bkhw", weight, feature) + bias.view(1, -1, 1, 1)
    expected = nn.functional.interpolate(by_hand, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(decoder((feature,), (8, 8))[0], expected)
