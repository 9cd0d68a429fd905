"""Clearly longer trials start first, equal ones seed by seed."""

from bench.config.expand import Trial
from bench.scheduling.run_order import longest_first, predicted_cost, seed_by_seed


def test_more_epochs_pixels_and_trainable_weights_cost_more(tiny_with):
    def cost(changes, total=1000, trainable=10):
        return predicted_cost(Trial(tiny_with(changes), ()), {"total": total, "trainable": trainable})

    usual = cost({})
    assert cost({"train.epochs": 3}) == 3 * usual
    assert cost({"transform.size": [32, 64]}) == 2 * usual
    assert cost({}, trainable=1000) > usual and cost({}, total=2000) > usual


def test_the_longest_comes_first_and_equal_ones_stay_in_order(tiny_with):
    trials = [Trial(tiny_with({"train.epochs": epochs, "seed": i}), ()) for i, epochs in enumerate((1, 5, 1, 9))]
    counts = {trial.trial_id: {"total": 10, "trainable": 1} for trial in trials}
    assert [t.seed for t in longest_first(trials, counts)] == [3, 1, 0, 2]
    unknown = counts | {trials[3].trial_id: {}}
    assert [t.seed for t in longest_first(trials, unknown)] == [1, 0, 2, 3], "what cannot be built here comes last"


def test_rows_of_similar_cost_take_turns(tiny_with):
    trials = []
    for rank in (2, 64):
        for seed in (7, 3, 5):
            trials.append(Trial(tiny_with({"model.adapter.rank": rank, "seed": seed}), (str(rank),)))
    counts = {trial.trial_id: {"total": 1000 + 2 * int(trial.point[0]), "trainable": 1} for trial in trials}
    expected = [("2", 7), ("64", 7), ("2", 3), ("64", 3), ("2", 5), ("64", 5)]
    for order in (seed_by_seed(trials), longest_first(trials, counts)):
        assert [(trial.point[0], trial.seed) for trial in order] == expected
    far = counts | {trial.trial_id: {"total": 9000, "trainable": 1} for trial in trials[3:]}
    assert [t.point[0] for t in longest_first(trials, far)] == ["64"] * 3 + ["2"] * 3
