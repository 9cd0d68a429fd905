"""Files appear whole or not at all, replace nothing that is no older file, and are cleared away after a kill."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_for

from bench.system import files
from bench.system.files import OwnFolder, TargetError, check_targets, remove_unfinished, write_whole

WRITES = """
import sys, time
from pathlib import Path
from bench.system.files import write_whole
def fill(file):
    file.write(b"half")
    file.flush()
    print("writes", flush=True)
    time.sleep(600)
write_whole(Path(sys.argv[1]), fill)
"""
HAS_A_FOLDER = """
import subprocess, sys, tempfile
from bench.system.files import OwnFolder
tempfile.tempdir = sys.argv[1]
own = OwnFolder()
child = subprocess.Popen(["sleep", "600"], pass_fds=[own.descriptor], stdout=subprocess.DEVNULL)
print(own.path, child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def in_a_process():
    """``in_a_process(code, *arguments)`` runs Python code that waits; returns the process and its first line."""
    started = []

    def begin(code, *arguments):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes)
        started.append(process)
        return process, process.stdout.readline().split()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_process_had_not_finished_goes_and_nothing_else(tmp_path, in_a_process):
    results = tmp_path / "smoke"
    below = results / ".resume" / "abc"
    for folder in (results / "figures", below):
        folder.mkdir(parents=True)
    dead = [in_a_process(WRITES, path)[0] for path in (results / "leaderboard.csv", below / "epoch-0001.safetensors")]
    in_a_process(WRITES, results / "figures" / "pareto.png")  # of another driver, which lives
    for process in dead:
        process.kill()
        process.wait()
    kept = [results / ".notes.document", results / ".gitignore", results / ".page.html.backup-1", results / "a.json"]
    for path in kept:
        path.write_text("mine")
    kept += list((results / "figures").iterdir())
    assert len([path for path in results.rglob("*") if path.is_file()]) == 7
    remove_unfinished(results)
    assert {path for path in results.rglob("*") if path.is_file()} == set(kept)


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """A driver that starts at that moment takes it for a dead one's."""
    lock, removed = files.fcntl.flock, []

    def flock(file, how):
        if not removed:
            removed.append(os.unlink(file.name))
        lock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_whole(tmp_path / "a.json", lambda file: file.write(b"whole"))
    assert removed and [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"whole"


def test_where_there_are_no_locks_files_are_written_and_none_is_removed(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_whole(tmp_path / "a.json", lambda file: file.write(b"whole"))
    (tmp_path / ".b.json.abcdefgh").write_text("perhaps another's")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".b.json.abcdefgh"}


def test_a_file_is_whole_or_not_there_and_a_link_is_replaced(tmp_path):
    (tmp_path / "far").write_text("far")
    (tmp_path / "near").symlink_to("far")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "near", lambda file: signal.raise_signal(signal.SIGINT))
    assert (tmp_path / "near").is_symlink() and len(list(tmp_path.iterdir())) == 2
    write_whole(tmp_path / "near", lambda file: file.write(b"near"))
    assert not (tmp_path / "near").is_symlink() and (tmp_path / "far").read_text() == "far"


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a device", "link to a folder"])
def test_what_is_no_file_is_no_target(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "device":
        target = Path("/dev/null")
    else:
        target.symlink_to("/dev/null" if kind == "link to a device" else tmp_path)
    with pytest.raises(TargetError, match=f"^{target}: is a {kind.split()[-1]}, which no file may replace"):
        check_targets([tmp_path / "free", target])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("how", ["itself", "by another path", "link", "hard link"])
def test_an_input_is_no_target(tmp_path, how):
    (tmp_path / "below").mkdir()
    (tmp_path / "input").write_text("precious")
    target = tmp_path / {"itself": "input", "by another path": "below/../input"}.get(how, "target")
    if how == "link":
        target.symlink_to("input")
    if how == "hard link":
        target.hardlink_to(tmp_path / "input")
    with pytest.raises(TargetError, match="an input, which would be lost"):
        check_targets([target], [tmp_path / "gone", tmp_path / "input"])
    check_targets([target], [tmp_path / "gone"])  # an older file is replaced


def test_a_target_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_targets([tmp_path / "deep" / "deeper" / "free"])
    assert not (tmp_path / "deep").exists()
    with pytest.raises(TargetError, match="cannot be written"):
        check_targets([tmp_path / "file" / "x"])
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write anywhere
    with pytest.raises(TargetError, match=f"cannot be written: {tmp_path} takes no files from this user"):
        check_targets([tmp_path / "deep" / "x"])


def test_an_own_folder_goes_with_its_last_process(tmp_path, in_a_process, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    owner, (path, child) = in_a_process(HAS_A_FOLDER, tmp_path)
    (tmp_path / "sam3-bench-other").mkdir()  # of something else, or of an earlier version
    folder = Path(path)
    owner.kill()
    owner.wait()
    with OwnFolder() as own:
        assert own.is_dir() and folder.is_dir(), "a child has it still"
    assert not own.exists()
    os.kill(int(child), signal.SIGKILL)

    def is_gone():
        with OwnFolder():
            return not folder.exists()

    wait_for(is_gone, seconds=10)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sam3-bench-other"]
