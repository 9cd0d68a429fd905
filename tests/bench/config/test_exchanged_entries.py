"""Another name at a dotted path exchanges an entry of a registry."""

import pytest

from bench.config.errors import ConfigError
from bench.config.trial import TrialConfig, with_value

GIVEN = {
    "model": {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "adapter": {"name": "bottleneck", "rank": 4}},
    "dataset": "procedural",
    "transform": {"size": 32},
    "device": "cpu",
}


def test_settings_that_the_base_gives_stay_and_defaults_are_those_of_the_new_entry():
    base = TrialConfig.model_validate(GIVEN)
    exchanged = with_value(base, {"model.adapter.name": "lora"})
    assert exchanged == TrialConfig.model_validate(
        {**GIVEN, "model": {**GIVEN["model"], "adapter": {"name": "lora", "rank": 4}}}
    )
    same = with_value(base, {"model.adapter.name": "bottleneck"})
    assert same == base and same.trial_id == base.trial_id
    plain = with_value(
        TrialConfig.model_validate({**GIVEN, "model": "sam3_unet", "transform": {"size": 56}}), {"model.name": "unet"}
    )
    assert plain.model.name == "unet"


def test_other_changes_of_the_same_point_stay_in_any_order():
    base = TrialConfig.model_validate(GIVEN)
    names, rest = {"model.adapter.name": "lora"}, {"model.adapter.alpha": 2, "model.adapter.rank": 8}
    for changes in (names | rest, rest | names):
        adapter = with_value(base, changes).model.adapter
        assert (adapter.name, adapter.alpha, adapter.rank) == ("lora", 2, 8)


def test_a_setting_of_the_base_that_the_new_entry_lacks_is_an_error():
    base = TrialConfig.model_validate({**GIVEN, "model": {**GIVEN["model"], "decoder": {"width": 8}}})
    with pytest.raises(ConfigError, match=r"model.decoder.width: unknown key. Allowed: name"):
        with_value(base, {"model.decoder.name": "linear"})


def test_a_list_in_the_place_of_a_number_is_told_that_it_is_an_axis():
    with pytest.raises(
        ConfigError, match=r"train.lr: should be a valid number \(got \[0.1, 0.2\]\).*list them under axes"
    ):
        with_value(TrialConfig.model_validate(GIVEN), {"train.lr": [0.1, 0.2]})
