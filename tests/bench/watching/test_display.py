"""What is seen while a sweep runs: the live table, the lines of a log, the page."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard import results
from bench.records import sweep_json
from bench.records.failures import without_record
from bench.records.memory import Memory
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.report import page
from bench.training.loop import Epoch
from bench.watching import live_page
from bench.watching.display import Display, peak_memory
from bench.watching.live_page import LivePage

GIB = 2**30


def sweep_of(tiny, count, epochs=4):
    base = tiny.model_copy(update={"train": tiny.train.model_copy(update={"epochs": epochs})})
    axis = Axis.over("model.adapter.rank", {str(r): r for r in range(1, count + 1)})
    return Sweep("mine", "How narrow?", "embedded", base, (axis,), (0,))


def record(trial, status="ok"):
    ok = status == "ok"
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "Traceback\nCUDA out of memory",
        config=trial.config.model_dump(mode="json"),
        scores={"s_measure": 0.7, "mae": 0.1} if ok else None,
        val_scores={"s_measure": 0.65, "mae": 0.2} if ok else None,
        memory={"training": Memory(rss_bytes=GIB // 4)} if ok else None,
        timing=Timing(
            train_seconds=1.0, train_images_per_second=10.0, inference_images_per_second=20.0, total_seconds=2.0
        )
        if ok
        else None,
        curve=[CurvePoint(epoch=e, train_loss=1 / e, val_loss=None, lr=0.1) for e in (1, 2, 3, 4)] if ok else [],
    )


def terminal(width=110, height=24):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def shown(display, console):
    with console.capture() as capture:
        console.print(display.table())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_process_without_a_record_is_shown_with_how_it_ended_and_what_it_said(tiny):
    (trial,) = expand(sweep_of(tiny, 1))
    how = "the process ended with code 1 and without a record"
    said = "Traceback\n  File memory.py\nValueError: Expected a torch.device with a specified index\n"
    console = Console(file=io.StringIO(), width=300)
    with Display([trial], console) as display:
        died = record(trial, "error").model_copy(update={"error": without_record(said, how)})
        display.finished(0, died)
    end = "Traceback / File memory.py / ValueError: Expected a torch.device with a specified index"
    assert f"error: {how}; its standard error ended with: {end}" in console.file.getvalue()
    board = results.Results(sweep_of(tiny, 1), [trial], {trial.trial_id: died}, {}, {}).board()
    (row,) = board.tables[0].rows
    assert row.errors == (f"{how}; its standard error ended with: {end}",)


def test_the_live_table_shows_running_and_ended_trials(tiny):
    trials = expand(sweep_of(tiny, 6))
    console = terminal()
    display = Display(trials, console)
    for index in (0, 1, 2):
        display.started(index)
    display.epoch(0, Epoch(1, 0.9, 0.8, 0.1))
    display.epoch(0, Epoch(2, 0.5, None, 0.1))  # the validation loss of the last look stays
    display.finished(1, record(trials[1]))
    display.finished(2, record(trials[2], "oom"))
    lines = shown(display, console)
    assert lines[0].split() == ["trial", "state", "epoch", "loss", "validation", "memory", "time", "left"]
    assert lines[1].split() == ["rank", "2", "seed", "0", "ok", "4/4", "0.250", "S", "0.650", "0.25", "GiB"]
    assert lines[2].split()[:6] == ["rank", "3", "seed", "0", "oom", "0/4"]
    running = lines[3].split()
    assert running[:9] == ["rank", "1", "seed", "0", "running", "2/4", "0.500", "loss", "0.800"] and running[9] == "–"
    assert lines[-1].startswith("2 of 6 trials ended (1 ok, 1 oom), 1 running, 3 waiting; 0 s so far, ETA 0 s")


def test_the_table_fits_the_terminal_whatever_runs(tiny):
    trials = expand(sweep_of(tiny, 40))
    for width, height in ((60, 12), (80, 24), (200, 50)):
        console = terminal(width, height)
        display = Display(trials, console)
        for index in range(30):
            display.started(index)
            display.epoch(index, Epoch(1, 0.9, 0.8, 0.1))
        for index in range(12):
            display.finished(index, record(trials[index]))
        lines = shown(display, console)
        assert len(lines) <= height and max(map(len, lines)) <= width
        assert any(line.startswith("and ") for line in lines) == (height < 25)
        assert "12 of 40 trials ended (12 ok), 18 running, 10 waiting" in " ".join(lines)


def test_a_terminal_keeps_what_went_wrong_and_the_last_table(tiny):
    trials = expand(sweep_of(tiny, 2))
    console = terminal()
    with Display(trials, console) as display:
        for index, status in enumerate(("ok", "error")):
            display.started(index)
            display.finished(index, record(trials[index], status))
    said = console.file.getvalue()
    assert "[2/2] rank 2 seed 0: error: CUDA out of memory" in said and "2 of 2 trials ended (1 error, 1 ok)" in said


def test_a_log_has_one_line_a_trial_and_no_control_codes(tiny):
    trials = expand(sweep_of(tiny, 3))
    console = Console(file=io.StringIO(), width=160)
    with Display(trials, console) as display:
        for index, trial in enumerate(trials):
            display.started(index)
            for epoch in (1, 2, 3, 4):
                display.epoch(index, Epoch(epoch, 0.5, None, 0.1))
            display.finished(index, record(trial))
    lines = console.file.getvalue().splitlines()
    assert [line[:16] for line in lines] == ["[1/3] rank 1 see", "[2/3] rank 2 see", "[3/3] rank 3 see"]
    assert "\x1b" not in console.file.getvalue() and "ok  S 0.700  MAE 0.100  2 s" in lines[0]


@pytest.mark.parametrize("forced", [True, False])
def test_quiet_says_nothing(tiny, forced):
    trials = expand(sweep_of(tiny, 1))
    console = Console(file=io.StringIO(), quiet=True, force_terminal=forced)
    with Display(trials, console) as display:
        display.started(0)
        display.finished(0, record(trials[0], "error"))
    assert console.file.getvalue() == ""


def test_memory_is_the_first_measure_that_was_taken_or_a_dash(tiny):
    (trial,) = expand(sweep_of(tiny, 1))
    assert peak_memory(record(trial, "oom")) == "–"
    assert peak_memory(record(trial)) == "0.25 GiB"
    both = Memory(torch_allocated_bytes=GIB, nvml_device_bytes=3 * GIB)
    assert peak_memory(record(trial).model_copy(update={"memory": {"training": both}})) == "3.00 GiB"


# --- the page ---------------------------------------------------------------------------------------------------------


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def built(monkeypatch):
    """States of the trials in every page that was built, instead of the page's text."""
    seen = []

    def html(found, board):
        seen.append({i: s for t in board.tables for row in t.rows for i, s in zip(row.trial_ids, row.statuses)})
        return "page"

    monkeypatch.setattr(page, "html", html)
    monkeypatch.setattr(live_page, "POLL_SECONDS", 0.01)
    return seen


