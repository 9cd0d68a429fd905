"""Whatever becomes of a command's output, and whoever stops it: its exit code keeps its meaning, and it says one line."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import warm
from conftest import RANKS, SWEEP, children_named, customise, finished, wait_for

import bench
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.trial import run_trial

COMMANDS = (
    "run",
    "report/__main__",
    "plan",
    "score",
    "data",
    "predict",
    "export",
    "tools/compare_memory",
    "tools/no_effect",
    "tools/compare_speed",
    "tools/pretrain_tiny",
)
SAYS = """
from bench.system import command
command.begin()
import sys
from rich.console import Console
def main(arguments):
    console = Console(file=sys.stdout)
    for number in range(3):
        console.print(f"line {number} \\u2248")
        print("and by print")
    print("an error", file=sys.stderr)
    return 3
sys.exit(command.run(main))
"""
STOPPED = """
from bench.system import command
command.begin()
import os, signal, sys, time
{before}
def main(arguments):
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # an impatient one
        os.kill(os.getpid(), signal.SIGINT)
        print("tidied up")
sys.exit(command.run(main))
"""


def spoken(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, closed=(), **variables):
    """Exit code, standard output and standard error of a program, with these descriptors closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env={**os.environ, **variables},
        preexec_fn=lambda: [os.close(number) for number in closed],
    )
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def ended_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    ("stdout", "closed", "why"),
    [
        (lambda: os.open("/dev/full", os.O_WRONLY), (), "No space left on device"),
        (ended_pipe, (), "Broken pipe"),
        (lambda: subprocess.PIPE, (1,), "it is closed"),
    ],
)
def test_output_that_nobody_takes_is_said_once_and_ends_nothing(stdout, closed, why):
    code, _, err = spoken(SAYS, stdout(), closed=closed)
    assert code == 3
    assert err == f"note: standard output cannot be written ({why}); the command goes on without it\nan error\n"


@pytest.mark.parametrize(
    ("stderr", "closed"), [(lambda: os.open("/dev/full", os.O_WRONLY), ()), (None, (2,)), (None, (1, 2))]
)
def test_errors_that_nobody_takes_end_nothing_either(stderr, closed):
    code, out, _ = spoken(SAYS, stderr=stderr() if stderr else subprocess.PIPE, closed=closed)
    assert code == 3 and out.count("and by print") == (0 if 1 in closed else 3) and "an error" not in out


def test_what_the_encoding_lacks_is_a_question_mark():
    code, out, err = spoken(SAYS, PYTHONIOENCODING="ascii")
    assert (code, err) == (3, "an error\n") and out.splitlines()[0] == "line 0 ?"


@pytest.mark.parametrize(("name", "word"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
def test_a_signal_ends_a_command_in_one_line_and_others_do_not_disturb_its_way_out(name, word):
    code, out, err = spoken(STOPPED.format(name=name, before=""))
    assert (code, out, err) == (130, f"tidied up\n{word}: what was not finished is not kept\n", "")
    code, out, err = spoken(STOPPED.format(name=name, before=f"os.kill(os.getpid(), signal.{name})"))
    assert (code, out, err) == (130, f"{word}: nothing was begun\n", "")


def test_every_command_begins_and_ends_so():
    folder = Path(bench.__file__).parent
    found = {
        str(path.relative_to(folder).with_suffix(""))
        for path in folder.rglob("*.py")
        if "command.run(main)" in path.read_text()
    }
    assert found == set(COMMANDS)
    for name in found:
        text = (folder / f"{name}.py").read_text()
        _, first, begins, *_ = ast.parse(text).body
        assert ast.unparse(first) == "from bench.system import command", name
        assert ast.unparse(begins) == "if __name__ == '__main__':\n    command.begin()", name
        assert text.endswith("sys.exit(command.run(main))\n"), name


def test_a_sweep_whose_reader_has_ended_goes_on(here):
    (here / "smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    command = [sys.executable, "-m", "bench.run", "smoke.yaml", "--executor", "serial", "--page-every", "off"]
    driver = warm.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "2 of 2 trials to run" in driver.stdout.readline()
    driver.stdout.close()
    err = driver.stderr.read()
    assert driver.wait(60) == 0
    assert err == "note: standard output cannot be written (Broken pipe); the command goes on without it\n"
    folder = here / "results" / "smoke"
    assert len(finished(folder)) == 2 and (folder / "leaderboard.md").read_text().count("1/1") == 2


IMPORTS = """
import os, signal, sys
class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.{name})
if "bench.run" in sys.orig_argv or "-c" in sys.orig_argv:
    sys.meta_path.insert(0, Signals())
"""
REPORTS = """
import os, signal
real = os.fsync
def fsync(descriptor):
    if "/.leaderboard.csv." in os.readlink(f"/proc/self/fd/{{descriptor}}"):
        os.kill(os.getpid(), signal.{name})
    real(descriptor)
os.fsync = fsync
"""


@pytest.mark.parametrize(("name", "word"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
def test_a_signal_while_it_imports_or_writes_the_report_is_one_line_and_leaves_no_file(here, run, name, word):
    code, said = run(here, "train.epochs: [1]", interpreter=True, **customise(here, IMPORTS.format(name=name)))
    assert (code, said) == (130, f"{word}: nothing was begun\n") and not (here / "results").exists()

    folder = here / "results" / "smoke"
    (trial,) = expand(load_sweep(here / "smoke.yaml"))
    (folder / "figures").mkdir(parents=True)
    run_trial(trial.config).save(folder)
    for killed in (".page.html.abcdefgh", "figures/.pareto.png.01234567"):
        (folder / killed).write_text("half")
    code, said = run(here, "train.epochs: [1]", "--executor", "serial", **customise(here, REPORTS.format(name=name)))
    goes_on = "finished trials and training states are kept; run the same command to continue"
    assert code == 130 and said.splitlines()[1:] == [f"{word}: {goes_on}"], said
    assert (folder / "leaderboard.md").exists() and not (folder / "leaderboard.csv").exists()
    assert not [path for path in folder.rglob(".*") if path.is_file()] and len(finished(folder)) == 1


def test_a_second_sigterm_does_not_disturb_the_way_out(here, start):
    code = """
import os, signal, subprocess
real = subprocess.Popen.terminate
def terminate(process):  # of the process that forks trials
    os.kill(os.getpid(), signal.SIGTERM)
    real(process)
subprocess.Popen.terminate = terminate
"""
    driver = start(here, "train.epochs: [100000]", "--executor", "serial", interpreter=True, **customise(here, code))
    process = psutil.Process(driver.pid)
    (trial,) = wait_for(lambda: children_named(process, "trial-"))
    driver.send_signal(signal.SIGTERM)
    out, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (130, "") and out.count(
        "terminated: finished trials and training states are kept"
    ) == 1
    wait_for(lambda: not trial.is_running())


def test_a_recipe_that_does_not_arrive_is_no_success(here):
    with open("/dev/full", "w") as full:
        done = warm.run(
            [sys.executable, "-m", "bench.data", "recipe", "salient"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and re.fullmatch("note: standard output cannot be written .*\n", done.stderr)


def test_an_impossible_folder_for_compiled_code_is_one_line(tmp_path):
    """torch makes it when it is imported, and every command imports torch."""
    file = tmp_path / "file"
    file.touch()
    place = str(file / "below")
    command = [sys.executable, "-m", "bench.plan", "no.yaml"]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": place}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == "" and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"TORCHINDUCTOR_CACHE_DIR={place}: torch cannot make this folder (Not a directory)")
