"""Features on disk: written once, never seen half-made, never believed when damaged, and never beyond the bound."""

import json
import os
import subprocess
import sys
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.training.feature_store import Entry, FeatureStore, StoreFull, bytes_of

ROWS, ROW_BYTES = 5, 4 * 6


class Maker:
    """Makes rows of the numbers from ``start`` on, two at a time, and counts how often it is asked."""

    def __init__(self, start=0):
        self.calls, self.start = 0, start

    def __call__(self):
        self.calls += 1
        numbers = torch.arange(self.start, self.start + ROWS * 6, dtype=torch.float32).view(ROWS, 2, 3)
        for part in numbers.split(2):
            yield (part,)


def obtain(folder, *names, limit=1 << 20, maker=None):
    maker = maker or Maker()
    store = FeatureStore(folder, limit)
    return store.obtain([Entry(name, ROWS, maker) for name in names], lambda: ROW_BYTES), store


def kept(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_made_once(tmp_path):
    maker = Maker()
    for _ in range(2):
        opened, _ = obtain(tmp_path, "a", maker=maker)
        (rows,) = opened["a"].read(np.array([3, 0]))
        assert torch.equal(rows, torch.arange(30.0).view(5, 2, 3)[[3, 0]])
    assert maker.calls == 1 and opened["a"].bytes == ROWS * ROW_BYTES


@settings(max_examples=examples(40), deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    order=st.permutations([1, 2, 3]),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    batch=st.integers(1, 4),
)
def test_bits_and_strides_come_back(tmp_path_factory, dtype, order, sizes, batch):
    folder = tmp_path_factory.mktemp("store")
    whole = torch.randn(5, *sizes).to(dtype).permute(0, *order)
    entry = Entry("x", 5, lambda: ((part,) for part in whole.split(batch)))
    opened = FeatureStore(folder, 1 << 20).obtain([entry], lambda: bytes_of([whole[:1]]))
    (found,) = opened["x"].read(np.array([4, 1, 1]))
    assert torch.equal(found, whole[[4, 1, 1]]) and found.dtype == dtype
    wanted = [s for s, n in zip(whole.stride(), whole.shape) if n > 1]
    assert [s for s, n in zip(found.stride(), found.shape) if n > 1] == wanted


def test_nothing_is_looked_at_where_all_is_there(tmp_path):
    obtain(tmp_path, "a")
    assert (
        FeatureStore(tmp_path, 0).obtain([Entry("a", ROWS, Maker())], lambda: pytest.fail("looked"))["a"].bytes == 120
    )


def test_a_killed_maker_leaves_nothing_behind(tmp_path):
    def killed():
        yield (torch.zeros(2, 2, 3),)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, "a", maker=killed)
    assert kept(tmp_path) == set()
    (tmp_path / ".making-a").mkdir()  # SIGKILL leaves this
    (tmp_path / ".making-a" / "0").write_bytes(b"half")
    obtain(tmp_path, "a")
    assert kept(tmp_path) == {"a"}


@pytest.mark.parametrize(
    "file, content", [("0", b"x" * ROWS * ROW_BYTES), ("0", b""), ("entry.json", b"{"), ("entry.json", b"[3]")]
)
def test_a_damaged_entry_is_named_and_made_again(tmp_path, file, content):
    obtain(tmp_path, "a")
    (tmp_path / "a" / file).write_bytes(content)
    maker = Maker()
    opened, store = obtain(tmp_path, "a", maker=maker)
    assert maker.calls == 1 and torch.equal(opened["a"].read(np.array([4]))[0], torch.arange(24.0, 30).view(1, 2, 3))
    assert len(store.damaged) == 1 and store.damaged[0].startswith("a: ")
    assert obtain(tmp_path, "a")[1].damaged == []


def test_one_flipped_bit_is_noticed(tmp_path):
    obtain(tmp_path, "a")
    path = tmp_path / "a" / "0"
    content = bytearray(path.read_bytes())
    content[57] ^= 4
    path.write_bytes(content)
    maker = Maker()
    obtain(tmp_path, "a", maker=maker)
    assert maker.calls == 1


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    limit = 500  # an entry has 120 bytes, and about 90 of description
    obtain(tmp_path, "a", limit=limit)
    held, _ = obtain(tmp_path, "b", limit=limit)
    for name, when in (("a", 2000), ("b", 1000)):
        os.utime(tmp_path / name, (when, when))
    obtain(tmp_path, "c", limit=limit)
    assert kept(tmp_path) == {"a", "c"}
    assert torch.equal(held["b"].read(np.array([1]))[0], torch.arange(6.0, 12).view(1, 2, 3))  # it is still mapped
    size = sum(f.stat().st_size for n in kept(tmp_path) for f in (tmp_path / n).iterdir())
    assert size <= limit


def test_a_use_counts(tmp_path):
    limit = 600
    for name in ("a", "b"):
        obtain(tmp_path, name, limit=limit)
        os.utime(tmp_path / name, (1000, 1000))
    obtain(tmp_path, "a", limit=limit)
    obtain(tmp_path, "c", "d", limit=limit)
    assert kept(tmp_path) == {"a", "c", "d"}


def test_more_than_the_bound_is_refused_before_any_work(tmp_path):
    maker = Maker()
    with pytest.raises(StoreFull, match="more than --feature-cache-gib allows"):
        obtain(tmp_path / "new", "a", "b", limit=ROWS * ROW_BYTES, maker=maker)
    assert maker.calls == 0


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "free")(10))
    with pytest.raises(StoreFull, match="are free"):
        obtain(tmp_path, "a")
    assert kept(tmp_path) == set()


def test_two_at_once_share_the_work(tmp_path):
    """Each makes what the other does not: four entries are made four times in all, not eight."""
    makers = [Maker(), Maker()]
    names = ["a", "b", "c", "d"]
    threads = [threading.Thread(target=obtain, args=(tmp_path, *names), kwargs={"maker": m}) for m in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert makers[0].calls + makers[1].calls == 4 and kept(tmp_path) == set(names)


def test_a_killed_process_holds_no_lock(tmp_path):
    code = """
import os, sys, signal, torch
from pathlib import Path
from bench.training.feature_store import Entry, FeatureStore
def die():
    yield (torch.zeros(1, 2, 3),)
    os.kill(os.getpid(), signal.SIGKILL)
FeatureStore(Path(sys.argv[1]), 1 << 20).obtain([Entry("a", 5, die)], lambda: 24)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert done.returncode == -9 and ".making-a" in kept(tmp_path)
    maker = Maker()
    obtain(tmp_path, "a", maker=maker)
    assert maker.calls == 1 and json.loads((tmp_path / "a" / "entry.json").read_text())[0]["shape"] == [5, 2, 3]
