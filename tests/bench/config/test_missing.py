"""Rows that this machine cannot run: they are said and shown, and the rest of the sweep goes on."""

import re
from pathlib import Path

import pytest

from bench.config import lacking
from bench.records.store import load_all
from bench.run import main

SWEEP = """
name: some
question: Do the others run?
base:
  model: {name: sam3_unet, encoder: sam3_vit_tiny, decoder: {width: 8}, adapter: {rank: 2}}
  dataset: {name: procedural, train: 8, val: 2, test: 3, side: 32}
  transform: {size: 32}
  train: {epochs: 1, batch_size: 4}
  device: cpu
axes:
  model:
    here: {name: sam3_unet, encoder: sam3_vit_tiny, decoder: {width: 8}, adapter: {rank: 2}}
    elsewhere: {name: sam3_unet, encoder: {name: sam3_vit_tiny, weights: no/such.pt}, decoder: {width: 8}}
seeds: [0]
"""
LAST_ONLY = 'model={"elsewhere":{"name":"sam3_unet","encoder":{"name":"sam3_vit_tiny","weights":"no/such.pt"}}}'


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("some.yaml").write_text(SWEEP)
    return "some.yaml", "--executor", "serial"


def test_the_rest_runs_and_the_missing_row_says_what_and_how(sweep, capsys):
    assert main([*sweep]) == 0
    said = capsys.readouterr()
    assert said.err.count("WARNING: 1 of 2 trials cannot run here and are left out: elsewhere") == 2
    assert "missing weights: model.encoder.weights: no/such.pt does not exist" in said.err
    assert "-> give the path of an existing file, 'pretrained' or 'random'" in said.err
    assert "1 of 2 trials to run, 0 done before" in said.out
    records, _ = load_all(Path("results/some"))
    assert [r.status for r in records.values()] == ["ok"], "missing is no record: it is found anew wherever one looks"
    table = Path("results/some/leaderboard.md").read_text()
    (row,) = (line for line in table.splitlines() if line.startswith("| elsewhere"))
    assert "0/1 (1 missing)" in row
    assert "Row elsewhere: missing weights: no/such.pt does not exist; give the path of an existing file" in table

    before = table
    assert main([*sweep, "--quiet"]) == 0, "what could run is done, and that is all right"
    said = capsys.readouterr()
    assert said.out == "" and "left out: elsewhere" in said.err, "quiet does not hide it"
    assert Path("results/some/leaderboard.md").read_text() == before


def test_nothing_that_can_run_is_an_error_before_any_work(sweep, capsys):
    assert main([*sweep, LAST_ONLY]) == 2
    said = capsys.readouterr()
    assert "cannot run here" in said.err and "no/such.pt does not exist" in said.err and "WARNING" not in said.err
    assert not Path("results").exists()


def test_missing_data_of_all_rows_is_an_error_too(sweep, capsys):
    assert main([*sweep, "dataset.images=nope", "dataset.masks=nope"]) == 2
    said = capsys.readouterr()
    assert "missing data: dataset.images: nope does not exist" in said.err and not Path("results").exists()


def test_a_dry_run_shows_it(sweep, capsys):
    assert main([*sweep, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "missing weights" in said and "1 of 2 trials to run" in said and "no/such.pt does not exist" in said


def test_a_package_that_is_not_there_leaves_the_size_unknown(sweep, capsys, monkeypatch):
    monkeypatch.setattr("models.sam3_zero_shot.PACKAGES", ("no_such_package",))
    zero_shot = 'model={"here":{"name":"unet","width":2},"zero":{"name":"sam3_zero_shot"}}'
    assert main([*sweep, "--dry-run", zero_shot]) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if "│ zero" in line)
    assert "–" in line and "missing package" in line


@pytest.mark.parametrize(
    ("device", "variable", "value", "programs", "expected"),
    [
        ("cpu", "CXX", None, ["g++", "clang++"], None),
        ("cpu", "CXX", None, [], "a C\\+\\+ compiler, and .* not in"),
        ("cpu", "CXX", "nothere", ["g++", "clang++"], "a C\\+\\+ compiler, and \\$CXX='nothere' names none"),
        ("cpu", "CXX", "", ["g++", "clang++"], "\\$CXX='' names none"),
        ("cpu", "CXX", 'g++ "', ["g++", "clang++"], "names none"),
        ("cpu", "CXX", "ccache other", ["ccache"], None),
        ("cuda", "CC", "nothere", ["gcc"], "a C compiler, and \\$CC='nothere' names none"),
        ("cuda", "CC", None, ["clang"], None),
    ],
)
def test_the_compiler_is_the_one_that_torch_would_start(
    device, variable, value, programs, expected, tmp_path, monkeypatch
):
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lacking, "find_spec", lambda name: name)
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    found = [item.what for item in lacking.compiler(device)]
    assert bool(found) == bool(expected)
    assert not found or re.search(expected, *found)


def test_compiled_code_needs_a_folder_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    before = list(lacking.compiler("cpu"))
    access = lacking.os.access
    monkeypatch.setattr(lacking.os, "access", lambda path, *more: path != str(tmp_path) and access(path, *more))
    (item,) = [item for item in lacking.compiler("cpu") if item not in before]
    assert item.kind == "folder" and f"cannot write to $TORCHINDUCTOR_CACHE_DIR={tmp_path}" in item.what
