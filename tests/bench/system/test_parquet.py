"""Damaged Parquet files beside records: a note each, and the report shows the rest."""

import io
import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from conftest import examples
from hostile import HOSTILE, damaged
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from pairs import write_pairs
from synthetic import synthetic

from bench import score
from bench.leaderboard import results
from bench.records import sweep_json
from bench.records.tables import load_images, load_series
from bench.report import page, plots
from bench.report.__main__ import main
from bench.report.tables import markdown
from bench.scoring.sample_predictions import load_samples
from bench.watching.live_page import LivePage

KINDS = ("images", "memory", "samples")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of three rows with tables of all kinds, as a run leaves them, and the id of the first trial."""
    folder = tmp_path_factory.mktemp("made")
    whole = synthetic(rows=3, seeds=(0, 1), folder=folder)
    sweep_json.of(whole.sweep, whole.trials).save(folder)
    for trial_id, record in whole.records.items():
        above = {"rss_baseline_bytes": 0}
        memory = record.memory and {phase: m.model_copy(update=above) for phase, m in record.memory.items()}
        record.model_copy(update={"image_scores": whole.images.get(trial_id), "memory": memory}).save(folder)
    return folder, next(iter(whole.records))


@pytest.fixture
def shown(made):
    """``shown(kind, content)`` makes a report with that file of the first trial replaced: its path, notes, Markdown."""
    folder, trial_id = made

    def show(kind, content):
        path = folder / f"{trial_id}.{kind}.parquet"
        good = path.read_bytes()
        path.write_bytes(content)
        try:
            found, notes = results.load(folder)
            board = found.board()
            assert page.html(found, board) and plots.figures(found, board)
        finally:
            path.write_bytes(good)
        return path, notes, markdown(board)

    return show


def written(columns, **look):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file, **look)
    return file.getvalue()


def table_of(made, kind):
    folder, trial_id = made
    return pyarrow.parquet.read_table(folder / f"{trial_id}.{kind}.parquet").to_pydict()


def test_sound_tables_are_no_matter(made, shown):
    folder, trial_id = made
    for kind in KINDS:
        assert shown(kind, (folder / f"{trial_id}.{kind}.parquet").read_bytes())[1] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["empty", "junk", "cut", "head alone", "flipped", "another table's", "a picture"])
def test_damaged_files_are_noted_and_the_rest_is_shown(made, shown, kind, damage):
    folder, trial_id = made
    good = (folder / f"{trial_id}.{kind}.parquet").read_bytes()
    other = written(table_of(made, KINDS[(KINDS.index(kind) + 1) % 3]))
    middle = len(good) // 3
    content = {
        "empty": b"",
        "junk": b"PAR1" + bytes(range(256)) * 4 + b"PAR1",
        "cut": good[:-20],
        "head alone": good[:8],
        "flipped": good[:middle] + bytes(b ^ 255 for b in good[middle : middle + 30]) + good[middle + 30 :],
        "another table's": other,
        "a picture": b"\x89PNG\r\n\x1a\n" + good,
    }[damage]
    path, notes, table = shown(kind, content)
    assert table.count("| 2/2 ") == 3
    if (kind, damage) != ("samples", "flipped"):  # Parquet has no sum of what is written once for all rows, as pictures
        (note,) = notes
        assert note.startswith(f"{path}: cannot be used (") and note.endswith("); left out")


CHANGES = {
    "no column": ("images", lambda t: t.pop("name"), "it has no column name"),
    "text for a number": ("images", lambda t: t.update(mae=["much"] * 40), "its column mae holds string, not numbers"),
    "NaN": ("images", lambda t: t["mae"].__setitem__(3, float("nan")), "its column mae holds nan, not numbers"),
    "infinity": ("images", lambda t: t["mae"].__setitem__(3, float("inf")), "its column mae holds inf, not numbers"),
    "1e308": ("images", lambda t: t["mae"].__setitem__(3, 1e308), "its column mae holds 1e+308, not numbers"),
    "nothing": ("images", lambda t: t["mae"].__setitem__(3, None), "its column mae holds None, not numbers"),
    "no rows": ("images", lambda t: t.update({name: [] for name in t}), "it has no rows"),
    "lists": ("images", lambda t: t.update(mae=[[1.0]] * 40), "not numbers"),
    "a name that is none": ("images", lambda t: t["name"].__setitem__(0, None), "its column name holds None"),
    "seconds in words": ("memory", lambda t: t.update(seconds=["a"] * 60), "its column seconds holds string"),
    "no phase": ("memory", lambda t: t.pop("phase"), "it has no column phase"),
    "readings in words": ("memory", lambda t: t.update(rss_bytes=["a"] * 60), "its column rss_bytes holds string"),
    "a reason": ("samples", lambda t: t["why"].__setitem__(0, ["liked"]), "an unknown reason or metric"),
    "a metric": ("samples", lambda t: t.update(metric=["taste"] * 6), "an unknown reason or metric"),
    "pictures in words": ("samples", lambda t: t.update(image=["a"] * 6), "its column image holds string, not bytes"),
}


@pytest.mark.parametrize(("kind", "change", "reason"), CHANGES.values(), ids=CHANGES)
def test_tables_that_hold_something_else_say_what(made, shown, kind, change, reason):
    columns = table_of(made, kind)
    change(columns)
    path, (note,), table = shown(kind, written(columns))
    assert note.startswith(f"{path}: cannot be used (") and reason in note and table.count("| 2/2 ") == 3


def test_other_images_and_other_metrics_are_not_compared(made, shown):
    columns = table_of(made, "images")
    for changed in ({name: values[:30] for name, values in columns.items()}, {"name": columns["name"]}):
        _, notes, table = shown("images", written(changed))
        assert notes == [] and table.count("| 2/2 ") == 3
        assert "**Answer**: " in table and " has the best S" in table, "the others are compared all the same"


def test_pictures_that_are_damaged_or_too_large_are_left_out_of_figures(made, shown):
    columns = table_of(made, "samples")
    columns["mask"] = [b"no picture"] * 6
    columns["image"][0] = columns["image"][0][:200]
    _, notes, _ = shown("samples", written(columns))
    assert notes == []


def test_readings_without_a_measure_are_no_figure(made, shown):
    columns = table_of(made, "memory")
    _, notes, _ = shown("memory", written({name: columns[name] for name in ("phase", "seconds")}))
    assert notes == []


@settings_of(HOSTILE, max_examples=examples(60))
@given(st.data())
def test_whatever_is_damaged_the_readers_do_not_raise(made, tmp_path, data):
    folder, trial_id = made
    kind = data.draw(st.sampled_from(KINDS))
    good = (folder / f"{trial_id}.{kind}.parquet").read_bytes()
    (tmp_path / f"x.{kind}.parquet").write_bytes(data.draw(damaged(good)))
    reader = {"images": lambda: load_images(tmp_path, ["x"]), "memory": lambda: load_series(tmp_path, "x")}
    found = reader.get(kind, lambda: load_samples(tmp_path, "x"))()
    assert found is None or isinstance(found, dict | list)


def test_the_live_page_is_built_all_the_same(made):
    folder, trial_id = made
    said = []
    paths = [folder / f"{trial_id}.{kind}.parquet" for kind in KINDS]
    good = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b"junk")
    try:
        LivePage(folder, 60, said.append)._rebuild()
    finally:
        for path, content in zip(paths, good):
            path.write_bytes(content)
    assert said == [] and json.dumps("synthetic") in (folder / "page.html").read_text()
    (folder / "page.html").unlink()


def test_a_damaged_table_of_a_method_scored_from_files_leaves_it_out(made, tmp_path):
    folder, _ = made
    _, masks = write_pairs(tmp_path, 2)
    shutil.copytree(folder, tmp_path / "made")
    arguments = ["--pred", masks, "--gt", masks, "--name", "theirs", "--into", tmp_path / "made", "--jobs", 1]
    assert score.main(list(map(str, arguments))) == 0
    path = tmp_path / "made" / "external" / "theirs.images.parquet"
    for content, left in ((path.read_bytes(), 1), (b"junk", 0)):
        path.write_bytes(content)
        found, notes = results.load(tmp_path / "made")
        assert len(found.external) == left and len(notes) == 1 - left
    assert notes[0].startswith(f"{path}: cannot be used (")


def test_the_command_says_it_and_ends_well(png, made, tmp_path, capsys):
    folder, trial_id = made
    shutil.copytree(folder, tmp_path / "made")
    for kind in KINDS:
        (tmp_path / "made" / f"{trial_id}.{kind}.parquet").write_bytes(b"")
    assert main([str(tmp_path / "made")]) == 0
    out, err = capsys.readouterr()
    assert len([line for line in out.splitlines() if line.startswith("note: ") and "left out" in line]) == 3 and not err
    assert (tmp_path / "made" / "figures" / "memory_series.png").exists()
