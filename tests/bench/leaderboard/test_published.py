"""Published numbers: only what a source supports, and only beside the test set that they were made on."""

import pytest
import yaml
from pydantic import ValidationError

from bench.config.trial import TrialConfig
from bench.leaderboard.published import FILE, Published, load, test_set_of
from bench.scoring.metrics import OF_PROTOCOL

test_set_of.__test__ = False  # a function of ours, no test


@pytest.fixture
def raw():
    return yaml.safe_load(FILE.read_text())


def trial(dataset="duts", **model):
    return TrialConfig.model_validate({"model": {"name": "sam3_unet", **model}, "dataset": {"name": dataset}})


def test_the_file_is_valid_and_every_source_is_used():
    known = load()
    assert {r.source for r in known.results} == set(known.sources)
    assert {r.test_set for r in known.results} <= set(known.test_sets)


def test_some_values_as_their_sources_have_them():
    found = {(r.method, r.test_set): r.scores for r in load().results}
    assert found["SAM2-UNet", "DUTS-TE"] == {"s_measure": 0.934, "mean_e_measure": 0.959, "mae": 0.020}
    assert found["SAM2-UNet", "CAMO"]["adaptive_f_measure"] == 0.861
    assert found["SAM2-UNeXT", "MAS3K"] == {
        "mean_iou": 0.853,
        "s_measure": 0.926,
        "weighted_f_measure": 0.9,
        "mean_e_measure": 0.96,
        "mae": 0.014,
    }
    assert found["SAM3-UNet", "MSD"] == {"iou": 0.943}


def test_what_nobody_verified_is_absent():
    """Known from memory only: SAM2-UNet on PASCAL-S and on the polyp sets but Kvasir; SAM3-UNet's salient table."""
    found = {(r.method, r.test_set) for r in load().results}
    assert ("SAM2-UNet", "PASCAL-S") not in found and ("SAM3-UNet", "DUTS-TE") not in found
    assert not {test_set for method, test_set in found if test_set.startswith(("CVC", "ETIS"))}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": {"s_measure": 93.4}}, "less than or equal to 1"),
        ({"scores": {"iou": 0.9}}, "has no metric iou"),
        ({"source": "hearsay"}, "must be listed"),
        ({"test_set": "nowhere"}, "must be listed"),
        ({"method": "SAM2-UNet", "test_set": "ECSSD", "source": "sam2_unet_salient"}, "stands here twice"),
        ({"extra": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_entry_is_refused(raw, change, said):
    entry = {"method": "M", "test_set": "DUTS-TE", "protocol": "sod", "source": "rag_seg", "scores": {"mae": 0.1}}
    raw["results"].append(entry | change)
    with pytest.raises(ValidationError, match=said):
        Published.model_validate(raw)


def test_a_test_set_is_known_by_name_and_size():
    assert test_set_of(trial(), [5019, 5019]) == "DUTS-TE"
    assert test_set_of(trial(), [5018]) is None and test_set_of(trial(), []) is None
    assert test_set_of(trial("procedural"), [5019]) is None


def test_only_the_papers_own_setting_reproduces_it():
    known = load()
    assert known.method_of(trial()) == "SAM3-UNet"
    elsewhere = {"name": "sam3_vit", "weights": "/tmp/sam3.pt", "checkpointing": False}
    assert known.method_of(trial(encoder=elsewhere)) == "SAM3-UNet"
    assert known.method_of(trial(adapter={"rank": 8})) is None
    assert known.method_of(trial(encoder="sam3_vit_tiny")) is None


def test_protocols_do_not_mix():
    assert not [r for r in load().of("MSD", "sod") if r.protocol == "mirror"]
    assert all(set(r.scores) <= set(OF_PROTOCOL["mirror"]) for r in load().of("MSD", "mirror"))
