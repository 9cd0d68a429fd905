"""Reading checkpoints and matching them against a module, strictly: a wrong file is an error that lists the keys."""

import pickle
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class WeightsError(Exception):
    """A checkpoint that cannot be read, or whose tensors are not those of the module."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or torch checkpoint, mapped from disk, by name.

    A checkpoint nested under ``model`` (as Meta's loader accepts, sam3/model_builder.py) is unwrapped. Pickled code
    is never run. Raises ``WeightsError``.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: refused, it holds more than tensors and could run code ({reason})") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def load(module: nn.Module, path: Path, prefixes: Collection[str], ignored: str) -> int:
    """Copies a checkpoint into ``module`` and returns the number of tensors, which are all of the module's.

    prefixes: the names under which checkpoints hold the module, tried in order; ``""`` is the module itself.
    ignored: tensors whose name ends like this are rebuilt by the module and neither needed nor read.
    Raises ``WeightsError`` with the missing, unexpected and mis-shaped names.
    """
    state = read(path)
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith(ignored)}
    prefix = next((p for p in prefixes if any(k.startswith(p) for k in state)), "")
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and not k.endswith(ignored)}
    misshaped = [
        f"{k} {tuple(found[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in found and found[k].shape != v.shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": misshaped,
    }
    if any(problems.values()):
        lines = [f"  {len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
        title = f"{path}: these are not the weights of this {type(module).__name__} ({len(wanted)} tensors)"
        raise WeightsError("\n".join([title, *lines]))
    with torch.no_grad():
        own = module.state_dict()
        for name, tensor in found.items():
            own[name].copy_(tensor)
    return len(found)


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
