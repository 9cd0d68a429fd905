"""The option ``--feature-cache``: what it sets, and what it refuses before any work."""

import argparse

import pytest

from bench.config.errors import ConfigError
from bench.run import main
from bench.training import feature_cache


def options(*texts):
    parser = argparse.ArgumentParser()
    feature_cache.add_options(parser)
    return parser.parse_args(texts)


def test_off_unless_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv(feature_cache.FOLDER, "left from before")
    feature_cache.choose(options())
    assert feature_cache.store() is None and list(tmp_path.iterdir()) == []
    feature_cache.choose(options("--feature-cache", "auto", "--feature-cache-gib", "0.5"))
    assert feature_cache.store().folder == tmp_path / "features" and feature_cache.store().limit_bytes == 2**29
    feature_cache.choose(options("--feature-cache", str(tmp_path / "here")))
    assert feature_cache.store().folder == tmp_path / "here" and feature_cache.store().limit_bytes == 20 * 2**30
    feature_cache.choose(options())


@pytest.mark.parametrize("gib", ["0", "-1", "nan"])
def test_a_bound_that_cannot_be(gib):
    with pytest.raises(ConfigError, match="must be above 0"):
        feature_cache.choose(options("--feature-cache-gib", gib))


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Give auto, off or a folder"):
        feature_cache.choose(options("--feature-cache", str(tmp_path / "file" / "below")))


@pytest.mark.parametrize(
    "given",
    [
        ["--feature-cache-gib", "0"],
        ["--feature-cache", "/dev/null/x"],
        ["--feature-cache", "auto", "--address", "127.0.0.1:1"],
    ],
)
def test_the_command_line_says_so_before_any_work(given, tmp_path, capsys):
    assert main(["ablations/decoder_width.yaml", "--dry-run", "--results", str(tmp_path), *given]) == 2
    assert capsys.readouterr().err.startswith("--feature-cache")


def test_a_dry_run_makes_no_folder_for_features(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(feature_cache.FOLDER, "")  # and what is set in here goes with the test
    junk = tmp_path / "junk"
    given = ["--feature-cache", str(junk), "--results", str(tmp_path / "results")]
    assert main(["ablations/decoder_width.yaml", "--dry-run", *given]) == 0
    assert list(tmp_path.iterdir()) == []
    junk.write_text("a file")
    assert main(["ablations/decoder_width.yaml", "--dry-run", *given]) == 2
    assert f"--feature-cache {junk}" in capsys.readouterr().err
