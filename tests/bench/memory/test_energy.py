"""Energy of a card per image, from a counter that is simulated."""

from dataclasses import replace

import psutil
import pytest
from fake_cuda import CardInMemory, FakeCuda
from fake_nvml import FakeNvml
from synthetic import synthetic

from bench.leaderboard.columns import columns
from bench.leaderboard.rows import quantities
from bench.leaderboard.select import select
from bench.memory import nvml
from bench.memory.energy import Meter, Reading, busy_share, energy_of
from bench.memory.measure import MemoryMonitor
from bench.memory.sampler import Sampler
from bench.records.energy import Energy
from bench.records.memory import Memory
from bench.records.record import TrialRecord
from bench.report.page.quantities import quantities_of
from bench.trial import run_trial

ALONE = {"training": Memory(), "evaluation": Memory()}


def meter(*readings, images=10):
    """One that has measured a window between each two (millijoules, seconds)."""
    script = iter([Reading(*reading) for reading in readings])
    measured = Meter(lambda: next(script))
    for _ in range(len(readings) // 2):
        measured.start()
        measured.stop(images)
    return measured


GOOD = [(1_000, 0.0), (401_000, 2.0)]


def test_joules_per_image_and_idle_power():
    idle, train = meter((0, 0.0), (140_000, 2.0)), meter(*GOOD, (500_000, 5.0), (700_000, 6.5))
    energy = energy_of(idle, train, meter(*GOOD, images=100), ALONE)
    assert (energy.train_joules, energy.train_seconds, energy.train_joules_per_image) == (600, 3.5, 30)
    assert (energy.inference_joules, energy.inference_joules_per_image, energy.idle_watts) == (400, 4, 70)
    assert energy.unknown == {}


def test_a_window_below_a_second_does_not_count_and_neither_do_its_images():
    energy = energy_of(meter(*GOOD), meter(*GOOD, (500_000, 5.0), (900_000, 5.9)), meter((0, 0), (9, 0.5)), ALONE)
    assert (energy.train_joules, energy.train_joules_per_image) == (400, 40)
    assert energy.inference_joules is energy.inference_joules_per_image is None
    assert "1 s" in energy.unknown["inference"]


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([(None, 0.0, "Not Supported"), (None, 2.0, "Not Supported")], "NVML says Not Supported"),
        ([(5_000, 0.0), (None, 2.0, "GPU is lost")], "NVML says GPU is lost"),
        ([(5_000, 0.0), (100, 2.0)], "went back"),
        ([(5_000, 0.0), (5_000, 2.0)], "did not move"),
        ([*GOOD, (5_000, 3.0), (100, 5.0)], "went back"),
    ],
)
def test_what_cannot_be_measured_is_none_with_the_reason(readings, reason):
    energy = energy_of(meter(*GOOD), meter(*readings), meter(*GOOD), ALONE)
    assert energy.train_joules is energy.train_joules_per_image is energy.train_seconds is None
    assert reason in energy.unknown["train"] and list(energy.unknown) == ["train"]


@pytest.mark.parametrize(
    ("others", "gpus", "reason"),
    [(["job77 (PID 77, 3 MiB)"], 1, "job77"), (None, 1, "did not show"), ([], 2, "2 cards")],
)
def test_energy_of_others_is_not_the_trials(others, gpus, reason):
    memory = {"training": Memory(), "evaluation": Memory(foreign_processes=others)}
    energy = energy_of(meter(*GOOD), None, meter(*GOOD), memory, gpus)
    assert energy.inference_joules is None and reason in energy.unknown["inference"]
    assert energy.idle_watts == 200 and energy.train_joules is None and "train" not in energy.unknown


def test_idle_power_is_unknown_where_another_process_is_on_the_card():
    memory = {"training": Memory(foreign_processes=["job77 (PID 77, 3 MiB)"]), "evaluation": Memory()}
    energy = energy_of(meter(*GOOD), meter(*GOOD), meter(*GOOD), memory)
    assert energy.idle_watts is None and "job77" in energy.unknown["idle"]


def test_the_sampler_reads_the_counter_of_the_card_that_it_watches(monkeypatch):
    fake = FakeNvml({"GPU-a": [1], "GPU-b": [2], "GPU-c": [3]}, energy={"GPU-a": [7], "GPU-b": [100, 250]})
    monkeypatch.setattr(nvml, "pynvml", fake)
    sampler = Sampler(psutil.Process().pid, clock=lambda: 4.0)
    assert sampler.answer("counters")["millijoules"] is None
    sampler.answer("watch GPU-b")
    rest = {"seconds": 4.0, "busy_percent": 0, "busy_readings": 0}
    expected = [{"millijoules": value, "problem": "", **rest} for value in (100, 250)]
    assert [sampler.answer("counters"), sampler.answer("counters")] == expected
    sampler.answer("watch GPU-c")
    assert sampler.answer("counters") == {"millijoules": None, "problem": "Not Supported", **rest}


