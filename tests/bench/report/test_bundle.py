"""Bundles: the same tables on another machine, and hostile zip files."""

import stat
import zipfile

import pytest
from synthetic import contents, save, synthetic

from bench.config.errors import ConfigError
from bench.report import bundle
from bench.report.__main__ import main


@pytest.fixture
def few():
    return synthetic(rows=6, seeds=(0, 1, 2))


def test_another_machine_rebuilds_the_same_tables_from_a_bundle(few, tmp_path):
    folder = save(few, tmp_path / "a")
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
    folder = save(few, tmp_path / "a")
    where = ["--where", "model.adapter.rank == 2", "--quiet"]
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


def test_a_bundle_that_names_a_file_in_two_ways_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("sweep.json", "{}")
        archive.writestr("./sweep.json", "{}")
    with pytest.raises(ConfigError, match="which no bundle does"), bundle.opened(tmp_path / "two.zip"):
        pass
