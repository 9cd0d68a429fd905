"""Answers in words: they say what the data say, and on which assumption."""

from itertools import permutations

import numpy as np
import pytest
from conftest import REPOSITORY
from family_error import POWER, simulate

from bench.config.ask import AskConfig
from bench.config.axes import Axis
from bench.leaderboard.inference.answer import answer
from bench.leaderboard.inference.questions import compare_all
from bench.leaderboard.inference.two_way import table_of
from bench.leaderboard.results import load

RANKS = Axis.over("model.adapter.rank", {"1": 1, "4": 4, "16": 16, "64": 64})
BLOCKS = Axis.over("model.tuned_blocks", {"none": "none", "last:2": "last:2", "last:4": "last:4", "all": "all"})
ORDERS = list(permutations(["rank 1", "rank 16", "rank 64"]))
QUIET = {"by_seed": 0.0005, "by_image": 0.003, "noise": 0.003}
POOLED = (
    "The error is pooled over rows, which assumes that all vary alike over seeds: the largest deviation over seeds is"
)


def asked(name, gains, axis=RANKS, world=QUIET, seeds=4, margin=0.01, reference=None, seed=1, **options):
    table = simulate(np.random.default_rng(seed), len(axis.points), seeds, 100, **world, gains=gains)
    ask = AskConfig(name=name, margin=margin, reference=reference)
    return answer(ask, [axis], [(label,) for label, _ in axis.points], table, "S", **options)


def test_a_trend_is_told_per_doubling():
    found = asked("trend", [0.0, 0.006, 0.012, 0.018])
    assert found.trend.resolved and found.sentences[0].startswith("S rises by 0.003")
    assert " per doubling of the rank (95 % interval 0.00" in found.sentences[0]
    assert found.sentences[0].endswith(", p < 0.001).")
    assert found.sentences[1] == "Groups within 0.01 of each other: ranks 1 to 4; ranks 4 to 16; ranks 16 to 64."
    assert found.sentences[2].startswith(POOLED) and found.sentences[2].endswith("times the median (allowed: 2).")
    assert found.text == " ".join(found.sentences) and len(found.comparisons) == 6


def test_a_falling_trend_has_its_interval_in_the_same_direction():
    found = asked("trend", [0.018, 0.012, 0.006, 0.0])
    assert found.trend.high < 0
    assert found.sentences[0].startswith("S falls by 0.00") and "interval 0.00" in found.sentences[0]


def test_a_trend_over_texts_is_told_per_step():
    assert " per step on the axis tuned blocks (" in asked("trend", [0, 0.01, 0.02, 0.03], BLOCKS).text


def test_no_trend_becomes_a_statement():
    found = asked("trend", [0.0])
    assert not found.trend.resolved
    assert found.sentences[0].startswith("No trend of S is resolved: it changes by ")
    assert found.sentences[0].endswith("; from 1 to 64 the line changes by less than 0.01, so its ends are equivalent.")
    assert found.sentences[1] == "Ranks 1 to 64 are within 0.01 of each other." and found.groups == ((0, 1, 2, 3),)
    wide = asked("trend", [0.0], world=POWER, margin=0.002)
    assert found.ends_equivalent and not wide.ends_equivalent
    assert "less than" not in wide.text and len(wide.sentences) == 2


def test_a_trend_that_is_resolved_and_small_has_equivalent_ends():
    found = asked("trend", [0.0, 0.002, 0.004, 0.006], world={**QUIET, "by_image": 0.001})
    assert found.trend.resolved and found.ends_equivalent
    assert found.sentences[0].startswith("S rises by 0.00")
    assert found.sentences[0].endswith("; from 1 to 64 the line changes by less than 0.01, so its ends are equivalent.")


def test_pairs_that_are_known_are_not_compared_again():
    table = simulate(np.random.default_rng(1), 4, 3, 30, **QUIET)
    rows = [(label,) for label, _ in RANKS.points]
    for name in ("trend", "best"):
        known = compare_all(table)
        found = answer(AskConfig(name=name), [RANKS], rows, table, "S", pairs=known)
        assert all(a is b for a, b in zip(found.comparisons, known, strict=True))


def test_rows_are_told_against_their_reference():
    found = asked("reference", [0.0, 0.03, -0.05], reference="1")
    first, second, third = found.sentences
    assert first.startswith("Against rank 1, in S: rank 4 is better by 0.0") and "; rank 16 is worse by 0.0" in first
    assert second == "Within 0.01 of it: rank 64." and third.startswith(POOLED)
    assert [c.second for c in found.comparisons] == [0, 0, 0] and found.groups == ((3, 0),)
    lower = asked("reference", [0.0, 0.03, -0.05], reference="1", better="lower")
    assert "4 is worse by" in lower.sentences[0] and "16 is better by" in lower.sentences[0]


def test_what_is_open_against_the_reference_has_its_interval():
    found = asked("reference", [0.0], world=POWER, seeds=2, reference="16", margin=0.001)
    assert found.sentences[0] == "No row differs certainly from rank 16 in S."
    assert found.sentences[1].startswith("Not resolved: rank 1 (") and found.sentences[1].count("95 % interval") == 3
    gone = asked("reference", [0.0], reference="32")
    assert gone.sentences == ("Nothing is compared with '32': it is not among the rows.",)


