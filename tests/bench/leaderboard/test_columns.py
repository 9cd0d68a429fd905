"""Columns of the leaderboard: metrics that are shown, measures of memory, and the card that a row fits."""

from dataclasses import replace

import pytest
from synthetic import synthetic

from bench.leaderboard.columns import MEMORY_COLUMNS, SHOWN, columns, fit
from bench.leaderboard.leaderboard import Cell, Row
from bench.records.memory import MEASURES, PEAKS, Memory
from bench.scoring.metrics import METRICS, OF_PROTOCOL

GIB = 2**30


def row(**gib):
    cells = {name.replace("__", "."): Cell(value * GIB, None, 1) for name, value in gib.items()}
    return Row(("x",), ("ok",), (), ("id",), (0,), cells)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"training__nvml_device_bytes": 5.0}, "6 GB"),
        ({"training__nvml_device_bytes": 30.0, "predicted__device_bytes": 5.0}, "40 GB"),
        ({"training__nvml_device_bytes": 90.0}, "over 80 GB"),
        ({"predicted__device_bytes": 5.0}, "6 GB (pred.)"),
        ({"training__rss_bytes": 5.0}, "None"),
    ],
)
def test_a_row_fits_the_smallest_card_that_is_large_enough(cells, expected):
    assert str(fit(row(**cells))) == expected


def test_a_metric_says_itself_whether_it_has_a_column():
    assert set(SHOWN) == {name for name in METRICS if METRICS[name].shown}
    for metrics in OF_PROTOCOL.values():  # the order of the columns is that of the protocol
        shown = [name for name in metrics if METRICS[name].shown]
        assert shown == [name for name in SHOWN if name in metrics]
    board = synthetic(rows=2, seeds=(0,)).board()
    titles = [column.title for column in columns(board, board.tables[0]) if column.group == "accuracy"]
    assert titles == ["S", "wF", "maxF", "meanE", "MAE", "mIoU", "val S"]


def test_every_measure_of_memory_is_a_field_of_the_record():
    assert {measure.name for measure in MEASURES} <= set(Memory.model_fields)
    assert {measure.baseline for measure in MEASURES if measure.baseline} <= set(Memory.model_fields)
    assert [name for name in MEMORY_COLUMNS if name.startswith("training.")] == [f"training.{name}" for name in PEAKS]
    made = synthetic(rows=2, seeds=(0,))
    memory = Memory(**dict.fromkeys(PEAKS, GIB), nvml_process_bytes=GIB)
    records = {i: r.model_copy(update={"memory": {"training": memory}}) for i, r in made.records.items()}
    board = replace(made, records=records).board()
    titles = [column.title for column in columns(board, board.tables[0])]
    measured = [title for name, title in MEMORY_COLUMNS.items() if name.startswith("training.")]
    assert [title for title in MEMORY_COLUMNS.values() if title in titles] == measured
    assert "process (NVML) GiB" not in titles
