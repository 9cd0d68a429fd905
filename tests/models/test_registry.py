import pytest
from pydantic import ValidationError

from models import MODELS
from models._encoder_decoder import DECODERS


def test_a_file_is_an_entry_and_machinery_is_not():
    assert "sam3_unet" in MODELS.names() and "unet" in MODELS.names()
    assert not [name for name in MODELS.names() if name.startswith("_")]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(Exception, match="unknown model 'sam3_unt'. Did you mean 'sam3_unet'[?] Available: .*unet"):
        MODELS.parse("sam3_unt")


def test_entry_without_name_says_how():
    with pytest.raises(Exception, match="chosen by its name, as in {name: fpn}"):
        DECODERS.parse({"width": 8})


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