def test_the_best_row():
    found = asked("best", [0.0, 0.05])
    assert found.sentences[0].startswith("rank 4 has the best S, 0.")
    assert found.sentences[0].endswith(", and is better than all 3 other rows.")
    assert found.sentences[1] in [f"{a.capitalize()}, {b} and {c} are within 0.01 of each other." for a, b, c in ORDERS]
    assert len(found.groups[0]) == 3
    lowest = asked("best", [0.0, 0.05, -0.05], better="lower")
    assert lowest.sentences[0].startswith("rank 16 has the best S")
    open_ = asked("best", [0.0], world=POWER, seeds=2)
    assert "but is not resolved from any other row; its lead over the others is between -0.0" in open_.text
    some = asked("best", [0.0, 0.05, 0.05])
    assert "and is better than 2 of 3 other rows (" in some.text and "its lead over the rest is between" in some.text


def test_rows_with_the_same_mean_are_no_best_row():
    table = simulate(np.random.default_rng(0), 4, 3, 20, **QUIET)
    table[:] = table[0]
    mean = f"{table[0].mean():.4f}"
    assert best_of(table).sentences[0] == f"4 rows have the same S, {mean}: none is the best."
    table[2:] -= 0.2
    assert (
        best_of(table)
        .sentences[0]
        .startswith(f"rank 1, rank 4 share the best S, {mean}; rank 1 is better than 2 of 3 other rows (")
    )
    table[2:] = np.nan
    two = best_of(table).sentences[0]
    assert two.startswith(f"Among the rows that can be tested, 2 rows have the same S, {mean}: none is the best.")


def test_the_assumption_is_named():
    restless = asked("best", [0.0, 0.05], world={**POWER, "restless": 20}, seeds=6)
    assert "The error is not pooled, since some rows vary more than others: the largest deviation" in restless.text
    pair = asked("best", [0.0, 0.05], Axis.over("a", {"x": 1, "y": 2}))
    assert pair.sentences[-1] == "The error is that of these two rows alone."
    assert asked("trend", [0.0], looks=3).text.endswith("; p is corrected for 3 looks at the results.")


def test_nothing_to_test_is_said():
    assert asked("trend", [0.0], seeds=1).text == (
        "No difference of S can be tested: no two rows have two seeds in common."
    )
    table = simulate(np.random.default_rng(0), 4, 3, 20, **POWER)
    table[:2, 1:] = np.nan
    found = answer(AskConfig(name="trend"), [RANKS], [(label,) for label, _ in RANKS.points], table, "S")
    assert found.sentences[0] == "No trend of S can be tested: it needs three rows that have two seeds in common."
    found = answer(AskConfig(name="best"), [RANKS], [(label,) for label, _ in RANKS.points], table, "S")
    assert found.sentences[0].startswith(
        tuple(f"Among the rows that can be tested, rank {row} has" for row in (16, 64))
    )
    assert found.sentences[0].endswith("Not tested, for want of two seeds in common: rank 1, rank 4.")


def test_long_lists_are_cut_and_names_of_several_words_quoted():
    names = [f"row number {n}" for n in range(12)]
    axis = Axis.over("variant", {name: {} for name in names})
    found = asked("reference", [0.0] + [0.05] * 11, axis, reference=names[0])
    assert found.sentences[0].startswith("Against 'row number 0', in S: 'row number 1' is better by")
    assert found.sentences[0].endswith("; 6 more.")


def test_the_committed_records_are_answered():
    results, _ = load(REPOSITORY / "results/examples/adapter_rank")
    rows = {}
    for trial in results.trials:
        scores = np.asarray(results.images[trial.trial_id]["s_measure"], dtype=float)
        rows.setdefault(trial.point, {})[trial.seed] = scores
    assert results.sweep.ask == AskConfig(name="trend")
    found = answer(results.sweep.ask, results.sweep.axes, list(rows), table_of(list(rows.values())), "S")
    assert found.sentences == (
        "S rises by 0.0032 per doubling of the rank (95 % interval 0.0013 to 0.0051, p = 0.014).",
        f"{POOLED} 1.3 times the median (allowed: 2).",
    )
    assert found.trend.slope == pytest.approx(0.0032, abs=0.0001)


def without(known):
    """A table of quiet scores in which only some trials [row, seed] are known."""
    table = simulate(np.random.default_rng(1), 4, 5, 50, **QUIET, gains=[0.0, 0.0, 0.0, 0.1])
    table[~np.array(known, dtype=bool)] = np.nan
    return table


def best_of(table):
    return answer(AskConfig(), [RANKS], [(label,) for label, _ in RANKS.points], table, "S")


def test_rows_whose_seeds_form_a_cycle_are_not_tested():
    found = best_of(without([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]))
    assert found.text == "No difference of S can be tested: no two rows have two seeds in common."


def test_only_rows_that_were_compared_are_counted():
    found = best_of(without([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [1, 1, 1, 0, 0]]))
    assert "64 has the best S" in found.text and "is better than the other row" in found.text


def test_a_row_that_cannot_be_tested_is_named():
    found = best_of(without([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]))
    assert found.text.startswith("Among the rows that can be tested, ")
    assert "Not tested, for want of two seeds in common: rank 64." in found.text


def test_a_trend_over_values_without_an_order_says_why():
    found = asked(
        "trend", [0.0], axis=Axis.over("model.adapter", {"a": {"rank": 1}, "b": {"rank": 2}, "c": {"rank": 3}})
    )
    assert found.sentences[0] == "No trend of S can be tested: it needs one axis whose values are ordered."
