"""Several sweeps as one leaderboard."""

from dataclasses import replace

import pytest
from synthetic import synthetic

from bench.config.ask import AskConfig
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.leaderboard.merge import merge


@pytest.fixture
def few():
    return synthetic(rows=6, seeds=(0, 1, 2))


def part(few, keep, **changes):
    """Some of the trials as a sweep of their own."""
    trials = [trial for trial in few.trials if keep(trial.config)]
    ids = {trial.trial_id for trial in trials}
    records = {i: record for i, record in few.records.items() if i in ids}
    return replace(few, sweep=few.sweep._replace(**changes), trials=trials, records=records)


def test_merged_sweeps_unite_axes_and_show_a_shared_trial_once(few):
    ranks = part(few, lambda c: c.model.decoder.width == 8, name="ranks", axes=few.sweep.axes[:1])
    ranks = replace(ranks, trials=[type(t)(t.config, t.point[:1]) for t in ranks.trials])
    widths = part(few, lambda c: c.model.adapter.rank == 1, name="widths", axes=few.sweep.axes[1:])
    widths = replace(widths, trials=[type(t)(t.config, t.point[1:]) for t in widths.trials])
    merged, notes = merge([ranks, widths])
    board = merged.board()
    assert notes == [] and board.name == "ranks + widths"
    assert board.axes == ("model.adapter.rank", "model.decoder.width")
    labels = [row.labels for table in board.tables for row in table.rows]
    assert sorted(labels) == [("1", "16"), ("1", "8"), ("2", "8"), ("3", "8")]
    assert all(len(row.seeds) == 3 for table in board.tables for row in table.rows)


def test_settings_that_only_the_bases_differ_in_never_share_a_row(few, tiny_with):
    axis = (Axis.over("model.adapter.rank", {"2": 2, "4": 4}),)
    made = []
    for epochs in (1, 5):
        sweep = few.sweep._replace(base=tiny_with({"train.epochs": epochs}), axes=axis, seeds=(0,))
        made.append(replace(few, sweep=sweep, trials=expand(sweep), records={}, images={}))
    board = merge(made)[0].board()
    assert board.axes == ("model.adapter.rank", "train.epochs")
    assert [row.labels for row in board.tables[0].rows] == [("2", "1"), ("4", "1"), ("2", "5"), ("4", "5")]


def test_fields_without_a_common_axis_are_told_apart_too(few, tiny_with):
    """A ``variant`` of one name that means something else in another sweep gets the fields that differ."""
    made = []
    for rank in (2, 4):
        axis = (Axis("variant", (("ours", {"model.adapter.rank": rank}),)),)
        sweep = few.sweep._replace(base=tiny_with({}), axes=axis, seeds=(0,))
        made.append(replace(few, sweep=sweep, trials=expand(sweep), records={}, images={}))
    board = merge(made)[0].board()
    assert board.axes == ("variant", "model.adapter.rank")
    assert [row.labels for row in board.tables[0].rows] == [("ours", "2"), ("ours", "4")]


def test_of_two_records_of_a_trial_the_one_that_is_ok_is_shown_and_it_is_said(few):
    first = next(iter(few.records))
    failed = few.records[first].model_copy(update={"status": "error", "error": "x", "scores": None})
    other = replace(few, records={**few.records, first: failed})
    merged, notes = merge([other, few])
    assert merged.records[first].status == "ok" and len(notes) == 1 and first in notes[0]
    assert len(merged.trials) == len(few.trials)


def test_a_question_that_all_parts_ask_about_the_same_axes_stays(few):
    ask = AskConfig(name="reference", reference="1, 8")
    same = replace(few, sweep=few.sweep._replace(ask=ask))
    assert merge([same, same])[0].sweep.ask == ask
    assert merge([same, few])[0].sweep.ask == AskConfig()
