"""Rows of trials that ran on several GPUs, or shared one, beside those that had one to themselves."""

import pytest
from synthetic import board_of, record

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.records.memory import Memory
from bench.report.tables import as_frame, markdown


@pytest.fixture
def sweep(tiny) -> Sweep:
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("name", "Why?", "default", tiny, (axis,), (0,))


def on_shared_card(trial):
    alone = record(trial, gpu_share=0.5)
    unknown = {"train_seconds": None, "train_images_per_second": None, "inference_images_per_second": None}
    return alone.model_copy(update={"memory": None, "timing": alone.timing.model_copy(update=unknown)})


def test_rows_of_other_numbers_of_gpus_are_parted(sweep):
    one, two, three = expand(sweep)
    board = board_of(sweep, record(one), record(two), record(three, devices=4))
    assert [len(table.rows) for table in board.tables] == [2, 1]
    assert board.tables[1].environment["device"].startswith("4 x ")
    assert "not comparable with the others" in markdown(board)


def test_a_shared_card_leaves_memory_and_speed_open_and_says_why(sweep):
    one, two, three = expand(sweep)
    board = board_of(sweep, record(one), on_shared_card(two), record(three))
    (table,) = board.tables
    assert table.memory_measure == "rss_bytes", "the others keep their column"
    text = markdown(board)
    assert "† 4: the trial shared its GPU with others (--gpus-per-trial 0.5): memory and speed are not known" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| 4 |")]
    assert line.count(" – ") == 3 and "1/1 †" in line
    frame = as_frame(board).set_index("model.adapter.rank")
    assert frame.loc["4", ["training.rss_bytes", "timing.train_images_per_second"]].isna().all()
    assert frame.loc["4", "test.s_measure"] == 0.8


def test_what_nvml_did_not_show_is_said_and_is_no_number(sweep):
    one, two, three = expand(sweep)
    device = {"nvml_device_bytes": 3 * 2**30, "torch_reserved_bytes": 2 * 2**30}
    alone, unseen = Memory(**device), Memory(**device, foreign_processes=None, denied={"processes": "No Permission"})
    blind = Memory(torch_reserved_bytes=2 * 2**30, denied={"memory": "No Permission"})
    records = [
        record(t).model_copy(update={"memory": {"training": m}})
        for t, m in zip((one, two, three), (alone, unseen, blind))
    ]
    board = board_of(sweep, *records)
    assert board.tables[0].memory_measure == "torch_reserved_bytes", "the first that all rows have"
    text = markdown(board)
    unknown = "other processes on the GPU in training are not known"
    assert f"† 4: {unknown} (NVML refused to list its processes: No Permission)" in text
    assert "† 8: memory in use on the GPU in training is not known (NVML refused to read it: No Permission)" in text
    assert text.count("NVML refused") == 2
    assert not [name for name in as_frame(board) if "denied" in name or "foreign" in name]


def test_a_whole_sweep_on_shared_cards_has_no_front(sweep):
    board = board_of(sweep, *map(on_shared_card, expand(sweep)))
    assert board.tables[0].memory_measure is None and not any(row.on_front for row in board.tables[0].rows)
    assert markdown(board).count("†") == 6
