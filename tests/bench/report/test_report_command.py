"""``python -m bench.report``: from folders and bundles to the same tables, and a gate against older results."""

import json
import os
import shutil
import stat
import zipfile
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pandas
import pytest
from synthetic import synthetic

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.leaderboard import results
from bench.leaderboard.against import against
from bench.leaderboard.leaderboard import Leaderboard
from bench.leaderboard.merge import merge
from bench.leaderboard.select import select
from bench.records import sweep_json
from bench.records.store import load_all
from bench.report import bundle
from bench.report.__main__ import main
from bench.report.tables import as_frame


def write(made, folder):
    """Puts made-up results on disk as a run leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep_json.of(made.sweep, made.trials, made.absent).save(folder)
    for trial_id, record in made.records.items():
        record.model_copy(update={"image_scores": made.images.get(trial_id)}).save(folder)
    return folder


@pytest.fixture
def few():
    return synthetic(rows=6, seeds=(0, 1, 2))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the same files from the same records


def test_the_same_records_give_the_same_files_wherever_and_in_whatever_order_they_lie(few, tmp_path):
    first = write(few, tmp_path / "a")
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


# --- several sweeps


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


# --- selecting and sorting


def rows_of(made) -> list[tuple[str, ...]]:
    board: Leaderboard = made.board()
    return [row.labels for table in board.tables for row in table.rows]


def test_conditions_on_fields_quantities_and_states(few):
    assert {labels[0] for labels in rows_of(select(few, ["model.adapter.rank=2"]))} == {"2"}
    assert {labels[0] for labels in rows_of(select(few, ["model.adapter.rank>=2"]))} == {"2", "3"}
    assert {labels[1] for labels in rows_of(select(few, ["model.decoder.width!=8"]))} == {"16"}
    frame = as_frame(few.board())
    better = select(few, ["test.mae<0.36"])
    assert len(rows_of(better)) == (frame["test.mae"] < 0.36).sum() > 0
    assert "Selected by test.mae<0.36" in better.board().remarks[-1]
    assert all(record.status == "oom" for record in select(few, ["status=oom"]).records.values())
    both = select(few, ["model.adapter.rank=2", "model.decoder.width=8"])
    assert rows_of(both) == [("2", "8")]


def test_sorting_puts_the_best_first_and_minus_reverses(few):
    def column(made, name):
        return [v for v in as_frame(made.board())[name] if not np.isnan(v)]

    up = column(select(few, sort="test.s_measure"), "test.s_measure")
    assert up == sorted(up, reverse=True) and len(up) > 3
    assert column(select(few, sort="-test.s_measure"), "test.s_measure") == sorted(up)
    memory = column(select(few, sort="training.rss_bytes"), "training.rss_bytes")
    assert memory == sorted(memory)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "model.adapter.rnk=2"], "Did you mean 'model.adapter.rank'?"),
        (["--sort", "test.s_mesure"], "Did you mean 'test.s_measure'?"),
        (["--sort", "-test.s_mesure"], "Did you mean 'test.s_measure'?"),
        (["--where", "nonsense"], "is no condition"),
        (["--where", "model.adapter.rank=77"], "no row has model.adapter.rank=77"),
    ],
)
def test_wrong_keys_end_with_code_2_and_the_nearest_right_one(few, tmp_path, capsys, arguments, expected):
    folder = write(few, tmp_path / "a")
    assert main([str(folder), "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr()
    assert expected in said.err and "Traceback" not in said.err and not (tmp_path / "out" / "leaderboard.md").exists()


def test_a_selection_or_a_merger_does_not_replace_a_sweeps_own_report(few, tmp_path, capsys):
    folder = write(few, tmp_path / "a")
    for arguments in ([str(folder), str(folder)], [str(folder), "--sort", "test.mae"]):
        assert main(arguments) == 2 and "--out DIR" in capsys.readouterr().err
    assert not (folder / "leaderboard.md").exists()


# --- bundles


def test_another_machine_rebuilds_the_same_tables_from_a_bundle(few, tmp_path):
    folder = write(few, tmp_path / "a")
    trial_id = next(iter(few.records))
    (folder / f"{trial_id}.safetensors").write_bytes(b"weights")
    assert main([str(folder), "--out", str(tmp_path / "here"), "--bundle", str(tmp_path / "r.zip"), "--quiet"]) == 0
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        names = archive.namelist()
        assert "torch==" in archive.read("environment.txt").decode()
    assert names == sorted(names) and f"{trial_id}.safetensors" not in names
    assert {"sweep.json", "leaderboard.tex", f"{trial_id}.json", f"{trial_id}.images.parquet"} <= set(names)
    assert main([str(tmp_path / "r.zip"), "--out", str(tmp_path / "there"), "--quiet"]) == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "there")

    first = (tmp_path / "r.zip").read_bytes()
    assert main([str(folder), "--bundle", str(tmp_path / "r.zip"), "--quiet"]) == 0
    assert (tmp_path / "r.zip").read_bytes() == first
    assert main([str(folder), "--bundle", str(tmp_path / "w.zip"), "--with-weights", "--quiet"]) == 0
    assert f"{trial_id}.safetensors" in zipfile.ZipFile(tmp_path / "w.zip").namelist()


def test_a_selection_stays_what_it_is_in_a_bundle(few, tmp_path):
    folder = write(few, tmp_path / "a")
    where = ["--where", "model.adapter.rank=2", "--quiet"]
    assert main([str(folder), "--bundle", str(tmp_path / "r.zip"), "--out", str(tmp_path / "here"), *where]) == 0
    assert main([str(tmp_path / "r.zip"), "--out", str(tmp_path / "there"), "--quiet"]) == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


@pytest.mark.parametrize("name", ["../out.json", "/etc/x.json", "a/../../x", "..\\x.json", "C:/x.json", "link"])
def test_a_bundle_that_reaches_outside_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.filename = name  # ZipInfo itself would turn backslashes round
        if name == "link":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ConfigError, match="which no bundle does"), bundle.opened(tmp_path / "bad.zip"):
        pass


def test_bombs_and_broken_files_are_refused(tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"0" * 10_000_000)
    monkeypatch.setattr(bundle, "LARGEST_BYTES", 1_000_000)
    assert main([str(tmp_path / "bomb.zip"), "--out", str(tmp_path / "o")]) == 2
    assert "would unpack to" in capsys.readouterr().err
    (tmp_path / "text.zip").write_text("no zip")
    whole = (tmp_path / "bomb.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.zip").write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    monkeypatch.undo()
    for name in ("text.zip", "cut.zip", "flipped.zip"):
        assert main([str(tmp_path / name), "--out", str(tmp_path / "o")]) == 2
        said = capsys.readouterr().err
        assert "is no bundle that can be read" in said and "Traceback" not in said


# --- the gate


def shifted(made, by, spread=0.0):
    """The same records with other scores of their images; ``spread`` alternates over images."""
    images = {}
    for trial_id, columns in made.images.items():
        turn = np.where(np.arange(len(columns["name"])) % 2, spread, -spread)
        scores = np.asarray(columns["s_measure"]) + by + turn
        images[trial_id] = {"name": columns["name"], "s_measure": scores.tolist(), "mae": (1 - scores).tolist()}
    return replace(made, images=images)


def test_identical_results_pass(few):
    verdicts = against(few, few)
    assert verdicts.worse == [] and verdicts.compared
    assert {f.verdict for f in verdicts.findings} <= {"equal"}


def test_a_drop_beyond_the_noise_is_worse_and_a_rise_is_better(few):
    assert {f.quantity for f in against(shifted(few, -0.1), few).worse} == {"S", "MAE"}
    risen = against(shifted(few, 0.1), few)
    assert risen.worse == [] and any(f.verdict == "better" for f in risen.findings)


def test_a_change_within_the_noise_is_not_resolved(few):
    found = against(shifted(few, -0.001, spread=0.05), few)
    assert found.worse == [] and any(f.verdict == "not resolved" for f in found.findings)


def test_equal_code_with_other_chance_hardly_ever_fails():
    """Twenty pairs of result sets that differ by noise of seeds and images alone."""
    made = synthetic(rows=3, seeds=(0, 1, 2))
    rng = np.random.default_rng(0)

    def noisy():
        images = {}
        for trial_id, columns in made.images.items():
            scores = 0.7 + rng.normal(0, 0.01) + rng.normal(0, 0.05, len(columns["name"]))
            images[trial_id] = {"name": columns["name"], "s_measure": scores.tolist(), "mae": (1 - scores).tolist()}
        return replace(made, images=images)

    assert sum(bool(against(noisy(), noisy()).worse) for _ in range(20)) <= 3


def test_one_seed_is_compared_over_images_and_says_so():
    one = synthetic(rows=2, seeds=(0,))
    findings = against(shifted(one, -0.1), one).findings
    worse = [f for f in findings if f.verdict == "worse"]
    assert worse and all("one seed" in f.note for f in worse)


def test_a_row_that_fails_now_is_worse_one_that_is_gone_is_said_and_a_new_one_too(few):
    first = few.trials[0].trial_id
    failed = few.records[first].model_copy(update={"status": "oom", "error": "CUDA out of memory", "scores": None})
    (finding,) = against(replace(few, records={**few.records, first: failed}), few).worse
    assert (finding.old, finding.new) == ("ok", "oom")
    gone = {trial.trial_id for trial in few.trials if trial.config.model.adapter.rank == 2}
    fewer = replace(few, records={i: r for i, r in few.records.items() if i not in gone})
    assert [f.verdict for f in against(fewer, few).findings].count("missing") == 2
    assert [f.verdict for f in against(few, fewer).findings].count("new") == 2
    assert against(fewer, few).worse == []


def test_memory_is_held_against_the_spread_of_repeats(few):
    def heavier(by):
        records = {}
        for i, record in few.records.items():
            memory = record.memory and {
                phase: m.model_copy(update={"rss_bytes": m.rss_bytes + by}) for phase, m in record.memory.items()
            }
            records[i] = record.model_copy(update={"memory": memory})
        return replace(few, records=records)

    assert any("RSS" in f.quantity for f in against(heavier(2**30), few).worse)
    assert against(heavier(2**20), few).worse == []  # seeds are 4 MiB apart
    assert against(heavier(-(2**30)), few).worse == []


def test_other_data_are_not_compared_and_other_machines_neither(few, tmp_path, capsys):
    def elsewhere(**changes):
        made = {
            i: r.model_copy(update={"provenance": r.provenance.model_copy(update=changes)})
            for i, r in few.records.items()
        }
        return replace(few, records=made)

    verdicts = against(shifted(elsewhere(dataset_fingerprint="0" * 32), -0.3), few)
    assert verdicts.worse == [] and any("other data" in text for text in verdicts.warnings)
    verdicts = against(elsewhere(host_cpu="another chip"), few)
    assert any("memory is NOT compared" in text and "another chip" in text for text in verdicts.warnings)
    assert any("speed is NOT compared" in text for text in against(few, few).warnings)  # two trials at once


def test_the_gate_is_an_exit_code(few, tmp_path, capsys):
    old, new = write(few, tmp_path / "old"), write(shifted(few, -0.1), tmp_path / "new")
    before = contents(new)
    assert main([str(new), "--against", str(old)]) == 1
    said = capsys.readouterr()
    assert "WORSE: 1, 8: S:" in said.err and "worse" in said.out and contents(new) == before
    assert main([str(old), "--bundle", str(tmp_path / "old.zip"), "--quiet"]) == 0
    assert main([str(old), "--against", str(tmp_path / "old.zip"), "--quiet"]) == 0
    sweep = few.sweep._replace(axes=(Axis.over("model.adapter.rank", {"99": 99}),))
    nothing_alike = replace(few, sweep=sweep, trials=expand(sweep), records={}, images={})
    assert main([str(write(nothing_alike, tmp_path / "other")), "--against", str(old)]) == 2
    assert main([str(old), "--against", str(tmp_path / "nowhere")]) == 2


def test_predictions_are_kept_in_the_manifest_and_shown(tmp_path):
    made = synthetic(rows=1, seeds=(0,))
    folder = write(made, tmp_path / "a")
    assert main([str(folder), "--predict", "--quiet"]) == 0
    text = (folder / "leaderboard.md").read_text()
    assert "predicted allocated GiB ↓" in text and "8 GB (pred.)" in text
    assert main([str(folder), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert (tmp_path / "again" / "leaderboard.md").read_text() == text
    assert len(json.loads((folder / "sweep.json").read_text())["predicted"]) == 1
    assert load_all(folder)[1] == [] and results.load(folder)[1] == []
    frame = pandas.read_csv(folder / "leaderboard.csv")
    assert frame["fits_card_gb"][0] == 8 and frame["fits_by"][0] == "predicted"


# --- what is not written over


@pytest.mark.parametrize("out", ["itself", "a record", "sweep.json", "device", "pipe", "folder", "a name for a report"])
def test_a_bundle_or_a_report_replaces_no_result_and_nothing_that_is_no_file(few, tmp_path, capsys, out):
    folder = write(few, tmp_path / "sweep")
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


def test_a_bundle_that_names_a_file_in_two_ways_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("sweep.json", "{}")
        archive.writestr("./sweep.json", "{}")
    with pytest.raises(ConfigError, match="which no bundle does"), bundle.opened(tmp_path / "two.zip"):
        pass
