"""Rows of the leaderboard: means, outcomes, and warnings about memory."""

from statistics import stdev

import pytest
from synthetic import board_of, record

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard.results import Results, summarise
from bench.records.memory import Memory
from bench.records.record import MemoryAtFailure
from bench.report.tables import markdown

GIB = 2**30


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def test_mean_and_deviation_over_seeds(sweep):
    trials = expand(sweep)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, (0.7, 0.8, 0.5, 0.5))))
    first, second, third = board.tables[0].rows
    cell = first.cells["test.s_measure"]
    assert (cell.mean, cell.count) == (pytest.approx(0.75), 2) and cell.deviation == pytest.approx(stdev([0.7, 0.8]))
    assert second.cells["test.s_measure"].deviation == 0
    assert third.cells == {} and third.statuses == ("pending", "pending")


def test_every_outcome_is_a_row(sweep):
    trials = expand(sweep)
    board = board_of(
        sweep,
        record(trials[0]),
        record(trials[1], status="oom", error="CUDA out of memory"),
        record(trials[2], status="error", error="Traceback\n  line\nKeyError: 'x|y'"),
    )
    text = markdown(board)
    lines = [line for line in text.splitlines() if line.startswith(("| 2 ", "| 4 ", "| 8 "))]
    assert "1/2 (1 oom)" in lines[0] and "0/2 (1 error, 1 pending)" in lines[1] and "0/2 (2 pending)" in lines[2]
    assert "Row 2: CUDA out of memory" in text and r"Row 4: KeyError: 'x\|y'" in text


def test_figures_that_contradict_themselves_mark_the_row(sweep):
    trials = expand(sweep)
    records = {t.trial_id: record(t) for t in trials}
    memory = Memory(nvml_device_bytes=GIB, torch_reserved_bytes=2 * GIB, foreign_processes=["job7 (PID 7, 5 MiB)"])
    first = trials[0].trial_id
    records[first] = records[first].model_copy(update={"memory": {"training": memory}})
    lines = markdown(summarise(Results(sweep, trials, records))).splitlines()
    assert [line for line in lines if line.startswith("| 2 ") and "2/2 †" in line]
    assert any("contradicts itself: nvml" in line for line in lines) and any(
        "not alone on the card" in line for line in lines
    )


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["training", "evaluation"], "after epoch 3: memory is the peak of the last part"),
        (["evaluation"], "after epoch 3: memory in training is not known: none was left"),
    ],
)
def test_a_row_that_was_cut_short_says_whose_memory_it_shows(sweep, phases, expected):
    trials = expand(sweep)[:1]
    whole = record(trials[0])
    memory = {phase: whole.memory[phase] for phase in phases}
    board = board_of(
        sweep._replace(seeds=(0,)), whole.model_copy(update={"memory": memory, "resumed_from_epochs": [3]})
    )
    row = board.tables[0].rows[0]
    assert any(expected in note for note in row.notes)
    assert ("training.rss_bytes" in row.cells) == ("training" in phases)


def test_a_row_out_of_memory_says_what_was_known_then(sweep):
    def said(**known):
        oom = record(expand(sweep)[0], status="oom", error="CUDA out of memory. Tried to allocate 2.00 GiB.")
        oom = oom.model_copy(update={"memory_at_failure": MemoryAtFailure(**known)})
        return markdown(board_of(sweep, oom))

    known = {"torch_reserved_bytes": 7 * GIB, "predicted_allocated_bytes": int(8.5 * GIB), "budget_bytes": None}
    numbers = "(reserved then 7.00 GiB; predicted peak allocated 8.50 GiB)"
    assert f"Tried to allocate 2.00 GiB. {numbers}" in said(**known)
    assert "Tried to allocate 2.00 GiB.\n" in said(**dict.fromkeys(known))


def test_over_budget_is_a_row_of_its_own_kind(sweep):
    trials = expand(sweep)
    records = {t.trial_id: record(t, status="over budget", error="not run: predicted") for t in trials[:2]}
    text = markdown(summarise(Results(sweep, trials, records)))
    assert "0/2 (2 over budget)" in text and "not run: predicted" in text
