"""Values that are chosen by the mean over several seeds, in tables and in the cost of a sweep."""

import csv

import pytest
from test_tuned_rows import rows, saved, tuned_sweep

from bench.config.expand import expand
from bench.leaderboard import results
from bench.report import tables
from bench.scheduling.dry_run import tuning_lines
from bench.search.next_trials import plan


def test_two_seeds_of_the_choice_are_said_and_all_their_trials_are_marked(tmp_path):
    sweep = tuned_sweep(seeds=(0, 1, 2))._replace(tune_seeds=2)
    found = saved(tmp_path / "a", sweep)
    board = found.board()
    text = tables.markdown(board)
    assert "one trial for each value at seeds 0, 1." in text and "by the mean S on the validation split" in text
    lines = list(csv.DictReader(tables.tuning_csv(board).splitlines()))
    assert len(lines) == 2 * 3 * 2 and [line["seed"] for line in lines if line["chosen"] == "True"] == ["0", "1"] * 2
    assert "at seeds 0, 1 choose" in tuning_lines(sweep, plan(sweep, {}))[0]
    assert [row.statuses for row in board.tables[0].rows] == [("ok",) * 3] * 2


@pytest.mark.parametrize("rate", [1e-3, 5e-3], ids=["a value that lost", "the chosen value"])
def test_without_the_record_of_a_candidate_the_row_has_no_scores_and_says_why(tmp_path, rate):
    folder, sweep = tmp_path / "a", tuned_sweep(seeds=(0, 1, 2))._replace(tune_seeds=2)
    saved(folder, sweep)
    lost = next(t for t in expand(sweep) if t.point == ("1",) and t.config.train.lr == rate and t.seed == 0)
    (folder / f"{lost.trial_id}.json").unlink()
    found = rows(results.load(folder)[0])
    assert found["1",].tuned.text == "not chosen: no record of 1 of 6 trials"
    assert found["1",].trial_ids == (lost.trial_id,) and not found["1",].cells
    assert found["2",].statuses == ("ok",) * 3 and found["2",].cells["test.s_measure"].count == 3
