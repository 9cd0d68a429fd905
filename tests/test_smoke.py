"""The main job end to end, in processes of its own, with Ray and without. What may go wrong is in test_drills.py."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import RANKS, SWEEP
from pairs import write_pairs

from bench.records.store import load_all
from bench.report import FIGURES
from bench.report.__main__ import main as rebuild
from bench.run import main


def test_from_sweep_file_to_leaderboard_with_ray_then_again_then_without(every_kind, tmp_path, run):
    code, said = run(tmp_path, RANKS, as_a_user=True)
    assert code == 0, said
    folder = tmp_path / "results" / "smoke"
    records, broken = load_all(folder)
    assert not broken and [r.status for r in records.values()] == ["ok", "ok"]
    expected = {"sweep.json", "page.html", "leaderboard.md", "leaderboard.csv", "leaderboard.tex"}
    expected |= {
        f"{trial_id}{kind}"
        for trial_id in records
        for kind in (".json", ".images.parquet", ".memory.parquet", ".samples.parquet", ".safetensors")
    }
    assert {path.name for path in folder.iterdir()} - {".resume"} == expected | {FIGURES}
    assert (folder / FIGURES / "memory_accuracy.png").exists()
    assert "[2/2]" in said and "Embedded run" in (folder / "leaderboard.md").read_text()
    assert "\x1b" not in said, "a log holds plain lines"

    shutil.copytree(folder, tmp_path / "other machine" / "copy", copy_function=shutil.copy)
    assert rebuild([str(tmp_path / "other machine" / "copy"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    again = [path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*")]
    assert {Path("leaderboard.md"), Path("page.html"), Path(FIGURES, "memory_accuracy.pdf")} < set(again)
    for path in again:
        assert (tmp_path / "again" / path).read_bytes() == (folder / path).read_bytes(), path

    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.json")}
    table = (folder / "leaderboard.md").read_text()
    code, said = run(tmp_path, RANKS)
    assert code == 0 and "0 of 2 trials to run, 2 done before" in said
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.json")}
    assert (folder / "leaderboard.md").read_text() == table

    code, said = run(tmp_path, RANKS, "--executor", "serial", "--results", "elsewhere")
    assert code == 0, said
    serial, _ = load_all(tmp_path / "elsewhere" / "smoke")
    assert {i: r.scores for i, r in serial.items()} == {i: r.scores for i, r in records.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
@pytest.mark.parametrize("executor", ["ray", "serial"])
def test_a_sweep_on_whole_cards(tmp_path, run, executor):
    settings = ("device=cuda", "memory.budget_gib=4", "memory.foreign_process=note")  # this process may be on the card
    code, said = run(tmp_path, RANKS, *settings, "--executor", executor)
    assert code == 0, said
    records, broken = load_all(tmp_path / "results" / "smoke")
    assert not broken and [record.status for record in records.values()] == ["ok", "ok"]
    for record in records.values():
        training = record.memory["training"]
        assert training.torch_reserved_bytes >= training.torch_allocated_bytes > 0 and training.rss_bytes is None
        assert training.breach is None
        assert record.provenance.device in {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        ampere = torch.cuda.get_device_capability()[0] >= 8
        assert record.memory_conditions.tf32_matmul == ampere and record.memory_conditions.tf32_cudnn


def test_a_dry_run_shows_the_trials_and_touches_nothing(tmp_path, run):
    code, said = run(tmp_path, RANKS, "--dry-run", "train.epochs=3")
    assert code == 0 and "2 of 2 trials to run" in said
    assert said.count("to run") == 3 and "parameters" in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("model.adapter.rnk=3",), "Did you mean 'rank'?"),
        (("model.adapter.placement=first:9",), "the encoder has 8"),
        (("--gpus", "1"), "this profile runs on the CPU"),
        (("--gpus", "-1"), "this profile runs on the CPU"),
        (("--cpus-per-trial", "9999"), "Allowed: 1 to"),
        (("--results", "smoke.yaml"), "cannot write results there"),
        (("dataset.images=nope", "dataset.masks=nope"), "nope does not exist"),
        (("--profile", "full"), "no profile 'full'"),
    ],
)
def test_wrong_input_ends_with_code_2_and_no_traceback(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    assert main(["smoke.yaml", *arguments]) == 2
    said = capsys.readouterr()
    assert expected in said.err and "Traceback" not in said.err
    assert not list(tmp_path.rglob("[0-9a-f]*.json"))


@pytest.mark.parametrize("executor", ["ray", "serial"])
def test_paths_are_those_that_the_user_typed(tmp_path, run, executor):
    """Relative to where the command was given, whatever directory an executor starts its processes in. Also below a
    folder for temporary files that leaves no room for the names of sockets, and nothing of them is left there."""
    write_pairs(tmp_path / "pairs", 12)
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    folders = ("dataset.images=pairs/images", "dataset.masks=pairs/masks")
    code, said = run(tmp_path, RANKS, *folders, "--executor", executor, TMPDIR=str(deep))
    assert code == 0, said
    assert not list(deep.glob("sam3-bench-*")) and not (deep / "ray").exists()
