"""The comparison's script: its grid is valid, it runs on a CPU, and without a GPU it says what it would do."""

import time

import pytest
import torch

from bench.config.trial import TrialConfig, with_value
from bench.memory.energy import SHORTEST_SECONDS, Meter, Reading
from bench.memory.predicted_peak import predict_peak
from bench.records.memory import MIB, Memory
from bench.records.provenance import provenance
from bench.tools import compare_memory
from bench.tools.compare_memory import compare_on_cpu, compare_on_gpu, main, write
from bench.tools.memory_grid import GRID, QUICK, SMALL, label, planned
from bench.tools.memory_record import FILE, FULL, Comparison, Measured, Origin, load
from bench.tools.memory_worker import TIMED, Result, Steps, batch_of, timed
from bench.training.batch_loss import batch_loss
from bench.training.optimiser import make_optimiser
from models import MODELS

CPU = torch.device("cpu")


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
    small = predict_peak(TrialConfig.model_validate(SMALL))
    monkeypatch.setattr(compare_memory, "predict_peak", lambda config, generation: small)
    monkeypatch.setattr(compare_memory.sys, "executable", "false")  # a child that fails at once
    (row,) = compare_on_gpu([planned({})], None, None)
    assert row.memory is None and row.off is None and row.error and "\n" not in row.error


