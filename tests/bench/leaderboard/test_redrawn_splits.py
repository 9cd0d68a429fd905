"""Parts of the training images, and splits that are drawn anew with each seed: tables, tests and answers."""

import numpy as np
import pytest
from scipy import stats
from synthetic import board_of, record

from bench.config.ask import AskConfig
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.config.trial import with_value
from bench.leaderboard.inference.questions import compare_all, compare_with
from bench.leaderboard.inference.trend import trend
from bench.leaderboard.inference.two_way import LARGEST_OVERLAP, effective_seeds, means_over_images
from bench.report.legend import legend
from bench.report.tables import markdown


def redrawn(rng, rows, seeds, pool, test):
    """Scores [row, seed, image] without differences between rows; each seed draws its test images from a pool."""
    taste = rng.normal(0, 0.05, (rows, pool))
    table = np.empty((rows, seeds, test))
    for seed in range(seeds):
        luck = rng.normal(0, 0.002, (rows, 1)) + rng.normal(0, 0.02, (rows, test))
        table[:, seed] = 0.7 + taste[:, rng.permutation(pool)[:test]] + luck
    return table


def test_two_rows_are_compared_by_the_corrected_t_test():
    """Nadeau and Bengio 2003: the variance of a mean over n draws is (1/n + test / (pool - test)) times that of a draw."""
    table = redrawn(np.random.default_rng(3), 2, 6, 50, 10)
    (found,) = compare_all(means_over_images(table), overlap=10 / 50)
    differences = (table[0] - table[1]).mean(axis=1)
    error = np.sqrt(differences.var(ddof=1) * (1 / 6 + 10 / 40))
    assert found.difference == pytest.approx(differences.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / error, 5), rel=1e-3)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 5) * error, rel=1e-3)


def test_seeds_without_common_images_are_an_ordinary_t_test_over_seeds():
    table = redrawn(np.random.default_rng(4), 2, 5, 10_000, 10)
    (found,) = compare_all(means_over_images(table))
    assert found.p == pytest.approx(stats.ttest_rel(*table.mean(axis=2)).pvalue, rel=1e-3)
    assert effective_seeds(5, 0.0) == 5 and effective_seeds(5, 0.2) == pytest.approx(5 / 2.25)


def test_the_family_error_is_kept_where_splits_overlap():
    """200 images, of which each of 5 seeds draws 40. Without the correction, 15 % of sweeps claim a difference."""
    rng = np.random.default_rng(0)
    claims = []
    for _ in range(150):
        table = means_over_images(redrawn(rng, 4, 5, 200, 40))
        plain = any(c.resolved for c in compare_all(table))
        corrected = any(c.resolved for c in compare_all(table, overlap=0.2))
        against = any(c.resolved for c in compare_with(table, 0, overlap=0.2))
        claims.append((plain, corrected, against, trend(table, range(4), overlap=0.2).p < 0.05))
    plain, corrected, against, slope = np.mean(claims, axis=0)
    assert plain > 0.09 and max(corrected, against, slope) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


# --- boards -----------------------------------------------------------------------------------------------------------


def part_records(trials, **where):
    """Records of trials with the numbers of training images that their configurations ask for."""
    made = []
    for trial in trials:
        dataset = trial.config.dataset
        images = {"train": dataset.train_images or dataset.train, "val": 2, "test": 40}
        facts = {"dataset_fingerprint": f"{images['train']:02d}" * 16, "source_fingerprint": "5" * 32, "images": images}
        made.append(record(trial, 0.7, **{**facts, **where}).model_copy(update={"config": trial.config.model_dump()}))
    return made


def scores_of(trials, gains, names):
    """Scores per image: a gain for each row, noise for each trial; ``names`` gives the images of a seed."""
    rng = np.random.default_rng(0)
    made = {}
    for trial, gain in zip(trials, gains):
        values = 0.7 + gain + rng.normal(0, 0.0005) + np.random.default_rng(trial.seed).normal(0, 0.05, 40)
        made[trial.trial_id] = {"name": names(trial.seed), "s_measure": values.tolist()}
    return made


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("dataset.train_images", {"2": 2, "4": 4, "all": "all"})
    return Sweep("data", "How many?", "embedded", tiny, (axis,), (0, 1, 2))


def same(seed):
    return [f"im {i}" for i in range(40)]


def own(seed):
    """Every seed has 40 of 60 images: 20 of the next seed's, too."""
    return [f"im {(i + 20 * seed) % 60}" for i in range(40)]


def test_rows_of_several_numbers_of_training_images_share_a_table(sweep):
    trials = expand(sweep)
    gains = np.repeat([0.0, 0.01, 0.02], 3)
    images = scores_of(trials, gains, same)
    board = board_of(sweep, *part_records(trials), images=images)
    (table,) = board.tables
    assert table.environment["data"] == f"{'5' * 12} (2 val, 40 test)" and len(table.rows) == 3
    apart = board_of(sweep, *part_records(trials, source_fingerprint=None), images=images)
    assert len(apart.tables) == 3  # nothing says that they are parts of the same images


