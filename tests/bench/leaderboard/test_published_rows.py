"""External methods and published numbers beside the leaderboard."""

import pytest
from synthetic import board_of, images_of, record

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.leaderboard import published
from bench.records.external_scores import ExternalRecord
from bench.report.tables import markdown
from bench.scoring.metrics import OF_PROTOCOL


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def external(**changes):
    usual = {
        "name": "Other",
        "protocol": "sod",
        "minmax": True,
        "scores": {m: 0.777 for m in OF_PROTOCOL["sod"]},
        "images": 40,
        "predictions": "/maps/other",
        "masks": "/gt",
        "predictions_fingerprint": "a",
        "masks_fingerprint": "b",
        "scored": "2026-01-02T00:00:00+00:00",
        "commit": None,
        "dirty": None,
        "versions": {},
        "image_scores": {"name": [f"im {i}" for i in range(40)]},
    }
    return ExternalRecord(**{**usual, **changes})


def test_external_methods_stand_apart_and_say_where_they_are_from(sweep):
    trials = expand(sweep)
    images = images_of(trials, [0.8] * 6)
    records = [record(t) for t in trials]
    text = markdown(board_of(sweep, *records, images=images, external=[external()]))
    table, apart = text.split("## Scored from prediction files, not trained here")
    assert "Other" not in table and "0.777" not in table
    assert "| Other |" in apart and "/maps/other" in apart and "not comparable" not in apart
    elsewhere = external(image_scores={"name": ["x"]})
    assert "not comparable: other images" in markdown(board_of(sweep, *records, images=images, external=[elsewhere]))
    otherwise = external(protocol="mirror", scores={"iou": 0.5})
    text = markdown(board_of(sweep, *records, images=images, external=[otherwise]))
    assert "not comparable: another protocol" in text


@pytest.fixture
def real():
    """The paper's model, and one with another adapter, on DUTS."""
    base = TrialConfig.model_validate({"model": {"name": "sam3_unet"}, "dataset": {"name": "duts"}, "device": "cpu"})
    return Sweep("real", "How?", "full", base, (Axis.over("model.adapter.rank", {"8": 8, "32": 32}),), (0, 1))


DUTS = {"images": {"train": 10553, "val": 0, "test": 5019}}


def test_published_numbers_stand_beside_a_known_benchmark(real):
    trials = expand(real)
    board = board_of(real, *(record(t, **DUTS) for t in trials))
    text = markdown(board)
    assert "## Published on DUTS-TE, not measured here" in text
    assert "| SAM2-UNet | S | 0.934 | – | – |" in text and "second hand" in text
    assert "SINet" not in text  # published on other test sets


def test_the_gap_is_that_of_the_row_which_builds_the_papers_model(real, monkeypatch):
    made = published.load().model_dump()
    ours = {"method": "SAM3-UNet", "source": "sam3_unet", "scores": {"mae": 0.02}}
    made["results"] = [{**ours, "test_set": "DUTS-TE", "protocol": "sod"}]
    known = published.Published.model_validate(made)
    monkeypatch.setattr(published, "load", lambda: known)
    trials = expand(real)
    values = (0.5, 0.5, 0.024, 0.026)
    (row,) = board_of(real, *(record(t, s, **DUTS) for t, s in zip(trials, values))).beside.published
    assert row.point == ("32",) and row.gaps == {"mae": pytest.approx(0.005)}
    without_it = board_of(real, *(record(t, s, **DUTS) for t, s in zip(trials[:2], values))).beside.published
    assert without_it[0].point is None and without_it[0].gaps == {}


def test_no_published_numbers_beside_stand_ins_or_unknown_data(sweep, real, tiny_with):
    stand_in = Sweep("s", "?", "p", tiny_with({"dataset": {"name": "duts"}}), sweep.axes, (0, 1))
    for made, sizes in ((sweep, DUTS), (stand_in, DUTS), (real, {"images": {"test": 100}}), (real, {})):
        text = markdown(board_of(made, *(record(t, **sizes) for t in expand(made))))
        assert "Published" not in text
