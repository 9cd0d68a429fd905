"""The trials of a driver: each handed out once whoever asks, watched by a clock of our own, settled as one record."""

import errno
import time
from collections import Counter

import pytest

from bench.config.expand import Trial
from bench.records.record import TrialRecord
from bench.records.store import adopt, load, save_or_keep, unsaved
from bench.scheduling import trial_queue
from bench.scheduling.trial_queue import Limits, TrialQueue
from bench.training.training_state import place


class Seen:
    """A ``Watcher`` that notes what it is told."""

    def __init__(self):
        self.records = {}

    def started(self, index):
        pass

    def epoch(self, index, epoch, loss):
        pass

    def finished(self, index, record):
        assert index not in self.records, "one final row each"
        self.records[index] = record


@pytest.fixture
def trials(tiny):
    return [Trial(tiny.model_copy(update={"seed": seed}), ("point",)) for seed in range(3)]


def driver(trials, folder, **options):
    said = []
    queue = TrialQueue(trials, folder, Seen(), say=said.append, **options)
    queue._next_attempt = -1.0
    return queue, said


def leave(trial, folder, status="ok", error=""):
    config = trial.config.model_dump(mode="json")
    TrialRecord(trial_id=trial.trial_id, status=status, error=error, config=config).save(folder)


@pytest.fixture
def clock(monkeypatch):
    """``clock[0]`` is what the queue takes the monotonic clock to say."""
    now = [1000.0]
    monkeypatch.setattr(trial_queue.time, "monotonic", lambda: now[0])
    return now


def test_each_trial_is_handed_out_once_and_ends_as_one_record(trials, tmp_path):
    queue, _ = driver(trials, tmp_path)
    for index in range(3):
        assert queue.take() == index
        queue.start(index)
        leave(trials[index], tmp_path)
        queue.finish(index, "unused")
    assert queue.exhausted and queue.take() is None
    assert {r.status for r in queue.watcher.records.values()} == {"ok"} and len(queue.records) == 3
    assert not (tmp_path / ".resume").exists()


def test_two_drivers_share_the_work_and_both_see_the_end_of_all(trials, tmp_path, clock):
    (one, said), (two, said_two) = driver(trials, tmp_path), driver(trials, tmp_path)
    assert (one.take(), two.take()) == (0, 1)
    one.start(0)
    two.start(1)
    assert "seed 0 is being run by process" in said_two[0] and not said
    leave(trials[0], tmp_path)
    one.finish(0, "")
    assert one.take() == 2 and "seed 1 is being run by process" in said[0]
    one.start(2)
    clock[0] += 5
    assert two.take() is None and not two.exhausted and two.watcher.records.keys() == {0}, "it waits for the last"
    leave(trials[1], tmp_path, "error", "boom")
    two.finish(1, "")
    leave(trials[2], tmp_path)
    one.finish(2, "")
    clock[0] += 5
    assert one.take() is None and one.exhausted, "the other's new error is a result of this round too"
    assert two.take() is None and two.exhausted
    assert {i: r.status for i, r in one.watcher.records.items()} == {0: "ok", 1: "error", 2: "ok"}
    assert one.watcher.records.keys() == two.watcher.records.keys() == {0, 1, 2}


def test_a_trial_that_its_driver_gave_up_is_taken_over(trials, tmp_path, clock):
    (one, _), (two, _) = driver(trials[:1], tmp_path), driver(trials[:1], tmp_path)
    assert one.take() == 0 and two.take() is None
    one.release_locks()  # stopped
    clock[0] += 5
    assert two.take() == 0


def test_an_old_error_is_run_again_and_cannot_hide_a_new_death(trials, tmp_path):
    leave(trials[0], tmp_path, "error", "of yesterday")
    queue, _ = driver(trials[:1], tmp_path)
    assert queue.take() == 0
    queue.start(0)
    queue.finish(0, "killed")
    assert load(tmp_path / f"{trials[0].trial_id}.json").error == "killed"


