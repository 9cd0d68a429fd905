import sys

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from models import MODELS
from models.core.encoder_decoder import DECODERS
from models.core.registry import Registry
from models.core.skeleton import skeleton


def test_a_file_is_an_entry_and_machinery_is_not():
    assert "sam3_unet" in MODELS.names() and "unet" in MODELS.names()
    assert not [name for name in MODELS.names() if name.startswith("_")]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(Exception, match="unknown model 'sam3_unt'. Did you mean 'sam3_unet'[?] Available: .*unet"):
        MODELS.parse("sam3_unt")


def test_entry_without_name_says_how():
    with pytest.raises(Exception, match="chosen by its name, as in {name: fpn}"):
        DECODERS.parse({"width": 8})


@pytest.mark.parametrize("content", ["", "import pydantic\nclass Config(pydantic.BaseModel):\n    width: int = 1\n"])
def test_a_file_whose_config_is_of_another_kind_is_told_what_it_needs(monkeypatch, tmp_path, content):
    (tmp_path / "own_decoders").mkdir()
    (tmp_path / "own_decoders" / "mine.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    expected = r"own_decoders/mine.py needs a class Config that inherits from models.core.registry.Config"
    with pytest.raises(PydanticCustomError, match=expected):
        Registry("own_decoders", "decoder").parse("mine")
    for name in [name for name in sys.modules if name.startswith("own_decoders")]:
        del sys.modules[name]


def test_mapping_without_name_changes_the_default_entry():
    config = MODELS.parse({"name": "sam3_unet", "adapter": {"rank": 8}})
    assert config.adapter.name == "bottleneck" and config.adapter.rank == 8
    assert config.encoder == MODELS.parse("sam3_unet").encoder


def test_configs_are_closed_strict_and_immutable():
    for wrong in ({"width": 12}, {"width": "64"}, {"width": True}, {"wdth": 64}, {"width": 0}):
        with pytest.raises(ValidationError):
            DECODERS.parse({"name": "light_unet", **wrong})
    with pytest.raises(ValidationError):
        DECODERS.parse("light_unet").width = 64


def test_json_round_trip_gives_the_same_config():
    config = MODELS.parse({"name": "sam3_unet", "adapter": {"placement": [3, 1]}, "tuned_blocks": "last:2"})
    assert MODELS.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("model", "size", "changes"),
    [
        ({"name": "sam3_unet", "encoder": {"name": "sam3_vit_tiny"}}, 32, {"drop_path": 0.3, "checkpointing": True}),
        ({"name": "sam3_unet", "encoder": {"name": "sam3_vit_tiny"}}, 32, {"weights": "x", "residual": "bfloat16"}),
        (
            {"name": "sam2_unet", "encoder": {"name": "sam2_hiera", "size": "tiny"}},
            64,
            {"release": "2.1", "weights": "x", "drop_path": 0.2, "checkpointing": True},
        ),
        (
            {"name": "sam3_unet", "encoder": {"name": "timm_backbone", "model": "test_vit"}, "adapter": "lora"},
            32,
            {"weights": "random", "checkpointing": False},
        ),
    ],
)
def test_models_of_one_shape_have_the_same_tensors(model, size, changes):
    config = MODELS.parse(model)
    other = MODELS.parse(
        {**model, "checkpoint": "y", "checkpoint_decoder": True, "encoder": model["encoder"] | changes}
    )
    assert changes.keys() <= type(config.encoder).shapeless and config.shape() == other.shape() and config != other
    tensors = [
        {n: (v.shape, v.dtype, v.requires_grad) for n, v in skeleton(c, size).named_parameters()}
        for c in (config, other)
    ]
    assert tensors[0] == tensors[1]
    assert MODELS.parse({**model, "decoder": "fpn"}).shape() != config.shape()
