"""Sweeps without an effect, drawn from a pool: of made-up scores, and of trials that are really trained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import synthetic

from bench.config.errors import ConfigError
from bench.tools.no_effect import FILE, main, scores_of, shares_of

TINY = "train.epochs=1 dataset.train=4 train.batch_size=4 dataset.val=2 dataset.test=6 dataset.side=32 transform.size=32".split()


def options(**changes):
    return SimpleNamespace(**{"rows": 4, "seeds": 5, "tries": 25, "effects": [0.02], "draw": 0, **changes})


def made(trials=40, luck=0.002):
    rng = np.random.default_rng(0)
    image = rng.normal(0.7, 0.15, 60)
    return image + rng.normal(0, luck, (trials, 1)) + rng.normal(0, 0.01, (trials, 60))


def test_a_planted_effect_is_found_and_nothing_without():
    shares = {(each.ask, each.effect): each for each in shares_of(made(), "s_measure", options())}
    for name in ("trend", "reference", "best"):
        none, planted = shares[name, 0.0], shares[name, 0.02]
        assert none.found <= 4 and none.low <= 0.05 and planted.found >= 20
        assert none.low <= none.found / 25 <= none.high and none.equivalent >= 20
        for each in (none, planted):
            p = min(max(each.found / 25, 0.05), 0.95)
            assert each.error == pytest.approx(np.sqrt(p * (1 - p) * (20 / 40 + 1 / 25)))


def test_intervals_are_those_of_clopper_and_pearson():
    """None of 25: 1 - 0.025 ** (1 / 25); all of 25: 0.025 ** (1 / 25)."""
    planted = options(effects=[0.5])
    by_effect = {each.effect: each for each in shares_of(made(luck=0.0005), "s_measure", planted) if each.ask == "best"}
    none, all_of_them = by_effect[0.0], by_effect[0.5]
    assert (all_of_them.found, all_of_them.high) == (25, 1) and all_of_them.low == pytest.approx(0.025 ** (1 / 25))
    assert none.found or (none.low == 0 and none.high == pytest.approx(1 - 0.025 ** (1 / 25)))


def test_the_same_draws_give_the_same_shares():
    once, again = (list(shares_of(made(), "s_measure", options(tries=3))) for _ in range(2))
    other = list(shares_of(made(), "s_measure", options(tries=3, draw=1, effects=[])))
    assert once == again and len(other) == 3


def test_only_trials_that_are_ok_are_drawn_and_they_need_the_same_images():
    results = synthetic(rows=6, seeds=(0, 1, 2))
    ok = [record for record in results.records.values() if record.status == "ok" and record.trial_id in results.images]
    metric, pool = scores_of(results)
    assert metric == "s_measure" and pool.shape == (len(ok), 40) and len(ok) < 18
    other = dict(results.images[ok[0].trial_id], name=[f"other {i}" for i in range(40)])
    images = {**results.images, ok[0].trial_id: other}
    with pytest.raises(ConfigError, match="different test images"):
        scores_of(results.__class__(results.sweep, results.trials, results.records, images))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "19"], "--trials: 19, but a sweep of 4 rows x 5 seeds needs 20"),
        (["--rows", "2"], "--rows 2: a number from 3 is needed"),
        (["--effects", "nan"], "finite numbers"),
        (["train.epoch=1"], "epochs"),
    ],
)
def test_wrong_input_is_one_error_before_any_work(arguments, said, tmp_path, capsys):
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_a_pool_is_trained_once_and_answered(tmp_path, capsys):
    arguments = [*TINY, "--trials", "6", "--rows", "3", "--seeds", "2", "--tries", "4", "--effects", "0.3"]
    arguments += ["--results", str(tmp_path), "--executor", "serial"]
    assert main(arguments) == 0
    first = json.loads((tmp_path / f"{FILE}.json").read_text())
    assert [(each["ask"], each["effect"]) for each in first["shares"]][:4:3] == [("trend", 0.0), ("trend", 0.3)]
    assert first["pool"]["trials"] == 6 and first["pool"]["config"]["train"]["epochs"] == 1
    text = (tmp_path / f"{FILE}.md").read_text()
    assert "| question | effect |" in text and "not independent" in text
    capsys.readouterr()
    assert main(arguments) == 0 and "6 done before" in capsys.readouterr().out
    assert json.loads((tmp_path / f"{FILE}.json").read_text())["shares"] == first["shares"]