def test_once_asked_to_stop_nothing_more_starts_and_what_runs_is_named(trials, tmp_path):
    asked = [False]
    queue, said = driver(trials, tmp_path, stop_requested=lambda: asked[0])
    queue.start(queue.take())
    asked[0] = True
    assert queue.take() is None and queue.exhausted
    assert said == ["stopping: no more trials start. Still running to their end: point seed 0. Ctrl-C again stops them"]
    queue.tick()
    assert len(said) == 1


def run_for(queue, clock, seconds, alive=()):
    for _ in range(seconds):
        clock[0] += 1
        queue.tick()
        for index in alive:
            queue.heartbeat(index)


def test_a_trial_that_takes_too_long_is_ended_and_says_why(trials, tmp_path, clock):
    queue, _ = driver(trials, tmp_path, limits=Limits(trial=60))
    queue.start(queue.take())
    run_for(queue, clock, 60, alive=[0])
    assert queue.kill_reason(0) is None
    run_for(queue, clock, 1, alive=[0])
    assert queue.kill_reason(0) == "timed out after 1 min 0 s (--trial-time-limit)"
    queue.finish(0, "the process was killed by SIGKILL")
    assert queue.watcher.records[0].status == "error"
    assert queue.watcher.records[0].error == "timed out after 1 min 0 s (--trial-time-limit)"
    assert queue.take() == 1, "the sweep goes on"


def test_a_silent_trial_is_ended_unless_it_waits_for_its_card(trials, tmp_path, clock):
    memory = trials[1].config.memory.model_copy(update={"foreign_process": "wait", "wait_minutes": 2})
    trials[1] = Trial(trials[1].config.model_copy(update={"memory": memory}), ("point",))
    queue, _ = driver(trials, tmp_path, limits=Limits(silence=60))
    for _ in range(3):
        queue.start(queue.take())
    run_for(queue, clock, 100, alive=[2])
    assert [queue.kill_reason(i) is None for i in range(3)] == [False, True, True]
    assert queue.kill_reason(0) == "no sign of life for 1 min 0 s (--stall-limit); killed"
    run_for(queue, clock, 81)
    assert queue.kill_reason(1) == "no sign of life for 3 min 0 s (--stall-limit); killed" and queue.kill_reason(2)


def test_a_driver_that_was_stopped_for_an_hour_does_not_blame_its_trials(trials, tmp_path, clock, monkeypatch):
    queue, _ = driver(trials, tmp_path, limits=Limits(trial=1800, silence=60))
    queue.start(queue.take())
    clock[0] += 3600
    monkeypatch.setattr(time, "time", lambda: -1e9)  # and the clock on the wall has no say at all
    queue.tick()
    assert queue.kill_reason(0) is None


def test_checkpoints_go_when_there_is_a_result_and_stay_for_an_error(trials, tmp_path):
    queue, _ = driver(trials[:2], tmp_path)
    for index, status in enumerate(("diverged", "error")):
        folder = place(tmp_path, trials[index].trial_id)
        folder.mkdir(parents=True)
        (folder / "epoch-0001.safetensors").write_bytes(b"x")
        queue.start(queue.take())
        leave(trials[index], tmp_path, status, "why")
        queue.finish(index, "")
    assert [place(tmp_path, t.trial_id).exists() for t in trials[:2]] == [False, True]


def test_a_record_that_cannot_be_read_is_set_aside_and_its_trial_is_an_error(trials, tmp_path):
    queue, _ = driver(trials[:1], tmp_path)
    queue.start(queue.take())
    path = tmp_path / f"{trials[0].trial_id}.json"
    path.write_text('{"status": "ok"')
    queue.finish(0, "it ended")
    assert load(path).status == "error" and load(path).error.startswith("it ended\nits record cannot be read")
    assert path.with_name(f"{path.name}.corrupt-1").read_text() == '{"status": "ok"'


def test_a_record_of_another_trial_is_not_taken_for_the_result_of_another_driver(trials, tmp_path):
    path = tmp_path / f"{trials[0].trial_id}.json"
    leave(trials[1], tmp_path, "oom", "why")
    path.with_stem(trials[1].trial_id).rename(path)
    queue, _ = driver(trials[:1], tmp_path)
    assert queue.take() == 0 and not path.exists(), "else the trial is neither run nor recorded"