def test_the_sampler_reads_utilisation_at_every_tenth_sample(monkeypatch):
    fake = FakeNvml({"GPU-a": [1], "GPU-b": [2]}, busy={"GPU-a": [90, 60, 99]})
    monkeypatch.setattr(nvml, "pynvml", fake)
    for uuid, expected in (("GPU-a", (150, 2)), ("GPU-b", (0, 0))):
        sampler = Sampler(psutil.Process().pid)
        sampler.answer(f"watch {uuid}")
        sampler.answer("reset")
        for _ in range(25):
            sampler.sample()
        answer = sampler.answer("counters")
        assert (answer["busy_percent"], answer["busy_readings"]) == expected


@pytest.mark.parametrize("garbage", [None, "N/A", -1, 255])
def test_an_answer_that_is_no_number_is_unknown_and_does_not_end_the_sampler(monkeypatch, garbage):
    fake = FakeNvml({"GPU-a": [garbage]}, energy={"GPU-a": [garbage]}, busy={"GPU-a": [garbage]})
    monkeypatch.setattr(nvml, "pynvml", fake)
    sampler = Sampler(psutil.Process().pid)
    sampler.answer("watch GPU-a")
    sampler.answer("reset")
    for _ in range(25):
        sampler.sample()
    counters, peaks = sampler.answer("counters"), sampler.answer("peaks")
    assert (counters["busy_percent"], counters["busy_readings"]) == (0, 0)
    if garbage != 255:  # a possible number of bytes and of millijoules
        assert counters["millijoules"] is None and "is no number" in counters["problem"]
        assert peaks["nvml_device_bytes"] is None and "is no number" in peaks["denied"]["memory"]


def test_the_busy_share_is_the_mean_of_the_readings_within_the_windows():
    readings = [(0, 0.0, "", 500, 5), (0, 2.0, "", 680, 7), (0, 3.0, "", 780, 8), (0, 3.5, "", 790, 9)]
    measured = meter(*readings)  # the second window is too short
    assert busy_share(measured, Memory()) == pytest.approx(0.9)
    assert busy_share(measured, Memory(foreign_processes=["job77 (PID 77, 3 MiB)"])) is None
    refused = meter((None, 0.0, "Not Supported", 0, 4), (None, 2.0, "Not Supported", 80, 6))
    assert busy_share(refused, Memory()) == pytest.approx(0.4)  # the counter of energy is another matter
    assert busy_share(meter(*GOOD), Memory()) is None and busy_share(None, Memory()) is None


def test_a_cpu_has_no_energy_and_old_records_have_none(tiny):
    record = run_trial(tiny)
    assert record.status == "ok" and record.energy is None and record.timing.train_busy_share is None
    old = record.model_dump(mode="json")
    del old["energy"]
    del old["timing"]["train_busy_share"]
    assert TrialRecord.model_validate(old).energy is None


def test_a_trial_on_a_card_measures_its_training_steps_and_its_predictions(monkeypatch, tiny_with):
    """The counter rises by 8 J and the clock by 2 s between two readings, of which two lie around each part."""
    FakeCuda(monkeypatch)
    times = iter(range(100))

    def counters(monitor):
        number = next(times)
        return Reading(8000 * number, 2.0 * number, busy_percent=150 * number, busy_readings=2 * number)

    monkeypatch.setattr(MemoryMonitor, "counters", counters)
    monkeypatch.setattr("bench.memory.energy._not_alone", lambda memory, gpus: "")  # there is no NVML here
    with CardInMemory():
        record = run_trial(tiny_with({"device": "cuda", "memory.foreign_process": "note", "train.epochs": 2}))
    assert record.status == "ok", record.error
    energy = record.energy
    assert (energy.train_joules, energy.train_seconds, energy.train_joules_per_image) == (16, 4, 1)
    assert energy.inference_joules_per_image == pytest.approx(8 / 3) and energy.idle_watts == 4
    assert next(times) == 8, "one window each for idling, two epochs and the test set"
    assert quantities(record)["energy.train_joules_per_image"] == 1
    assert record.timing.train_busy_share == record.timing.inference_busy_share == 0.75
    assert TrialRecord.model_validate_json(record.model_dump_json()).energy == energy


def test_tables_the_page_and_conditions_have_energy_where_it_is_known():
    without = synthetic(rows=3, seeds=(0,))
    board = without.board()
    assert "J/train img" not in [column.title for column in columns(board, board.tables[0])]
    records = {}
    for joules, (trial_id, record) in enumerate(without.records.items(), 3):
        energy = Energy(train_joules_per_image=joules + 0.25, unknown={"inference": "short"})
        records[trial_id] = record.model_copy(update={"energy": energy})
    results = replace(without, records=records)
    board = results.board()
    found = {column.title: column.text(board.tables[0].rows[0]) for column in columns(board, board.tables[0])}
    assert found["J/train img"] == "3.25" and "J/infer img" not in found
    (shown,) = [quantity for quantity in quantities_of(board) if quantity.key.startswith("energy.")]
    assert (shown.title, shown.better, shown.shown) == ("J/train img", "lower", True)
    chosen = select(results, ["energy.train_joules_per_image < 5"], "-energy.train_joules_per_image")
    assert [records[trial.trial_id].energy.train_joules_per_image for trial in chosen.trials] == [4.25, 3.25]
