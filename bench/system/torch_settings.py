"""Settings of the process while a trial runs: torch's threads, determinism, and garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_settings(threads: int, deterministic: bool) -> Iterator[None]:
    """Sets threads and determinism for the body. On CUDA, bilinear resizing has no deterministic gradient.

    ``use_deterministic_algorithms`` sets the same switch as the debug mode, but also imports torch's whole compiler,
    which takes more than a second in every process; nothing is compiled here.
    """
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])


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
