"""Values that are chosen by the mean over several seeds, in tables and in the cost of a sweep."""

import csv

from test_tuned_rows import saved, tuned_sweep

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
