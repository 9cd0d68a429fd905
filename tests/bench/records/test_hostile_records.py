"""Records that are damaged or mean harm are read, set aside or left out. Mutations come from a fixed seed."""

import hostile_files
import pytest
from conftest import examples
from hostile import HOSTILE, bounded, damaged
from hostile_files import changed_records
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from bench import run, score
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.leaderboard.results import Results, summarise
from bench.records.external_scores import load_external
from bench.records.store import load_all
from bench.report.tables import as_csv, markdown

command = pytest.fixture(hostile_files.command)
folders = pytest.fixture(hostile_files.folders, scope="module")
finished = pytest.fixture(hostile_files.finished, scope="module")


@settings_of(HOSTILE, max_examples=examples(40))
@given(st.data())
def test_changed_records_are_read_or_set_aside(command, finished, data):
    folder = finished / "results" / "mine"
    (path,) = folder.glob("*.json")
    good = path.read_bytes()
    changes = st.one_of(changed_records(good), damaged(good))
    content = data.draw(st.one_of(changes, st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null"])))
    path.write_bytes(content)
    try:
        code, said = command(run.main, finished / "sweep.yaml", "--dry-run", "--results", finished / "results")
        assert code == 0 or "written by a newer version" in said
        records, broken = load_all(folder)
        assert len(records) + len(broken) == 1
        sweep = load_sweep(finished / "sweep.yaml")
        with bounded():
            board = summarise(Results(sweep, expand(sweep), records))
            markdown(board), as_csv(board)
    finally:
        path.write_bytes(good)


@settings_of(HOSTILE, max_examples=examples(30))
@given(st.data())
def test_changed_scores_of_others_are_read_or_left_out(command, finished, folders, data):
    external = finished / "results" / "mine" / "external"
    table, text = external / "other.images.parquet", external / "other.json"
    if not text.exists():
        masks = folders / "masks"
        into = ["--into", finished / "results" / "mine", "--name", "other", "--jobs", 1]
        assert command(score.main, "--pred", masks, "--gt", masks, *into)[0] == 0
    path = data.draw(st.sampled_from([table, text]))
    good = path.read_bytes()
    path.write_bytes(data.draw(damaged(good)))
    try:
        with bounded():
            records, broken = load_external(external.parent)
        assert len(records) + len(broken) == 1
    finally:
        path.write_bytes(good)
