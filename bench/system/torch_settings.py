"""Settings of the process while a trial runs: torch's threads, determinism, and garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic as filling


@contextmanager
def torch_settings(threads: int, deterministic: bool) -> Iterator[None]:
    """Sets threads and determinism for the body. On CUDA, bilinear resizing has no deterministic gradient.

    ``use_deterministic_algorithms`` sets the same switch as the debug mode, but also imports torch's whole compiler,
    which takes more than a second in every process; nothing is compiled here. Deterministic mode also fills memory that
    is not yet initialised, to reveal operators that read it. That takes 5 % of a tiny training step and is turned off.
    """
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), filling.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    filling.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        filling.fill_uninitialized_memory = before[2]


@contextmanager
def older_objects_are_kept() -> Iterator[None]:
    """Excludes objects from before the body from garbage collection.

    A trial collects garbage before each phase. A million objects of torch and other libraries are never garbage, and
    a collection that visits them takes longer than a small trial's training.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
