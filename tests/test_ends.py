"""Every wait on another process has an end: what a driver waits for is killed or stopped, and the driver ends with the
right exit code and words, leaves no process, and the same command goes on.

What happens is arranged by conditions, not by times: a trial is stopped as soon as it has kept an epoch, so it surely
runs when the blow falls.
"""

import os
import re
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from conftest import SWEEP, children_named, customise, finished, wait_for

from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.processes import client
from bench.processes.client import ForkServer
from bench.records.store import load_all
from bench.scheduling.serial import run_serially
from bench.scheduling.trial_queue import Limits, TrialQueue
from bench.system.process_tree import is_dead

LONG = "train.epochs: [30, 1]"
EARLY = ("--checkpoint-every", "0s", "--page-every", "off")
LIMIT = 60  # seconds from the blow to the end of the driver, on a busy machine
MARK = "SAM3_BENCH_DRILL"

DIES = """
import os, select, signal, socket, sys
class Dies:  # the first fork server, when somebody asks it while it imports
    def find_spec(self, name, path=None, target=None):
        if name == "bench.processes.trial_process" and not os.path.exists("killed"):
            open("killed", "w").close()
            for number in map(int, os.listdir("/proc/self/fd")):
                if number > 2 and os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                    select.select([number], [], [])
                    os.kill(os.getpid(), signal.SIGKILL)
if "bench.processes.fork_server" in sys.orig_argv:
    sys.meta_path.insert(0, Dies())
"""


class Drill:
    """A driver in a process of its own, and all that it has started."""

    def __init__(self, folder, start, axis, *arguments, **variables):
        self.results, self.again = folder / "results" / "smoke", (folder, axis, *arguments)
        self.mark, self.folders = uuid4().hex, Path(tempfile.mkdtemp(dir="/tmp"))  # short, for sockets
        variables |= {MARK: self.mark, "END_SECONDS": "1", "TMPDIR": str(self.folders)}
        self.driver = start(folder, axis, *arguments, **variables)
        self.process = psutil.Process(self.driver.pid)
        self.family = set()

    def stop_a_trial(self):
        """Waits until the trial of most epochs has kept one, stops it, and returns its process."""

        def running():
            for path in self.results.glob(".resume/*/epoch-*.safetensors"):
                yield from children_named(self.process, f"trial-{path.parent.name[:8]}")

        (trial,) = wait_for(lambda: list(running()))[:1]
        trial.suspend()
        self.family |= set(self.process.children(recursive=True))
        return trial

    def server(self):
        (server,) = children_named(self.process, "fork_server")
        return server

    def ends(self):
        """What it has said on standard output and standard error; nothing of it is left 10 s later."""
        out, err = self.driver.communicate(timeout=LIMIT)
        assert "Traceback" not in out + err, err
        wait_for(lambda: not self.alive(), seconds=10)
        assert not list(self.folders.glob("sam3-bench-*"))
        shutil.rmtree(self.folders)
        return out, err

    def alive(self):
        def is_marked(process):
            with suppress(psutil.Error):
                return process.environ().get(MARK) == self.mark

        marked = {process for process in psutil.process_iter() if is_marked(process)}
        return [process for process in marked | self.family if not is_dead(process)]

    def goes_on(self, run):
        """The same command: code 0, every record once, and nothing that was finished is touched."""
        kept = finished(self.results)
        code, said = run(*self.again)
        assert code == 0 and f"{len(kept)} done before" in said, said
        records, broken = load_all(self.results)
        assert not broken and [record.status for record in records.values()] == ["ok"] * (self.again[1].count(",") + 1)
        assert kept.items() <= finished(self.results).items() and not (self.results / ".resume").exists()


def test_a_fork_server_that_is_killed_during_its_imports_costs_nothing(here, start, run):
    drill = Drill(here, start, "train.epochs: [1]", "--executor", "serial", interpreter=True, **customise(here, DIES))
    out, err = drill.ends()
    assert drill.driver.returncode == 0 and (here / "killed").exists() and err == "", err
    how = "(was killed|cannot be reached: .*)"  # it may have died in the midst of being asked
    assert re.search(
        f"note: epochs 1 seed 0: the process that starts trials {how}; the trial is started once more", out
    ), out
    drill.goes_on(run)


@pytest.mark.parametrize("blow", ["the fork server is stopped", "the trial is stopped and the fork server killed"])
def test_a_trial_ends_without_its_fork_server(here, start, run, blow):
    drill = Drill(here, start, LONG, "--executor", "serial", *EARLY)
    trial, server = drill.stop_a_trial(), drill.server()
    if blow == "the fork server is stopped":
        server.suspend()
        trial.resume()
    else:
        server.kill()
    out, err = drill.ends()
    assert drill.driver.returncode == 0 and "[2/2]" in out and err == "", out + err
    again = "the process that starts trials was killed; the trial is started once more, from its last checkpoint"
    assert (f"note: epochs 30 seed 0: {again}" in out) == (not server.is_running() and "killed" in blow), out
    drill.goes_on(run)


def test_a_limit_ends_a_trial_that_is_stopped_like_its_fork_server(here, monkeypatch):
    monkeypatch.setattr(client, "END_SECONDS", 1.0)
    Path("smoke.yaml").write_text(SWEEP.format(axis="train.epochs: [100000]"))
    trials = expand(load_sweep(Path("smoke.yaml")))
    here.joinpath("results").mkdir()
    stopped = []

    class Stops:
        def started(self, index): ...

        def epoch(self, index, epoch):
            if not stopped:
                stopped.extend([*children_named(psutil.Process(), "trial-"), psutil.Process(server.process.pid)])
                for process in stopped:
                    process.suspend()
                queue.time_limits.limits = Limits(silence=1)

        def finished(self, index, record): ...

    queue = TrialQueue(trials, here / "results", Stops(), say=print)
    with ForkServer() as server:
        run_serially(queue, server, threads=1)
        assert len(stopped) == 2 and all(map(is_dead, stopped))
    (record,) = load_all(here / "results")[0].values()
    assert (record.status, record.error) == ("error", "no sign of life for 1 s (--stall-limit); killed")


@pytest.mark.parametrize(("name", "words"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_the_death_of_ray_is_said_and_the_same_command_goes_on(here, start, run, name, words):
    drill = Drill(here, start, LONG, "--cpus-per-trial", "1", *EARLY)
    trial = drill.stop_a_trial()
    wait_for(lambda: finished(drill.results) or os.cpu_count() == 1)  # the other runs beside it
    (victim,) = children_named(drill.process, name)
    victim.send_signal(signal.SIGKILL)
    out, err = drill.ends()
    assert drill.driver.returncode == 1 and not trial.is_running()
    goes_on = "no trials can run; finished trials and training states are kept; run the same command to continue"
    assert err == f"Ray's {words} (process {victim.pid}) was killed by SIGKILL: {goes_on}\n"
    assert "(raylet)" not in out and "(1 pending)" in (drill.results / "leaderboard.md").read_text()
    drill.goes_on(run)
