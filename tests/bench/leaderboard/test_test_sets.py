"""A leaderboard of trials that were scored on several test sets."""

import pandas
import pytest
from synthetic import record

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard.results import Results, summarise
from bench.report.tables import as_frame, markdown


@pytest.fixture
def board(tiny):
    sweep = Sweep("mine", "?", "embedded", tiny, (Axis.over("model.adapter.rank", {"2": 2, "4": 4}),), (0, 1))
    trials = expand(sweep)

    def scored(trial, s):
        sets = {"ECSSD": {"s_measure": s, "mae": 0.1}, "HKU-IS": {"s_measure": s - 0.2, "mae": 0.3}}
        return record(trial, s).model_copy(update={"scores": sets["ECSSD"], "test_sets": sets})

    records = {t.trial_id: scored(t, s) for t, s in zip(trials, (0.7, 0.9, 0.5, 0.5))}
    return summarise(Results(sweep, trials, records))


def test_every_row_has_a_line_for_every_test_set(board):
    _, _, below = markdown(board).partition("On every test set (above: ECSSD):\n\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in below.splitlines()[:6]]
    assert lines[0] == ["model.adapter.rank", "test set", "S ↑", "MAE ↓"]
    assert [line[:2] for line in lines[2:]] == [["2", "ECSSD"], ["2", "HKU-IS"], ["4", "ECSSD"], ["4", "HKU-IS"]]
    assert [line[2].split(" ")[0] for line in lines[2:]] == ["0.800", "0.600", "0.500", "0.300"]


def test_the_csv_has_them_too(board):
    frame: pandas.DataFrame = as_frame(board)
    assert list(frame["test[HKU-IS].s_measure"]) == pytest.approx([0.6, 0.3])
    assert list(frame["test.s_measure"]) == list(frame["test[ECSSD].s_measure"])