def test_the_page_is_there_at_the_start_and_follows_the_trials(tiny, tmp_path, built):
    sweep = sweep_of(tiny, 3)
    trials = expand(sweep)
    said = []
    with LivePage(tmp_path, 0.01, said.append) as live:
        assert not built and not (tmp_path / page.NAME).exists()  # nobody knows yet what the sweep is
        sweep_json.of(sweep, trials).save(tmp_path)
        watcher = live.of(trials)
        assert wait_for((tmp_path / page.NAME).exists) and (tmp_path / page.NAME).read_text() == "page"
        assert set(built[-1].values()) == {"pending"}
        watcher.started(0)
        watcher.started(1)
        assert wait_for(lambda: sorted(built[-1].values()) == ["pending", "running", "running"])
        done = record(trials[0])
        done.save(tmp_path)
        watcher.finished(0, done)
        assert wait_for(lambda: built[-1][trials[0].trial_id] == "ok")
        count = len(built)
        time.sleep(0.1)
        assert len(built) == count  # nothing has changed
    assert said == []
    assert results.load(tmp_path)[0].board().tables[0].rows[1].statuses == ("pending",)  # a rebuild knows of none


def test_a_page_that_fails_is_said_once_and_ends_nothing(tiny, tmp_path, monkeypatch):
    def html(found, board):
        raise ValueError("no room")

    monkeypatch.setattr(page, "html", html)
    monkeypatch.setattr(live_page, "POLL_SECONDS", 0.01)
    sweep, said, tries = sweep_of(tiny, 2), [], []
    trials = expand(sweep)
    sweep_json.of(sweep, trials).save(tmp_path)
    with LivePage(tmp_path, 0.01, said.append) as live:
        monkeypatch.setattr(results, "load", lambda folder, load=results.load: tries.append(1) or load(folder))
        watcher = live.of(trials)
        for index in (0, 1):
            before = len(tries)
            watcher.started(index)
            assert wait_for(lambda: len(tries) > before)
    assert said == ["note: the page could not be rebuilt (ValueError: no room); the sweep goes on"]


def test_rebuilding_takes_a_bounded_share_of_the_time(tiny, tmp_path, built, monkeypatch):
    slow = page.html
    monkeypatch.setattr(page, "html", lambda *what: time.sleep(0.1) or slow(*what))
    sweep = sweep_of(tiny, 2)
    trials = expand(sweep)
    sweep_json.of(sweep, trials).save(tmp_path)
    with LivePage(tmp_path, 0.01, print) as live:
        watcher = live.of(trials)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            watcher.started(0)
            time.sleep(0.01)
    assert len(built) == 1  # the second would come after two seconds


def test_off_is_off(tiny, tmp_path, built):
    sweep = sweep_of(tiny, 1)
    sweep_json.of(sweep, expand(sweep)).save(tmp_path)
    with LivePage(tmp_path, None, print) as live:
        live.of(expand(sweep)).started(0)
        time.sleep(0.1)
    assert built == [] and not Path(tmp_path / page.NAME).exists()


def test_on_the_way_out_no_page_is_waited_for_and_none_is_written_any_more(tiny, tmp_path, monkeypatch):
    begun, goes_on, made = threading.Event(), threading.Event(), threading.Event()

    def html(found, board):
        begun.set()
        assert goes_on.wait(60)
        made.set()
        return "page"

    monkeypatch.setattr(page, "html", html)
    monkeypatch.setattr(live_page, "POLL_SECONDS", 0.01)
    sweep = sweep_of(tiny, 1)
    sweep_json.of(sweep, expand(sweep)).save(tmp_path)
    with pytest.raises(KeyboardInterrupt), LivePage(tmp_path, 0.01, print) as live:
        live.of(expand(sweep))
        assert begun.wait(60)
        raise KeyboardInterrupt
    goes_on.set()
    live._thread.join(60)
    assert made.is_set() and not (tmp_path / page.NAME).exists()
