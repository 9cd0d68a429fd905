"""The cache of resized pairs: made once, never visible half-made, and made again when it is damaged."""

import os
import shutil
import sys
from collections import namedtuple

import numpy as np
import pytest
import warm
from pairs import write_pairs
from PIL import Image

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets import DataError
from bench.datasets.core.cache import resized_pairs
from bench.system.progress import silent


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(folder))
    return folder


class Reader:
    """Makes pair ``i`` of grey level ``i`` and counts how often it is asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, i):
        self.calls.append(i)
        return np.full((4, 4, 3), i, np.uint8), np.full((4, 4), i, np.uint8), {"number": int(i)}


def resized(read, notes=None, key="key"):
    return resized_pairs(key, 3, 4, read, silent, [] if notes is None else notes)


def kept(cache):
    """What lies in the cache but for locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_made_once_and_never_seen_half_made(cache):
    def killed(i):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resized(killed)
    assert kept(cache) == []
    read = Reader()
    for _ in range(2):
        images, masks, facts = resized(read)
        assert images[2, 0, 0, 0] == masks[2, 0, 0] == facts[2]["number"] == 2
    assert sorted(read.calls) == [0, 1, 2]
    with pytest.raises(ValueError):
        images[0] = 1  # mapped read-only


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "images.npy does not hold what was written": lambda folder: flip_a_bit(folder / "images.npy"),
    "masks.npy does not hold what was written": lambda folder: os.truncate(folder / "masks.npy", 100),
    "masks.npy is gone": lambda folder: (folder / "masks.npy").unlink(),
    "sums.json cannot be read": lambda folder: (folder / "sums.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_named_set_aside_and_made_again(cache, damage):
    resized(Reader())
    (name,) = kept(cache)
    DAMAGES[damage](cache / name)
    read, notes = Reader(), []
    images, masks, _ = resized(read, notes)
    assert sorted(read.calls) == [0, 1, 2] and images[2, 3, 3, 2] == masks[2, 3, 3] == 2
    (note,) = notes
    assert f"{name} was damaged ({damage})" in note and "set aside" in note
    assert [n.partition(".")[0] for n in kept(cache)] == [name, name]
    resized(read, notes)
    assert len(notes) == 1 and len(read.calls) == 3


def test_what_a_killed_process_left_is_cleared_away(cache):
    resized(Reader())
    (name,) = kept(cache)
    shutil.rmtree(cache / name)
    (cache / f".making-{name}").mkdir()
    (cache / f".making-{name}" / "images.npy").write_bytes(b"half")
    images, _, _ = resized(Reader())
    assert kept(cache) == [name] and images[1, 0, 0, 0] == 1


def test_a_full_disk_is_told_before_anything_is_written(cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 50, 50))
    with pytest.raises(DataError, match="0.0 GiB are needed and 0.0 GiB are free; set SAM3_BENCH_CACHE to a folder"):
        resized(Reader())
    assert kept(cache) == []


ONE_OF_SEVERAL = """
import sys, time
import numpy as np
from bench.system.progress import silent
from bench.datasets.core.cache import resized_pairs

def read(i):
    with open(sys.argv[1], "a") as log:
        log.write(f"{i}\\n")
    time.sleep(0.05)
    return np.full((4, 4, 3), i, np.uint8), np.full((4, 4), i, np.uint8), {"number": int(i)}

notes = []
images, masks, _ = resized_pairs("shared", 8, 4, read, silent, notes)
assert [int(image[0, 0, 0]) for image in images] == list(range(8)), images
assert not notes
"""


def test_several_processes_that_start_at_once_make_it_once(cache, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", ONE_OF_SEVERAL, str(log)]
    processes = [warm.Popen(command, stderr=warm.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sorted(map(int, log.read_text().split())) == list(range(8))
    assert len(kept(cache)) == 1


# --- keyed by content -------------------------------------------------------------------------------------------------


def folder_data(images, masks, **more):
    config = DATASETS.parse({"name": "folder", "images": str(images), "masks": str(masks), **more})
    return DATASETS.build(config, TransformConfig(size=8))


def caches(cache):
    return [path for path in cache.iterdir() if path.is_dir()]


def test_a_copy_of_the_files_shares_the_cache_and_another_transform_does_not(cache, tmp_path):
    images, masks = write_pairs(tmp_path / "a", 6)
    folder_data(images, masks)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    folder_data(tmp_path / "b" / "images", tmp_path / "b" / "masks")
    assert len(caches(cache)) == 1
    folder_data(images, masks, exif="stored")
    assert len(caches(cache)) == 2


def test_an_edit_is_noticed_but_a_new_time_alone_is_not(cache, tmp_path):
    images, masks = write_pairs(tmp_path, 6)
    data = folder_data(images, masks)
    path = masks / "pair 003.png"
    path.touch()
    assert data.changed() == []
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert data.changed() == [f"{images / 'pair 003.jpg'} or its mask has changed since"]
    (images / "pair 001.jpg").unlink()
    assert len(data.changed()) == 2
