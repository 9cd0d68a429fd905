"""Which differences of memory the repeats resolve."""

from statistics import stdev

import pytest
from synthetic import record

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard.noise_floor import floor_in_words, memory_noise_floor, unresolved
from bench.leaderboard.results import Results, summarise
from bench.report.tables import markdown


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def with_memory(trials, values):
    """Records whose training memory, in MiB, is given for each trial in order."""
    return {t.trial_id: record(t, memory=v / 1024) for t, v in zip(trials, values)}


def test_differences_below_the_noise_of_repeats_are_not_resolved(sweep):
    trials = expand(sweep)  # three ranks, two seeds each
    board = summarise(Results(sweep, trials, with_memory(trials, [100, 104, 103, 107, 300, 304])))
    table = board.tables[0]
    spread = stdev([100, 104])  # the same for all rows; a difference of two means of two has that standard error
    assert memory_noise_floor(table) / 2**20 == pytest.approx(2 * spread, rel=1e-6)
    assert [(a.labels, b.labels) for a, b in unresolved(table, memory_noise_floor(table))] == [(("2",), ("4",))]
    assert "are not resolved by the repeats: 2 and 4." in markdown(board)


def test_repeats_that_agree_to_the_byte_leave_the_measures_own_step(sweep):
    trials = expand(sweep)
    board = summarise(Results(sweep, trials, with_memory(trials, [100, 100, 200, 200, 300, 300])))
    assert memory_noise_floor(board.tables[0]) == 4096 and unresolved(board.tables[0], 4096) == []
    assert "closer than 0.0 MiB" not in markdown(board)


def test_rows_with_equal_memory_are_named():
    assert floor_in_words(1, "2 and 4") == "Memory: equal to the byte: 2 and 4."


def test_a_floor_of_some_bytes_is_told_in_bytes(sweep):
    trials = expand(sweep)
    board = summarise(Results(sweep, trials, with_memory(trials, [100, 100, 100, 100, 300, 300])))
    assert "closer than 4096 bytes are not resolved by the repeats: 2 and 4." in markdown(board)


def test_one_seed_has_no_noise_floor(sweep):
    single = sweep._replace(seeds=(0,))
    board = summarise(Results(single, expand(single), with_memory(expand(single), [100, 200, 300])))
    assert memory_noise_floor(board.tables[0]) is None and "not resolved" not in markdown(board)