@pytest.fixture
def full(monkeypatch, tmp_path):
    """``full(folder)`` makes the disk below a folder full; nothing else of the cache is touched."""
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    plain = TrialRecord.save

    def begin(*folders):
        def save(self, folder):
            if folder in folders:
                raise OSError(errno.ENOSPC, "No space left on device")
            plain(self, folder)

        monkeypatch.setattr(TrialRecord, "save", save)
        return lambda: monkeypatch.setattr(TrialRecord, "save", plain)

    return begin


def test_a_full_disk_loses_no_result_and_the_next_run_takes_it_over(trials, tmp_path, full):
    folder = tmp_path / "results"
    folder.mkdir()
    make_room = full(folder)
    queue, _ = driver(trials[:2], folder)
    for index, status in enumerate(("ok", "error")):
        queue.start(queue.take())
        record = TrialRecord(
            trial_id=trials[index].trial_id, status=status, error="died" * (status == "error"), config={}
        )
        if status == "ok":
            save_or_keep(record, folder)
        else:
            with pytest.raises(OSError, match="No space"):
                save_or_keep(record, folder)
        queue.finish(index, "it died")
    kept = unsaved() / f"{trials[0].trial_id}.json"
    assert [r.status for r in queue.records.values()] == ["ok", "error"] and kept.exists()
    assert queue.problems == [
        f"point seed 0: {folder} took no record; it is kept as {kept}",
        "point seed 1: its error cannot be written: [Errno 28] No space left on device",
    ]
    make_room()
    assert adopt([t.trial_id for t in trials], folder) == [kept]
    assert load(folder / kept.name).status == "ok" and not kept.exists()


def test_where_nothing_at_all_can_be_written_the_driver_still_ends_with_its_rows(trials, tmp_path, full):
    folder = tmp_path / "results"
    folder.mkdir()
    full(folder, unsaved())
    queue, _ = driver(trials[:1], folder)
    queue.start(queue.take())
    with pytest.raises(OSError, match="No space"):
        save_or_keep(TrialRecord(trial_id=trials[0].trial_id, status="ok", config={}), folder)
    queue.finish(0, "No space left on device")
    assert Counter(r.status for r in queue.watcher.records.values()) == {"error": 1} and len(queue.problems) == 1


def test_without_locks_the_driver_goes_on_and_warns(trials, tmp_path, monkeypatch):
    def none(path):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(trial_queue.ProcessLock, "acquire", none)
    queue, said = driver(trials, tmp_path)
    assert [queue.take() for _ in range(3)] == [0, 1, 2]
    assert len(said) == 1 and "do not run two drivers on it" in said[0]


def test_a_trial_that_was_lost_is_handed_out_once_more_and_no_third_time(trials, tmp_path):
    queue, said = driver(trials[:1], tmp_path)
    queue.start(queue.take())
    assert queue.retry_once(0, "what it said\nthe process that starts trials was killed\n") and not queue.exhausted
    again = "the process that starts trials was killed; the trial is started once more, from its last checkpoint"
    assert said == [f"note: point seed 0: {again}"]
    assert queue.take() == 0
    queue.start(0)
    assert not queue.retry_once(0, "again") and queue.exhausted
    queue.finish(0, "lost twice")
    assert queue.watcher.records[0].error == "lost twice" and not (tmp_path / ".resume").exists()


@pytest.mark.parametrize("why", ["it has its record", "its record is kept elsewhere", "it was overdue"])
def test_a_trial_that_has_ended_is_not_run_again_because_its_server_died(trials, tmp_path, monkeypatch, clock, why):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    queue, said = driver(trials[:1], tmp_path, limits=Limits(trial=60))
    queue.start(queue.take())
    if why == "it was overdue":
        run_for(queue, clock, 61, alive=[0])
        assert queue.kill_reason(0)
    else:
        folder = tmp_path if why == "it has its record" else unsaved()
        folder.mkdir(parents=True, exist_ok=True)
        leave(trials[0], folder)
    assert not queue.retry_once(0, "the process that starts trials was killed") and not said
    queue.finish(0, "")
    assert queue.watcher.records[0].status == ("error" if why == "it was overdue" else "ok")
