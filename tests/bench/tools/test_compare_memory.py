"""The comparison's script: its grid is valid, it runs on a CPU, and without a GPU it says what it would do."""

import torch

from bench.config.trial import TrialConfig, with_value
from bench.memory.predicted_peak import predict_peak
from bench.records.memory import Memory
from bench.tools import compare_memory
from bench.tools.compare_memory import FULL, GRID, Measured, compare_on_cpu, label, main, write


def test_the_grid_is_large_enough_and_valid():
    configs = [with_value(TrialConfig.model_validate(FULL), changes) for changes in GRID]
    assert len(GRID) >= 20 and len({config.trial_id for config in configs}) == len(GRID)
    assert len({label(changes) for changes in GRID}) == len(GRID)


def test_without_a_gpu_it_says_what_it_would_write(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"would measure {len(GRID)} configurations" in said and "comparison.md" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_without_upstreams_code_is_one_line(capsys, tmp_path):
    assert main(["--cpu", "--results", str(tmp_path), "--upstream", str(tmp_path)]) == 2
    assert "has no SAM3UNet.py" in capsys.readouterr().err


def test_on_a_cpu_prediction_and_real_allocations_agree():
    for changes in ({}, GRID[-1], GRID[-2]):
        assert abs(compare_on_cpu(changes).off) < 0.01, changes


def test_the_child_says_what_went_wrong(monkeypatch):
    small = predict_peak(TrialConfig.model_validate(compare_memory.SMALL))
    monkeypatch.setattr(compare_memory, "predict_peak", lambda config, generation: small)
    monkeypatch.setattr(compare_memory.sys, "executable", "false")  # a child that fails at once
    row = compare_memory.compare_on_gpu({})
    assert row.memory is None and row.off is None and row.error and "\n" not in row.error


def test_table_and_figure(tmp_path):
    rows = [
        Measured(
            label="a",
            predicted_allocated_bytes=104,
            predicted_reserved_bytes=1,
            predicted_device_bytes=1,
            memory=Memory(torch_allocated_bytes=100),
        ),
        Measured(
            label="b",
            predicted_allocated_bytes=90,
            predicted_reserved_bytes=1,
            predicted_device_bytes=1,
            memory=Memory(torch_allocated_bytes=100),
        ),
        Measured(
            label="c", predicted_allocated_bytes=90, predicted_reserved_bytes=1, predicted_device_bytes=1, error="oom"
        ),
    ]
    paths = [tmp_path / f"comparison.{kind}" for kind in ("csv", "md", "png", "svg")]
    write(rows, "a card", paths)
    page = paths[1].read_text()
    assert (
        "2 of 3 measured on a card; 1 within 5%" in page
        and "+4.00%" in page
        and "-10.00%" in page
        and "| oom |" in page
    )
    assert all(path.stat().st_size for path in paths)
    assert (
        "predicted_allocated_bytes" in paths[0].read_text() and "measured_torch_allocated_bytes" in paths[0].read_text()
    )
