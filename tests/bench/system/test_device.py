"""TF32 as upstream's import sets it, on a simulated card; and a device that torch's functions accept."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda

from bench.system.device import device_of, float32_products, tf32_flags
from bench.tools.upstream import function_of

CUDA = torch.device("cuda", 0)
BUILDER = Path(importlib.util.find_spec("sam3").submodule_search_locations[0], "model_builder.py")


@pytest.fixture(autouse=True)
def _flags_as_torch_has_them():
    before = tf32_flags()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_device_has_an_index(monkeypatch):
    FakeCuda(monkeypatch, count=2, current=1)
    assert device_of("cuda") == torch.device("cuda", 1) and device_of("cpu") == torch.device("cpu")
    torch.cuda.set_per_process_memory_fraction(0.5, device_of("cuda"))
    with pytest.raises(ValueError, match="index"):  # as a real torch does it
        torch.cuda.set_per_process_memory_fraction(0.5, torch.device("cuda"))


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
def test_it_sets_what_upstreams_import_sets(monkeypatch, capability):
    FakeCuda(monkeypatch, capability=capability)
    with float32_products(CUDA, tf32=True):
        ours = tf32_flags()
    assert tf32_flags() == (False, True), "torch's defaults"
    function_of(BUILDER, "_setup_tf32")()
    assert ours == tf32_flags() == (capability >= (8, 0), True)


def test_upstream_calls_it_when_it_is_imported_and_nothing_else():
    """What else the package's file does on import would have to be done here, too."""
    tree = ast.parse(BUILDER.read_text())
    calls = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    assert calls == ["_setup_tf32()"]


@pytest.mark.parametrize("before", [(True, True), (False, False), (True, False)])
def test_neither_an_import_nor_the_environment_decides(monkeypatch, before):
    FakeCuda(monkeypatch)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    for tf32 in (True, False):
        with pytest.raises(KeyError), float32_products(CUDA, tf32):
            assert tf32_flags() == (tf32, True)
            raise KeyError
        assert tf32_flags() == before


def test_nothing_is_set_for_a_cpu(monkeypatch):
    with float32_products(torch.device("cpu"), tf32=True):
        assert tf32_flags() == (False, True)