def test_all_has_the_place_of_the_number_that_it_stands_for(sweep):
    """Here 8: three rows at 2, 4 and 8 that rise by 0.01 at each doubling."""
    trials = expand(sweep)
    images = scores_of(trials, np.repeat([0.0, 0.01, 0.02], 3), same)
    asked = sweep._replace(ask=AskConfig(name="trend"))
    answer = board_of(asked, *part_records(trials), images=images).tables[0].answer
    assert answer.trend.slope == pytest.approx(0.01, abs=0.001) and answer.trend.resolved
    assert "per doubling of the train images" in answer.text
    larger = part_records(trials)
    for number, trial in enumerate(trials):
        if trial.point == ("all",):
            whole = {"images": {"train": 32, "val": 2, "test": 40}}
            source = larger[number].provenance.model_copy(update=whole)
            larger[number] = larger[number].model_copy(update={"provenance": source})
    assert board_of(asked, *larger, images=images).tables[0].answer.trend.slope < 0.006


@pytest.fixture
def by_seed(tiny):
    axis = Axis.over("model.adapter.rank", {"1": 1, "2": 2, "4": 4})
    return Sweep("data", "?", "embedded", with_value(tiny, {"dataset.split": "by_seed"}), (axis,), (0, 1, 2))


def of_seeds(trials):
    records = [record(t, 0.7, dataset_fingerprint=f"{t.seed:02d}" * 16, source_fingerprint="5" * 32) for t in trials]
    return [r.model_copy(update={"config": t.config.model_dump()}) for r, t in zip(records, trials)]


def test_seeds_with_splits_of_their_own_share_a_table_and_are_compared_by_seeds(by_seed):
    trials = expand(by_seed)
    gains = np.repeat([0.0, 0.01, 0.05], 3)
    board = board_of(by_seed, *of_seeds(trials), images=scores_of(trials, gains, own))
    (table,) = board.tables
    assert [row.count_ok for row in table.rows] == [3, 3, 3] and table.images == 40
    found = table.comparisons["s_measure"]
    assert all(c.seeds == 3 and c.difference is not None for c in found)
    assert found[1].difference == pytest.approx(-0.05, abs=0.002)
    assert "Each seed has test images of its own, so the error is that over seeds alone" in table.answer.text
    assert "as two seeds share 50% of their images, it is enlarged (Nadeau and Bengio 2003)" in table.answer.text
    text = markdown(board)
    assert "split drawn anew with each seed" in text and "(error over seeds, corrected for all pairs)" in text


def test_the_error_is_wider_the_more_images_seeds_share(by_seed):
    trials = expand(by_seed)
    gains = np.repeat([0.0, 0.01, 0.05], 3)

    records = []
    for each in of_seeds(trials):
        scores = {name: value + 0.01 * len(records) for name, value in each.scores.items()}
        records.append(each.model_copy(update={"scores": scores, "val_scores": scores}))

    def widths(names):
        board = board_of(by_seed, *records, images=scores_of(trials, gains, names))
        pair, cells = board.tables[0].comparisons["s_measure"][0], board.tables[0].rows[0].cells
        mean, other = cells["test.s_measure"].half_width, cells["val.s_measure"].half_width
        return pair.high - pair.low, mean, cells["test.s_measure"].standard_error, other, legend(board)[0].text

    fresh = widths(lambda seed: [f"seed {seed} {i}" for i in range(40)])
    shared = widths(own)
    enlarged = np.array(fresh[:3]) * np.sqrt(1 + 3 * 0.5 / 0.5)
    assert np.allclose(shared[:3], enlarged, rtol=1e-6) and shared[3] == fresh[3]
    assert "enlarged on the test split" in shared[4] and "enlarged" not in fresh[4]


def test_the_same_images_in_another_order_resolve_nothing(by_seed):
    trials = expand(by_seed)
    images = scores_of(trials, np.repeat([0.0, 0.01, 0.05], 3), lambda seed: np.roll(same(0), seed).tolist())
    found = board_of(by_seed, *of_seeds(trials), images=images).tables[0]
    assert found.overlap == LARGEST_OVERLAP and np.isfinite(found.comparisons["s_measure"][0].high)


def test_a_test_set_that_no_seed_changes_is_compared_by_images_and_seeds(by_seed):
    trials = expand(by_seed)
    board = board_of(by_seed, *of_seeds(trials), images=scores_of(trials, np.repeat([0.0, 0.01, 0.05], 3), same))
    assert "of its own" not in board.tables[0].answer.text
    fixed = with_value(by_seed.base, {"dataset.split": "fixed"})
    trials = expand(by_seed._replace(base=fixed))
    board = board_of(by_seed._replace(base=fixed), *(record(t, 0.7) for t in trials))
    assert "split fixed (dataset.seed 0)" in markdown(board)


def test_a_trial_with_other_images_than_the_others_of_its_seed_is_left_out(by_seed):
    trials = expand(by_seed)
    images = scores_of(trials, np.repeat([0.0, 0.01, 0.05], 3), own)
    images[trials[0].trial_id]["name"] = [f"other {i}" for i in range(40)]
    found = board_of(by_seed, *of_seeds(trials), images=images).tables[0].comparisons["s_measure"]
    assert [c.seeds for c in found] == [2, 2, 3]


def test_a_table_of_one_row_says_that_there_is_nothing_to_compare(sweep):
    one = sweep._replace(axes=(Axis.over("model.adapter.rank", {"2": 2}),))
    text = markdown(board_of(one, *(record(t) for t in expand(one))))
    assert "**Answer**: There is a single row: its S has nothing to be compared with." in text
