"""``python -m bench.report``: the same files from the same records, and nothing is written over."""

import json
import os
import shutil
import stat
from dataclasses import replace
from statistics import fmean, stdev

import pandas
import pytest
from synthetic import contents, save, synthetic

from bench.leaderboard import results
from bench.records.store import load_all
from bench.report.__main__ import main
from bench.report.tables import as_frame


@pytest.fixture
def few():
    return synthetic(rows=6, seeds=(0, 1, 2))


def test_the_same_records_give_the_same_files_wherever_and_in_whatever_order_they_lie(few, tmp_path):
    first = save(few, tmp_path / "a")
    second = tmp_path / "elsewhere" / "b"
    second.mkdir(parents=True)
    for path in sorted(first.iterdir(), reverse=True):
        shutil.copyfile(path, second / path.name)
    for folder in (first, second):
        assert main([str(folder), "--out", str(tmp_path / "out" / folder.name), "--quiet"]) == 0
    made = contents(tmp_path / "out" / "a")
    assert made == contents(tmp_path / "out" / "b")
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "comparisons.csv"} <= made.keys()


def test_what_300_trials_left_is_in_the_tables_and_nothing_else_is():
    made = synthetic()
    board = made.board()
    rows = [row for table in board.tables for row in table.rows]
    assert sum(len(row.statuses) for row in rows) == 300
    for row in rows:
        ok = [made.records[i] for i in row.trial_ids if i in made.records and made.records[i].status == "ok"]
        assert row.count_ok == len(ok)
        values = [record.scores["s_measure"] for record in ok]
        if not values:
            assert not any(name.startswith(("test", "val", "timing", "training")) for name in row.cells)
            continue
        cell = row.cells["test.s_measure"]
        assert (cell.mean, cell.count) == (pytest.approx(fmean(values)), len(values))
        assert len(values) == 1 or cell.deviation == pytest.approx(stdev(values))
    frame = as_frame(board)
    assert len(frame) == len(rows) and frame["seeds"].sum() == 300
    assert {"3/5", "5/5"} & set(frame["status"]) and any("missing" in text for text in frame["status"])
    assert len(board.tables) == 2  # some ran elsewhere


def test_trials_that_are_not_ok_are_in_no_mean_front_or_comparison(few):
    worst = next(i for i, r in few.records.items() if r.status == "ok")
    changed = few.records[worst].model_copy(update={"status": "oom", "scores": {"s_measure": 99.0, "mae": -99.0}})
    results = replace(few, records={**few.records, worst: changed})
    row = next(r for table in results.board().tables for r in table.rows if worst in r.trial_ids)
    assert row.cells["test.s_measure"].mean < 1 and row.cells["test.s_measure"].count == 2
    found = results.board().tables[0].comparisons["s_measure"]
    assert {c.seeds for c in found if 0 in (c.first, c.second)} == {2}


def test_weights_of_one_name_and_another_content_part_the_table(few):
    def loaded(record, digest):
        source = record.provenance.model_copy(update={"weights": {"sam3.pt": digest * 16}})
        return record.model_copy(update={"provenance": source})

    ids = list(few.records)
    same = replace(few, records={i: loaded(few.records[i], "abcd") for i in ids})
    assert len(same.board().tables) == 1 and same.board().tables[0].weights == ("sam3.pt abcdabcdabcd",)
    half = {i: loaded(few.records[i], "abcd" if n < len(ids) // 2 else "0123") for n, i in enumerate(ids)}
    tables = replace(few, records=half).board().tables
    assert len(tables) == 2 and {t.environment["other weights of one name"][:7] for t in tables} == {"sam3.pt"}


def test_a_selection_or_a_merger_does_not_replace_a_sweeps_own_report(few, tmp_path, capsys):
    folder = save(few, tmp_path / "a")
    for arguments in ([str(folder), str(folder)], [str(folder), "--sort", "test.mae"]):
        assert main(arguments) == 2 and "--out DIR" in capsys.readouterr().err
    assert not (folder / "leaderboard.md").exists()


def test_predictions_are_kept_in_the_manifest_and_shown(tmp_path):
    made = synthetic(rows=1, seeds=(0,))
    folder = save(made, tmp_path / "a")
    assert main([str(folder), "--predict", "--quiet"]) == 0
    text = (folder / "leaderboard.md").read_text()
    assert "predicted allocated GiB ↓" in text and "6 GB (pred.)" in text
    assert main([str(folder), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert (tmp_path / "again" / "leaderboard.md").read_text() == text
    assert len(json.loads((folder / "sweep.json").read_text())["predicted"]) == 1
    assert load_all(folder)[1] == [] and results.load(folder)[1] == []
    frame = pandas.read_csv(folder / "leaderboard.csv")
    assert frame["fits_card_gb"][0] == 6 and frame["fits_by"][0] == "predicted"


@pytest.mark.parametrize("out", ["itself", "a record", "sweep.json", "device", "pipe", "folder", "a name for a report"])
def test_a_bundle_or_a_report_replaces_no_result_and_nothing_that_is_no_file(few, tmp_path, capsys, out):
    folder = save(few, tmp_path / "sweep")
    packed = tmp_path / "packed.zip"
    assert main([str(folder), "--bundle", str(packed), "--quiet"]) == 0
    record = next(folder.glob("[0-9a-f]*.json"))
    os.mkfifo(tmp_path / "pipe")
    before = contents(folder) | contents(packed.parent)
    given, arguments, expected = {
        "itself": (packed, ["--bundle", packed], "is an input, which would be lost"),
        "a record": (folder, ["--bundle", record], "is an input, which would be lost"),
        "sweep.json": (folder, ["--bundle", folder / "sweep.json"], "is an input, which would be lost"),
        "device": (folder, ["--bundle", "/dev/null"], "is a device"),
        "pipe": (folder, ["--bundle", tmp_path / "pipe"], "is a pipe"),
        "folder": (folder, ["--bundle", tmp_path], "is a folder"),
        "a name for a report": (folder, [], "is a folder"),
    }[out]
    if out == "a name for a report":
        (folder / "leaderboard.csv").mkdir()
    assert main([str(given), *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert expected in said and len(said.splitlines()) == 1
    assert before == contents(folder) | contents(packed.parent)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