def test_an_interrupted_comparison_is_resumed(monkeypatch, tmp_path, capsys):
    grid = ({}, {"model.adapter.rank": 128}, {"train.unheard_of": 1})
    monkeypatch.setattr(compare_memory, "GRID", grid)
    done = []

    def stop_after_the_first(changes):
        if done:
            raise KeyboardInterrupt
        done.append(changes)
        return compare_on_cpu(changes)

    monkeypatch.setattr(compare_memory, "compare_on_cpu", stop_after_the_first)
    arguments = ["--cpu", "--resume", "--results", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    monkeypatch.setattr(compare_memory, "compare_on_cpu", lambda changes: compare_on_cpu(changes))
    assert main(arguments) == 0
    record = load(tmp_path / "memory_comparison")
    assert [row.changes for row in record.rows] == list(grid[:2]) and record.provenance.versions["torch"]
    capsys.readouterr()
    assert main([*arguments[:1], "--report", str(tmp_path / "memory_comparison")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("| configuration |") and said[3].startswith("| rank=128 |") and "cpu" in said


def test_what_a_version_does_not_know_is_skipped_loudly(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compare_memory, "QUICK", ({}, {"train.unheard_of": 1}))
    assert main(["--cpu", "--quick", "--results", str(tmp_path)]) == 0
    assert "skipped unheard_of=1: this version does not know it" in capsys.readouterr().err


def test_another_machines_result_is_not_resumed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compare_memory, "GRID", ({},))
    assert main(["--cpu", "--results", str(tmp_path)]) == 0
    path = tmp_path / "memory_comparison" / FILE
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "another"'))
    assert main(["--cpu", "--resume", "--results", str(tmp_path)]) == 2
    assert "was measured with device another" in capsys.readouterr().err


def test_the_quick_grid_names_the_speed_goals():
    known = [row for row in map(planned, QUICK) if not row.error]
    assert {"train.compile": "step"} in [row.changes for row in known] and 10 <= len(known) <= 20
    assert len({label(changes) for changes in QUICK}) == len(QUICK)


def test_tensors_at_the_peak_stand_beside_predicted_ones(tmp_path):
    prediction = predict_peak(TrialConfig.model_validate(SMALL))
    live = [(each.bytes, "here") for each in prediction.step.live] + [(100 * MIB, "models/x.py:1 forward")]
    result = Result(memory=Memory(), live=live)
    compare_memory._write_differences(planned({}), result, prediction, tmp_path)
    lines = next(tmp_path.glob("tensors_*.md")).read_text().splitlines()
    assert lines[4:] == ["| +100.00 | 100.000 | 1 | 0 | models/x.py:1 forward | – |"]


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
        "2 of 3 measured on a card, 2 predicted, too; 1 of them within 5%" in page
        and "+4.00%" in page
        and "-10.00%" in page
        and "| oom |" in page
    )
    assert all(path.stat().st_size for path in paths)
    assert (
        "predicted_allocated_bytes" in paths[0].read_text() and "measured_torch_allocated_bytes" in paths[0].read_text()
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_measured_step_is_a_training_step(tiny_with, accumulate):
    config = tiny_with({"train.accumulate": accumulate, "model.encoder.drop_path": 0.0})
    device, models = torch.device("cpu"), []
    batch = batch_of(config, device)
    for _ in range(2):
        torch.manual_seed(0)
        models.append(MODELS.build(config.model, config.transform.size, True).train())
    steps = Steps(models[0], config, device)
    steps.prepare()
    steps.take(*batch)
    optimiser = make_optimiser(models[1], config.train)
    for part in (slice(0, 4),) if accumulate == 1 else (slice(0, 2), slice(2, 4)):
        loss = batch_loss(models[1], batch[0][part], batch[1][part], config.train, config.transform)
        (loss / accumulate).backward()
    optimiser.step()
    for (name, measured), expected in zip(models[0].named_parameters(), models[1].parameters()):
        assert torch.equal(measured, expected), name


def test_fast_steps_are_timed_until_their_energy_can_be_measured(monkeypatch, tiny_with):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    steps = Steps(MODELS.build(tiny_with({}).model, tiny_with({}).transform.size, True).train(), tiny_with({}), CPU)
    steps.prepare()
    started = time.monotonic()
    meter = Meter(lambda: Reading(int(1000 * (time.monotonic() - started)), time.monotonic()))  # one watt
    seconds = timed(steps, meter)
    assert len(seconds) >= TIMED and sum(seconds) >= SHORTEST_SECONDS and not meter.unknown
    assert meter.images == len(seconds) * tiny_with({}).train.batch_size
    assert meter.joules == pytest.approx(sum(seconds), rel=0.2)


def record_of(folder, device, *rows, generation="hopper"):
    origin = Origin(**provenance(CPU, 1).model_dump()).model_copy(update={"device": device})
    Comparison(generation=generation, provenance=origin, rows=list(rows)).save(folder)
    return folder


UNKNOWN = (
    {"train.unheard_of": 1},
    {"model.adapter.placement": "last:99"},
    {"model": {"name": "nope"}},
    {"model.encoder.name.x": 1},
)


@pytest.mark.parametrize("changes", UNKNOWN)
def test_what_this_version_does_not_know_keeps_its_measurements_in_a_report(changes, tmp_path, capsys):
    memory = Memory(torch_allocated_bytes=2**30)
    row = Measured(label="a|b\nc", changes=changes, memory=memory, predicted_allocated_bytes=1, step_seconds_median=2.0)
    assert main(["--report", str(record_of(tmp_path, "a | card", row))]) == 0
    head, _, line, *_ = capsys.readouterr().out.splitlines()
    assert head.startswith("| configuration | a \\| card (torch")
    assert line.startswith("| a\\|b c | – | 1.000 | ")


def test_the_small_models_of_a_cpu_keep_their_predictions(tmp_path, capsys):
    row = Measured(label="paper's setting", memory=Memory(torch_allocated_bytes=100), predicted_allocated_bytes=101)
    assert main(["--report", str(record_of(tmp_path, "cpu", row))]) == 0
    assert "allocated: median 1.00%, worst +1.00%, of 1 rows" in capsys.readouterr().out


def test_a_wrong_record_says_what_is_wrong_and_where(tmp_path, capsys):
    path = record_of(tmp_path, "cpu", Measured(label="a")) / FILE
    text = path.read_text()
    for old, new, expected in (
        ('"schema_version": 1', '"schema_version": 2', "schema_version: should be 1 (got 2)"),
        ('"label"', '"lable"', "rows.0.label: is missing"),
        (text, "", "no JSON"),
        ("hopper", "x", "generation 'x' is not one of turing"),
    ):
        path.write_text(text.replace(old, new))
        assert main(["--report", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{path}: ") and expected in said and said.count("\n") == 1
