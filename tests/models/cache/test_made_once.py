"""Entries that are made once: whole or not at all, by one process, and made again when they are damaged."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import Timeout

from models.cache.made_once import made_once


def write(text):
    return lambda path: path.write_text(text)


def never(path):
    pytest.fail("made again")


def damage(path):
    return None if path.read_text() == "whole" else "it is not whole"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_are_made_once_and_leave_nothing_else(tmp_path):
    def make(folder):
        folder.mkdir()
        (folder / "0").write_text("in a folder")

    assert made_once(tmp_path / "deep" / "file", write("whole")) is None
    assert made_once(tmp_path / "deep" / "folder", make) is None
    made_once(tmp_path / "deep" / "file", never, damage)
    made_once(tmp_path / "deep" / "folder", never)
    assert names(tmp_path / "deep") == ["file", "folder"]
    assert (tmp_path / "deep" / "folder" / "0").read_text() == "in a folder"


@pytest.mark.parametrize("half", ["file", "folder"])
def test_a_maker_that_fails_leaves_nothing(tmp_path, half):
    def fail(path):
        path.write_text("half") if half == "file" else path.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "a", fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize("keep", [True, False])
def test_a_damaged_entry_is_replaced_and_named(tmp_path, keep):
    path = tmp_path / "a"
    path.write_text("damaged")
    replaced = made_once(path, write("whole"), damage, keep_damaged=keep)
    assert replaced.damage == "it is not whole" and path.read_text() == "whole"
    assert names(tmp_path) == (["a", replaced.path.name] if keep else ["a"])
    assert not keep or replaced.path.read_text() == "damaged"
    assert made_once(path, never, damage) is None


def test_of_several_at_once_one_makes_and_all_wait_for_it(tmp_path):
    together, calls = threading.Barrier(8), []

    def make(path):
        calls.append(path)
        time.sleep(0.05)
        path.write_text("whole")

    def ask(number):
        together.wait(timeout=20)
        made_once(tmp_path / "a", make, damage)
        return (tmp_path / "a").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"whole"}
    assert len(calls) == 1 and names(tmp_path) == ["a"]


def test_makers_that_fail_take_turns_and_never_work_at_once(tmp_path):
    """The lock file is removed after each failure, while others wait for it."""
    working, most, calls = [], [0], []

    def fail(path):
        assert not path.exists()
        path.write_text("half")
        working.append(path)
        most[0] = max(most[0], len(working))
        time.sleep(0.01)
        calls.append(working.pop())
        raise ValueError("no")

    def ask(number):
        with pytest.raises(ValueError):
            made_once(tmp_path / "a", fail)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(18)))
    assert most == [1] and len(calls) == 18 and names(tmp_path) == []


def test_without_waiting_an_entry_that_another_makes_is_left_to_it(tmp_path):
    path = tmp_path / "a"

    def make(temporary):
        with pytest.raises(Timeout):
            made_once(path, never, wait=False)
        temporary.write_text("whole")

    other = threading.Thread(target=made_once, args=(path, make))
    other.start()
    other.join(timeout=20)
    assert path.read_text() == "whole"
    made_once(path, never, wait=False)


def test_what_a_killed_process_left_is_removed_and_its_lock_is_free(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from models.cache.made_once import made_once
def die(folder):
    folder.mkdir()
    (folder / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
made_once(Path(sys.argv[1]), die)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], timeout=60)
    assert done.returncode == -9 and names(tmp_path) == [".a.lock", ".making-a"]
    made_once(tmp_path / "a", write("whole"))
    assert names(tmp_path) == ["a"]


def test_a_user_whose_folder_refuses_gets_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        made_once(tmp_path / "file" / "a", never)
