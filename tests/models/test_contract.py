"""What every entry of every registry promises; a new file is under test the moment it exists."""

import re

import pytest
import torch
from torch import nn

from models import MODELS
from models.core.encoder_decoder import ADAPTERS, DECODERS, ENCODERS, Config, parameter_counts, part_of
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

REGISTRIES = (MODELS, ENCODERS, ADAPTERS, DECODERS)
ENTRIES = [(registry, name) for registry in REGISTRIES for name in registry.names()]
TRAINED = [name for name in MODELS.names() if name != "sam3_zero_shot"]  # 840 M parameters, tested on its own
SMALL_ENCODER = {"name": "sam3_vit_tiny", "weights": "random"}


def small(name: str):
    """The model's defaults, with the tiny encoder where there is an encoder."""
    config = MODELS.parse(name)
    return (
        config.model_copy(update={"encoder": ENCODERS.parse(SMALL_ENCODER)}) if isinstance(config, Config) else config
    )


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=lambda v: v if isinstance(v, str) else v.noun)
def test_entry_is_named_like_its_file_and_says_what_it_is(registry, name):
    config = registry.parse(name)
    assert config.name == name
    assert registry.module(name).__doc__
    assert callable(registry.module(name).build)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("num_classes", [1, 3])
def test_logits_have_the_images_size_and_gradient_goes_where_it_should(name, num_classes):
    config = small(name).model_copy(update={"num_classes": num_classes})
    model = MODELS.build(config, 64, False).train()
    logits = model(torch.randn(2, 3, 64, 64))
    assert isinstance(logits, tuple) and all(each.shape == (2, num_classes, 64, 64) for each in logits)
    sum(each.square().mean() for each in logits).backward()
    for parameter_name, parameter in model.named_parameters():
        used = "idle" not in parameter_name.split(".")  # models.decoders: kept for upstream's checkpoints only
        assert (parameter.grad is not None) == (parameter.requires_grad and used), parameter_name


@pytest.mark.parametrize("name", TRAINED)
def test_skeleton_counts_what_the_model_has(name):
    config = small(name)
    shape = skeleton(config, 64)
    assert all(p.device.type == "meta" for p in shape.parameters())
    assert parameter_counts(shape) == parameter_counts(MODELS.build(config, 64, False))


@pytest.mark.parametrize("name", MODELS.names())
def test_takes_rectangles_or_says_that_it_does_not(name):
    config = small(name)
    if getattr(config, "encoder", config).any_aspect:
        logits = MODELS.build(config, (64, 96), False).eval()(torch.randn(1, 3, 64, 96))
        assert all(each.shape == (1, 1, 64, 96) for each in logits)
    else:
        with pytest.raises(InvalidModel, match="takes only squares"):
            skeleton(config, (64, 96))


@pytest.mark.parametrize("name", ADAPTERS.names())
@pytest.mark.parametrize("placement", ["all", "none", "last:3", "every:2", [0, 5]])
def test_adapters_sit_where_placed_and_only_they_and_the_decoder_train(name, placement):
    config = small("sam3_unet").model_copy(update={"adapter": ADAPTERS.parse({"name": name, "placement": placement})})
    model = MODELS.build(config, 64, False)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and {part_of(n) for n in trained} <= {"adapter", "decoder"}
    adapted = {int(found[1]) for n in trained if (found := re.search(r"\.(?:blocks|rungs)\.(\d+)\.", n))}
    from models.core.placement import resolve

    assert adapted == set(resolve(config.adapter.placement, 8))


@pytest.mark.parametrize("name", DECODERS.names())
@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("num_classes", [1, 5])
def test_decoders_take_one_map_or_four(name, levels, num_classes):
    channels = (24, 32, 40, 48)[:levels]
    decoder = DECODERS.build(DECODERS.parse(name), channels, num_classes)
    features = tuple(torch.randn(2, c, 16 >> i, 16 >> i) for i, c in enumerate(channels))
    assert isinstance(decoder, nn.Module)
    assert all(logits.shape == (2, num_classes, 64, 96) for logits in decoder(features, (64, 96)))


@pytest.mark.parametrize("placement", ["all", "last:1"])
@pytest.mark.parametrize("decoder", DECODERS.names())
@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_every_adapter_trains_at_every_placement_with_every_decoder(adapter, decoder, placement):
    encoder = {**SMALL_ENCODER, "depth": 2, "global_blocks": [1], "window": 4}
    method = {"name": adapter, "placement": placement}
    config = MODELS.parse({"name": "sam3_unet", "encoder": encoder, "adapter": method, "decoder": decoder})
    model = MODELS.build(config, 32, False).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-2)
    silent = {name for name in trained if part_of(name) == "adapter"}
    assert silent
    for _ in range(3):  # what starts at zero hides what lies behind it for a step
        optimiser.zero_grad()
        sum(logits.square().mean() for logits in model(torch.randn(2, 3, 32, 32))).backward()
        optimiser.step()
        silent = {name for name in silent if trained[name].grad is None or not trained[name].grad.any()}
    assert not silent
