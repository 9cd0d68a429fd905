"""Which differences between rows hold, and how tables mark them."""

import io

import pandas
import pytest
from synthetic import board_of, images_of, record, results_of

from bench import report
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard.ranking import not_distinguishable
from bench.report.tables import comparisons_csv, markdown


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def test_rows_that_the_data_do_not_tell_from_the_best_are_marked(sweep):
    five = sweep._replace(seeds=(0, 1, 2, 3, 4))
    trials = expand(five)
    levels = [0.70] * 5 + [0.80] * 5 + [0.801] * 5
    board = board_of(five, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    table = board.tables[0]
    assert not_distinguishable(table, "s_measure") == {1} and not_distinguishable(table, "max_f_measure") == set()
    assert not_distinguishable(table, "mae") == set()  # lower is better: the first is alone
    text = markdown(board)
    first, second, third = (line for line in text.splitlines() if line.startswith(("| 2 |", "| 4 |", "| 8 |")))
    assert "0.800 ≈" in second and "**0.801**" in third and "≈" not in third.split("|")[2]
    assert "**Answer**: rank 8 has the best S" in text and "2 of 3 are resolved" in text
    assert "| 4 − 8 |" in text and "8 is better" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| 4 − 8 |"))
    assert line.endswith("| not resolved, at most 0.021 |") or line.endswith("| equivalent, within 0.01 |"), line


def test_what_two_seeds_do_not_decide_is_not_resolved(sweep):
    trials = expand(sweep)
    levels = (0.79, 0.81, 0.80, 0.83, 0.78, 0.82)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    text = markdown(board)
    assert "is not resolved from any other row" in text and "95 % interval" in text
    assert not any(c.resolved for c in board.tables[0].comparisons["s_measure"])


def test_pairs_are_compared_once_for_the_table_and_the_answer(sweep):
    trials = expand(sweep)
    levels = (0.79, 0.81, 0.80, 0.83, 0.78, 0.82)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    (table,) = board.tables
    found = zip(table.answer.comparisons, table.comparisons["s_measure"], strict=True)
    assert table.answer.comparisons and all(a is b for a, b in found)


def test_equivalence_is_written_for_the_main_metric_alone(sweep):
    trials = expand(sweep._replace(seeds=(0, 1, 2, 3, 4)))
    levels = [0.70] * 5 + [0.80] * 5 + [0.8001] * 5
    board = board_of(
        sweep._replace(seeds=(0, 1, 2, 3, 4)),
        *(record(t, s) for t, s in zip(trials, levels)),
        images=images_of(trials, levels),
    )
    frame = pandas.read_csv(io.StringIO(comparisons_csv(board)))
    for line in frame[frame["metric"] == "s_measure"].itertuples():
        assert line.equivalent == (-0.01 < line.low and line.high < 0.01)
    assert frame[frame["metric"] == "mae"]["equivalent"].isna().all()


def test_one_seed_tests_nothing(sweep):
    one = sweep._replace(seeds=(0,))
    trials = expand(one)
    levels = (0.5, 0.7, 0.9)
    board = board_of(one, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    text = markdown(board)
    assert "seed noise is unknown" in text and "≈" not in text and "better" not in text
    assert all(c.p is None for found in board.tables[0].comparisons.values() for c in found)
    assert comparisons_csv(board) == ""


def test_records_without_scores_per_image_are_not_tested_and_it_is_said(sweep):
    text = markdown(board_of(sweep, *(record(t) for t in expand(sweep))))
    assert "not tested for significance" in text and "≈" not in text


def test_comparisons_are_written_in_full_and_alike(sweep, tmp_path):
    trials = expand(sweep)
    levels = (0.79, 0.81, 0.80, 0.83, 0.78, 0.82)
    texts = []
    for _ in range(2):
        records = [record(t, s) for t, s in zip(trials, levels)]
        report.write(results_of(sweep, *records, images=images_of(trials, levels)), tmp_path)
        texts.append((tmp_path / "comparisons.csv").read_bytes())
    assert texts[0] == texts[1]
    frame = pandas.read_csv(io.BytesIO(texts[0]))
    assert len(frame) == 2 * 3 and set(frame["metric"]) == {"s_measure", "mae"}
    assert list(frame["first"][:3]) == [2, 2, 4] and not frame["resolved"].any()


def test_a_row_that_fits_its_training_images_worse_than_the_best_row_fits_the_test_is_underfit(sweep):
    trials = expand(sweep)
    found = []
    for trial, tested, fitted in zip(trials, (0.6, 0.6, 0.8, 0.8, 0.7, 0.7), (0.78, 0.78, 0.9, 0.9, None, None)):
        scores = None if fitted is None else {"s_measure": fitted}
        found.append(record(trial, tested).model_copy(update={"train_scores": scores}))
    board = board_of(sweep, *found)
    assert [row.underfit for row in board.tables[0].rows] == [True, False, False]  # unknown is not underfit
    wide = sweep._replace(ask=sweep.ask.model_copy(update={"margin": 0.03}))
    assert not any(row.underfit for row in board_of(wide, *found).tables[0].rows)
    text = markdown(board)
    assert "| 2/2 (underfit) |" in text and "| train S ↑ |" in text and "Underfit: its mean score" in text
    assert "nderfit" not in markdown(board_of(sweep, *(record(trial) for trial in trials)))
