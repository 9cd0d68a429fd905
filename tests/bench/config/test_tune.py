"""Setting ``tune``: its mistakes, its overrides, the trials that it makes, and ``sweep.json``."""

import pytest
from small_sweep import GOOD, errors, loader  # noqa: F401

from bench.config.expand import Candidates, expand
from bench.config.tune import parse_tune, seeds_of_choice
from bench.records import sweep_json

TUNED = f"{GOOD}tune: {{train.lr: [1e-3, 5e-3, 2e-2]}}\n"


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ("[1e-3]", "tune: a mapping of fields to lists of values is needed, as in tune: {train.lr:"),
        ("{train.lr: 1e-3}", "tune.train.lr: needs a list of values"),
        ("{train.lr: [1e-3]}", "tune.train.lr: one value leaves no choice. List several, or set it under base"),
        ("{train.lr: [1e-3, 1e-3]}", "tune.train.lr: has a value twice"),
        ("{train.lr: [1e-3, -1]}", "tune.train.lr = -1: train.lr: should be greater than 0"),
        ("{train.rate: [1, 2]}", "tune.train.rate: no field 'rate'"),
        ("{train.lr: {low: 1e-4, high: 1, log: true}}", "tune.train.lr: a range cannot be tuned. List values"),
        ("{seed: [1, 2]}", "tune.seed: seeds are listed under 'seeds'"),
        ("{model.adapter.rank: [1, 2]}", "tune.model.adapter.rank: the same field is set by axis 'model.adapter.rank'"),
        ("{model.adapter: [lora, ia3]}", "tune.model.adapter: the same field is set by axis 'model.adapter.rank'"),
        ("{dataset.side: [32, 64]}", "tune.dataset.side: dataset cannot be tuned"),
        ("{protocol.minmax: [true, false]}", "tune.protocol.minmax: protocol cannot be tuned"),
        (
            "{train.lr: {values: [1, 2], with: {dataset.val: [2, 4]}}}",
            "tune.train.lr: dataset cannot be tuned: the score on the validation split would have another meaning",
        ),
        ("{train: [{lr: 1}, {lr: 2}], train.lr: [1, 2]}", "tune: train and train.lr set the same field"),
        ("{train.lr: [1, 2, 3, 4, 5, 6], train.epochs: [1, 2, 3, 4, 5, 6]}", "multiply to 36 combinations"),
    ],
)
def test_a_mistake_is_named_before_any_work(sweep, tune, expected):
    assert expected in errors(sweep, f"{GOOD}tune: {tune}\n")


def test_early_stopping_would_spoil_the_choice(sweep):
    assert "Leave out search.early_stopping" in errors(sweep, TUNED, "search.early_stopping=asha")


def test_a_budget_must_suffice_for_the_choice_of_one_row(sweep):
    text = errors(sweep, TUNED, "search=random", "search.trials=3")
    assert "search.trials: 3 is too few for one configuration at 2 seeds and 3 tuned values" in text
    assert sweep(TUNED, "search=random", "search.trials=4").search.trials == 4


def test_overrides_replace_add_and_end_the_tuning(sweep):
    def tuned(*overrides):
        return {axis.name: [label for label, _ in axis.points] for axis in sweep(TUNED, *overrides).tune}

    assert tuned() == {"train.lr": ["0.001", "0.005", "0.02"]}
    assert tuned("tune=null") == {} == tuned("tune=null", "train.lr=1e-3")
    assert tuned("tune={train.lr: [1, 2]}") == {"train.lr": ["1", "2"]} == tuned("tune.train.lr=[1,2]")
    assert tuned("tune.train.weight_decay=[0,1]")["train.weight_decay"] == ["0", "1"]


