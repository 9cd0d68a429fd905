"""Checkpoints reduced to what a module wants, mapped from disk."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.cache import weight_cache
from models.core import weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def checkpoint(tmp_path):
    """A file with a linear layer under a prefix, and with something else."""
    layer = nn.Linear(40, 30)
    others = {f"other.{i}": torch.randn(50, 50) for i in range(3)}
    path = tmp_path / "large.pt"
    torch.save({"model": {f"part.{n}": v for n, v in layer.state_dict().items()} | others}, path)
    return path, layer


def loaded(path):
    layer = nn.Linear(40, 30)
    assert weights.load(layer, path, ("part.", "")) == 2
    return layer


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_holds_the_modules_tensors_alone_and_is_made_once(checkpoint, cache, monkeypatch):
    path, layer = checkpoint
    assert same(loaded(path), layer)
    (file,) = cache.iterdir()
    assert load_file(file).keys() == {"weight", "bias"} and file.stat().st_size < path.stat().st_size / 3
    monkeypatch.setattr(weights, "read", lambda path: pytest.fail("read again"))
    assert same(loaded(path), layer)


def test_writing_to_the_module_changes_neither_file_nor_the_next_module(checkpoint, cache):
    path, layer = checkpoint
    before = loaded(path)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    with torch.no_grad():
        before.weight.add_(1)
    assert file.read_bytes() == content and same(loaded(path), layer)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc on this system")
def test_is_mapped_not_read(checkpoint, cache):
    layer = loaded(checkpoint[0])
    (file,) = cache.iterdir()
    lines = [line for line in open("/proc/self/maps").read().splitlines() if line.endswith(str(file))]
    areas = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    assert any(low <= layer.weight.data_ptr() < high for low, high in areas)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="no /proc on this system")
def test_trials_share_the_pages(tmp_path, cache):
    """Two processes that have used all weights hold one copy of them: the second costs no memory of its own."""
    torch.save(nn.Linear(2048, 2048).state_dict(), tmp_path / "large.pt")
    code = """
import sys, torch
from pathlib import Path
from torch import nn
from bench.training.checks import frozen_digests
from models.core import weights
layer = nn.Linear(2048, 2048)
weights.load(layer, Path(sys.argv[1]))
layer.requires_grad_(False).to("cpu")
layer(torch.randn(3, 2048)), frozen_digests(layer)
print("used", flush=True)
sys.stdin.readline()
inside, kib = False, {}
for line in open("/proc/self/smaps"):
    name, *rest = line.split()
    if not name.endswith(":"):
        inside = line.rstrip().endswith(sys.argv[2])
    elif inside and rest[-1] == "kB":
        kib[name] = kib.get(name, 0) + int(rest[0])
print(kib["Rss:"], kib["Private_Clean:"] + kib["Private_Dirty:"])
"""
    loaded_here = nn.Linear(2048, 2048)
    weights.load(loaded_here, tmp_path / "large.pt")
    (file,) = cache.iterdir()
    command = [sys.executable, "-c", code, str(tmp_path / "large.pt"), file.name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [child.stdout.readline() for child in both] == ["used\n"] * 2
    for child in both:
        child.stdin.write("\n")
        child.stdin.flush()
        resident, private = map(int, child.stdout.readline().split())
        assert resident >= 2048 * 2048 * 4 / 1024 and private < 0.05 * resident
    for child in both:
        child.communicate(timeout=30)


def test_changed_checkpoint_is_read_anew(checkpoint):
    path, _ = checkpoint
    loaded(path)
    other = nn.Linear(40, 30)
    torch.save({f"part.{n}": v for n, v in other.state_dict().items()}, path)
    assert same(loaded(path), other)


@pytest.mark.parametrize("damage", ["cut off", "empty", "garbage", "another module's", "directory"])
def test_damaged_file_is_set_aside_and_made_anew(checkpoint, cache, damage):
    path, layer = checkpoint
    loaded(path)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()
    if damage == "another module's":
        save_file({"weight": torch.zeros(2)}, file)
    elif damage == "directory":
        file.mkdir()
    else:
        file.write_bytes({"cut off": whole[:-100], "empty": b"", "garbage": os.urandom(500)}[damage])
    assert same(loaded(path), layer)
    assert file.read_bytes() == whole and len(list(cache.glob(f"{file.name}.damaged-*"))) == 1


def test_wrong_checkpoint_leaves_no_file(tmp_path, cache):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "wrong.pt")
    with pytest.raises(weights.WeightsError, match="1 missing: bias"):
        loaded(tmp_path / "wrong.pt")
    assert list(cache.iterdir()) == []


def test_a_disk_that_refuses_is_a_plain_sentence(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(weights.WeightsError, match="cannot be used.*set SAM3_BENCH_CACHE to a folder with room"):
        loaded(checkpoint[0])


def test_failure_while_writing_leaves_nothing_behind(checkpoint, cache, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_cache, "save_file", full)
    with pytest.raises(weights.WeightsError, match="No space left"):
        loaded(checkpoint[0])
    assert list(cache.iterdir()) == []


def test_several_may_start_at_once(checkpoint, cache, monkeypatch):
    """All find no file, one reads the checkpoint while the others wait, and each has whole tensors."""
    path, layer = checkpoint
    read, calls, together = weights.read, [], threading.Barrier(4)

    def read_slowly(path):
        calls.append(path)
        time.sleep(0.2)
        return read(path)

    def loaded_together(path):
        together.wait(timeout=20)
        return loaded(path)

    monkeypatch.setattr(weights, "read", read_slowly)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(other, layer) for other in pool.map(loaded_together, [path] * 4))
    assert len(list(cache.iterdir())) == len(calls) == 1


def test_lies_where_the_environment_says(tmp_path, monkeypatch):
    assert weight_cache.root() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("SAM3_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weight_cache.root() == tmp_path / "xdg" / "sam3-bench" / "weights"
