"""The Pareto front of accuracy and memory: found by sorting, equal to the comparison of all pairs."""

import sys
from dataclasses import replace

import numpy as np

from bench.leaderboard.front import _on_front, mark_front
from bench.leaderboard.leaderboard import Cell, Row


def by_all_pairs(accuracy, memory):
    better = (accuracy[:, None] > accuracy) & (memory[:, None] <= memory)
    cheaper = (accuracy[:, None] >= accuracy) & (memory[:, None] < memory)
    return ~(better | cheaper).any(axis=0)


def row(accuracy, memory):
    cells = {"test.s_measure": Cell(accuracy, None, 1), "training.rss_bytes": Cell(memory, None, 1)}
    return Row(("x",), ("ok",), (), ("id",), (0,), cells)


def test_sorting_finds_what_comparing_all_pairs_finds():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        count = int(rng.integers(1, 12))
        accuracy, memory = (rng.integers(0, 5, count).astype(float) for _ in range(2))  # many are equal
        expected = by_all_pairs(accuracy, memory)
        assert (_on_front(accuracy, memory) == expected).all()
        rows = [row(float(a), float(m)) for a, m in zip(accuracy, memory)]
        assert [r.on_front for r in mark_front(rows, "rss_bytes", "s_measure")] == expected.tolist()


def test_rows_without_a_number_are_not_on_it():
    without = replace(row(9.0, 1.0), cells={"test.s_measure": Cell(9.0, None, 1)})
    marked = mark_front([without, row(1.0, 5.0)], "rss_bytes", "s_measure")
    assert [r.on_front for r in marked] == [False, True]


def test_it_takes_as_many_steps_as_there_are_rows_and_not_as_there_are_pairs():
    def steps(count):
        rows, taken = [row(float(i), float(i)) for i in range(count)], 0  # all are on the front

        def counting(frame, event, argument):
            nonlocal taken
            taken += event == "call"

        sys.setprofile(counting)
        try:
            assert all(r.on_front for r in mark_front(rows, "rss_bytes", "s_measure"))
        finally:
            sys.setprofile(None)
        return taken

    assert steps(400) < 5 * steps(100)