def test_an_override_that_tuning_would_undo_is_refused(sweep):
    text = errors(sweep, TUNED, "train.lr=1e-3")
    assert "'train.lr=1e-3' would change nothing: the sweep tunes train.lr. Give tune=null as well" in text
    text = errors(sweep, TUNED, "train={epochs: 3, lr: 1e-3}")
    assert "would change nothing at train.lr: the sweep tunes train.lr. Give tune=null as well" in text
    coupled = f"{GOOD}tune: {{train.lr: {{values: [1, 2], with: {{train.epochs: [1, 2]}}}}}}\n"
    text = errors(sweep, coupled, "train.epochs=3")
    assert "would change nothing: the sweep tunes train.epochs" in text and "'tune.train.lr=[A, B]'" in text


def test_every_value_is_a_trial_at_every_seed_with_the_labels_of_its_row(sweep):
    trials = expand(sweep(f"{GOOD}tune: {{train.lr: [1e-3, 5e-3], train.weight_decay: [0, 0.1]}}\n"))
    assert len(trials) == 2 * 4 * 2 and [trial.seed for trial in trials[:4]] == [0, 1, 0, 1]
    assert {trial.point for trial in trials} == {("4",), ("8",)}
    assert trials[2].name == "rank 4, train.lr 0.001, train.weight_decay 0.1 seed 0"
    assert (trials[2].config.train.lr, trials[2].config.train.weight_decay) == (1e-3, 0.1)


def test_a_tuned_trial_has_the_id_of_the_same_settings_elsewhere(sweep):
    plain = {trial.trial_id for trial in expand(sweep(GOOD, "train.lr=5e-3"))}
    assert plain < {trial.trial_id for trial in expand(sweep(TUNED))}
    assert {trial.trial_id for trial in expand(sweep(TUNED, "tune=null", "train.lr=5e-3"))} == plain


def test_values_that_give_one_configuration_are_an_error(sweep):
    with pytest.raises(Exception, match=r"4, train.lr 1 and 4, train.lr 1.0 are the same configuration"):
        expand(sweep(f"{GOOD}tune: {{train.lr: [1, 1.0]}}\n"))


def test_sweep_json_keeps_the_values_and_the_candidates(sweep, tmp_path):
    tuned = sweep(TUNED)
    trials = expand(tuned)
    groups = [Candidates(("train.lr",), tuple(trials[start : start + 6 : 2])) for start in (0, 6)]
    sweep_json.of(tuned, trials[:2], candidates=groups).save(tmp_path)
    manifest, _ = sweep_json.load(tmp_path)
    again, rows, notes = sweep_json.understand(manifest, {})
    assert again.tune == tuned.tune and notes == [] and len(rows) == 2
    found = sweep_json.candidates_of(manifest, {})
    assert [[t.trial_id for t in group.trials] for group in found] == [
        [t.trial_id for t in group.trials] for group in groups
    ]
    assert found[0].fields == ("train.lr",) and found[1].trials[0].point == ("8",)


def test_a_sweep_json_from_before_tuning_is_read(sweep, tmp_path):
    plain = sweep(GOOD)
    raw = sweep_json.of(plain, expand(plain)).model_dump(mode="json", exclude={"tune", "candidates"})
    manifest = sweep_json.Manifest.model_validate(raw)
    assert sweep_json.candidates_of(manifest, {}) == [] and sweep_json.understand(manifest, {})[0].tune == ()


@pytest.mark.parametrize("count", [0, 3, True, "two", 1.5])
def test_the_number_of_seeds_that_choose_is_one_of_the_sweeps(count):
    errors = []
    assert seeds_of_choice({"train.lr": [1e-3, 2e-3], "seeds": count}, 2, errors) == 1
    assert len(errors) == 1 and errors[0].startswith("tune.seeds: the number of seeds that choose, 1 to 2")


def test_seeds_is_no_tuned_field():
    errors = []
    settings = {"train.lr": [1e-3, 2e-3], "seeds": 2}
    assert [axis.name for axis in parse_tune(settings, errors)] == ["train.lr"]
    assert seeds_of_choice(settings, 5, errors) == 2 and seeds_of_choice(None, 5, errors) == 1 and errors == []
