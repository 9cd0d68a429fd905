"""Processes for trials, forked from one that has imported everything."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import warm
from conftest import wait_for

from bench.processes import client, fork_server
from bench.processes.client import ForkServer, ForkedTrial, start
from bench.processes.request import Request
from bench.records import failures
from bench.records.store import load_all
from bench.records.tables import load_images
from bench.system import files
from bench.system.process_tree import is_dead
from bench.trial import run_trial


@pytest.fixture(scope="module")
def server():
    with ForkServer() as started:
        yield started


@pytest.fixture
def request_of(tmp_path):
    """``request_of(config)`` asks for a trial whose record goes to ``tmp_path``."""
    return lambda config, **more: Request(config.model_dump_json(), str(tmp_path), 1, 600.0, **more)


def record_in(folder: Path):
    records, broken = load_all(folder)
    assert not broken
    (record,) = records.values()
    return record


def processes_of(server: ForkServer) -> list[psutil.Process]:
    return [p for p in psutil.Process(server.process.pid).children() if p.name().startswith("trial-")]


def started(server: ForkServer) -> psutil.Process:
    """The process of the only trial that runs."""
    (process,) = wait_for(lambda: processes_of(server))
    return process


def test_a_forked_trial_is_the_trial_and_tells_how_it_goes_on(server, request_of, tiny_with, tmp_path):
    config = tiny_with({"train.epochs": 3})
    process = start(request_of(config, trials_at_once=2), server.address)
    told = [json.loads(line) for line in process if line.strip()]
    assert (process.exit_code, process.stderr, [epoch["epoch"] for epoch in told]) == (0, "", [1, 2, 3])
    record, here = record_in(tmp_path), run_trial(config)
    assert (record.status, record.scores, record.curve) == ("ok", here.scores, here.curve)
    assert load_images(tmp_path, [record.trial_id])[record.trial_id]["mae"] == here.image_scores["mae"]
    assert record.provenance.trials_at_once == 2


def test_trials_run_side_by_side_and_each_in_its_own_process(server, request_of, tiny_with, tmp_path):
    configs = [tiny_with({"train.epochs": 30, "seed": seed}) for seed in (0, 1)]
    runs = [start(request_of(config), server.address) for config in configs]
    wait_for(lambda: len(processes_of(server)) == 2)
    readers = [threading.Thread(target=lambda run=run: [None for _ in run]) for run in runs]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [run.exit_code for run in runs] == [0, 0] and len(load_all(tmp_path)[0]) == 2


def test_what_is_not_wanted_any_more_is_dead_when_its_lines_end(server, request_of, tiny_with, tmp_path):
    run = start(request_of(tiny_with({"train.epochs": 100_000})), server.address)
    process = started(server)
    process.suspend()  # hangs, and cannot end itself
    run.kill()
    list(run)
    assert run.exit_code == -signal.SIGKILL and not process.is_running() and not list(tmp_path.glob("*.json"))
    assert run.how_it_ended == "the process was killed by SIGKILL (often the kernel's doing, when memory runs out)"


def test_a_trial_does_not_outlive_who_asked_for_it(server, request_of, tiny_with):
    code = "import sys; from bench.processes.client import *; f = ForkedTrial(sys.argv[1], Request.from_json(sys.argv[2])); input()"
    request = request_of(tiny_with({"train.epochs": 100_000})).to_json()
    asks = subprocess.Popen([sys.executable, "-c", code, server.address, request], stdin=subprocess.PIPE)
    process = started(server)
    asks.kill()
    asks.communicate()
    wait_for(lambda: not process.is_running())


def test_what_a_trial_complains_of_and_its_exit_code_arrive(server, request_of, tiny, tmp_path):
    wrong = Request("{}", str(tmp_path), 1, 600.0)
    run = start(wrong, server.address)
    assert list(run) == ["\n"] or not list(run)
    assert run.exit_code == 1 and "ValidationError" in run.stderr
    assert run.how_it_ended.endswith("the process ended with code 1 and without a record")
    assert failures.in_a_line(run.how_it_ended).startswith(
        "the process ended with code 1 and without a record; its standard error"
    )


def test_a_server_that_was_killed_takes_its_trials_along_and_is_replaced(request_of, tiny_with, tmp_path):
    with ForkServer() as server:
        run = start(request_of(tiny_with({"train.epochs": 100_000})), server.address)
        process = started(server)
        server.process.kill()
        list(run)
        assert run.exit_code is None and run.how_it_ended == "the process that starts trials was killed"
        wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        again = start(request_of(tiny_with({"train.epochs": 1})), server.address)
        list(again)
        assert again.exit_code == 0 and record_in(tmp_path).status == "ok"


def test_none_of_its_trials_outlives_a_server_that_ends(request_of, tiny_with):
    with ForkServer() as server:
        run = start(request_of(tiny_with({"train.epochs": 100_000})), server.address)
        process = started(server)
    assert list(run) == [] or run.exit_code is None
    assert not process.is_running() and server.process.returncode == 0 and not server.folder.exists()


def test_one_that_nobody_used_ends_at_once(interpreters):
    with ForkServer() as server:
        started = psutil.Process(server.process.pid)
        assert client.ENVIRONMENT.items() <= wait_for(started.environ).items()  # empty while it is being started
    assert server.process.returncode == -signal.SIGTERM


def test_a_server_that_cannot_start_says_why(monkeypatch, request_of, tiny):
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.5)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ForkServer() as server, pytest.raises(OSError, match="the process that starts trials cannot be reached"):
        start(request_of(tiny), server.address)


def test_a_long_name_of_the_temporary_folder_does_no_harm(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with ForkServer() as server:
        assert len(server.address) < 100


def test_on_a_mac_a_trial_gets_a_fresh_interpreter(interpreters, monkeypatch, request_of, tiny_with, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import psutil, sys\nif 'bench.processes.fork_server' in sys.orig_argv:\n    sys.platform = 'darwin'\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    config = tiny_with({"train.epochs": 2})
    with ForkServer([config.model_dump_json()]) as server:
        run = start(request_of(config), server.address)
        assert wait_for_fresh(server).cmdline()[1:] == ["-m", "bench.processes.trial_process"]
        assert [json.loads(line)["epoch"] for line in run if line.strip()] == [1, 2]
    record, here = record_in(tmp_path), run_trial(config)
    assert run.exit_code == 0 and record.scores == here.scores


def test_so_does_a_trial_on_a_gpu_that_the_server_has_met(monkeypatch, request_of, tiny):
    on_cpu = request_of(tiny)
    on_gpu = dataclasses.replace(on_cpu, config=on_cpu.config.replace('"device":"cpu"', '"device":"cuda"'))
    assert fork_server._can_run_in_fork(on_cpu) and fork_server._can_run_in_fork(on_gpu)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert fork_server._can_run_in_fork(on_cpu) and not fork_server._can_run_in_fork(on_gpu)


def wait_for_fresh(server: ForkServer) -> psutil.Process:
    def found():
        with suppress(psutil.Error):  # it may just be becoming one
            return [
                p
                for p in psutil.Process(server.process.pid).children()
                if "bench.processes.trial_process" in p.cmdline()
            ]

    return wait_for(found)[0]


def test_asking_a_socket_that_is_not_there_ends(monkeypatch, request_of, tiny, tmp_path):
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(OSError, match="cannot be reached"):
        ForkedTrial(str(tmp_path / "none"), request_of(tiny))
    assert time.monotonic() - began < 5


def test_a_server_that_is_stopped_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(client, "END_SECONDS", 0.2)
    with ForkServer() as server:
        process = psutil.Process(server.process.pid)
        opened = [file.path for file in process.open_files()]
        assert str(server.folder / files.LOCK) in opened, "its folder stays while it lives"
        process.suspend()
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    assert server.process.returncode == -signal.SIGKILL and not server.folder.exists()


def test_a_trial_ends_with_who_asked_for_it_even_if_its_server_is_stopped(request_of, tiny_with, tmp_path):
    with ForkServer() as server:
        run = start(request_of(tiny_with({"train.epochs": 100_000})), server.address)
        process = started(server)
        lines = iter(run)
        next(lines)  # it runs
        server.process.send_signal(signal.SIGSTOP)
        run.connection.close()
        wait_for(lambda: is_dead(process), seconds=10)
        assert not list(tmp_path.glob("*.json")), "that nobody listens is no result"
        server.process.send_signal(signal.SIGCONT)


def test_who_asks_and_says_nothing_does_not_hold_up_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(fork_server, "PEER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as silent:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        silent.connect(str(tmp_path / "s"))
        served = fork_server._Server(listener)
        served._accept()
        assert not served.children
        served.selector.close()


def test_what_a_server_said_before_it_died_is_in_the_row(interpreters, request_of, tiny, monkeypatch, tmp_path):
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, sys, time
class Breaks:
    def find_spec(self, name, path=None, target=None):
        if name == "bench.processes.trial_process":
            while not os.path.exists({str(asked)!r}):
                time.sleep(0.01)
            raise ImportError("a library is broken")
if "bench.processes.fork_server" in sys.orig_argv:
    sys.meta_path.insert(0, Breaks())
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with ForkServer() as server:
        run = start(request_of(tiny), server.address)
        asked.touch()
        assert list(run) == [] and run.exit_code is None
    assert "a library is broken" in run.how_it_ended and run.how_it_ended.endswith(failures.SERVER_DIED)


def test_the_ranks_of_a_trial_end_with_it_even_if_they_are_stopped(request_of, tiny, monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 60 &\necho $!\nkill -STOP $!\nkill -KILL $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    told = []
    run = start(request_of(tiny, gpus=2), None, told.append)
    (rank,) = run
    assert run.exit_code == -signal.SIGKILL and told
    wait_for(lambda: not psutil.pid_exists(int(rank)) or is_dead(psutil.Process(int(rank))), seconds=10)


def test_that_nobody_listens_ends_a_trial_and_is_no_result():
    """As an exception it would be caught, and written as the trial's record."""
    code = """
import sys
from bench.processes.events import report_events
with report_events() as (report_epoch, heartbeat):
    try:
        heartbeat()
    except OSError:
        print("a record of nonsense", file=sys.stderr)
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = warm.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
