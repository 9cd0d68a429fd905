"""Reading checkpoints and matching them against a module, strictly: a wrong file is an error that lists the keys."""

import pickle
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models import _weight_cache
from models._weight_cache import WeightsError

State = dict[str, Tensor]
REBUILT = "freqs_cis"  # ends the names of tables that depend on the image size: modules make them, files are not asked


def read(path: Path) -> State:
    """The tensors of a ``.safetensors`` or torch checkpoint, mapped from disk, by name.

    A checkpoint nested under ``model`` (as Meta's loader accepts, sam3/model_builder.py) is unwrapped. Pickled code
    is never run. Raises ``WeightsError``.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: refused, it holds more than tensors and could run code ({reason})") from None
    except Exception as error:  # whatever torch's and safetensors' readers trip over in a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: not a readable checkpoint ({reason})") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def load(
    module: nn.Module,
    path: Path,
    prefixes: Collection[str] = ("",),
    *,
    convert: Callable[[State], State] = lambda state: state,
) -> int:
    """Gives a checkpoint's tensors to ``module`` and returns their number, which is all of the module's.

    They are mapped from a file that holds these tensors alone, in the module's names: made from the checkpoint once,
    then shared by all trials of the machine (``models._weight_cache``). The module may change them; the file stays.

    prefixes: the names under which checkpoints hold the module, tried in order; ``""`` is the module itself.
    convert: translates other layouts of the module's tensors to its own, and leaves its own as it is.
    Raises ``WeightsError`` with the missing, unexpected and mis-shaped names.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith(REBUILT)}
    shapes = {name: tuple(value.shape) for name, value in wanted.items()}

    def make() -> State:
        found = convert(_within(read(path), prefixes))
        _check(found, shapes, f"{path}: these are not the weights of this {type(module).__name__}")
        return {name: value.to(wanted[name].dtype) for name, value in found.items()}

    state = _weight_cache.mapped(path, shapes, make)
    if any(value.is_meta for value in wanted.values()):  # a skeleton: that they fit is all there is to find out
        return len(state)
    module.load_state_dict(state, strict=False, assign=True)  # not strict: the rebuilt tables are not in it
    return len(state)


def _within(state: State, prefixes: Collection[str]) -> State:
    """The tensors under the first prefix that occurs, without it and without the tables that modules rebuild."""
    prefix = next((p for p in prefixes if any(k.startswith(p) for k in state)), "")
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and not k.endswith(REBUILT)}


def _check(found: State, shapes: dict[str, tuple[int, ...]], title: str) -> None:
    misshaped = [
        f"{name} {tuple(found[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = {
        "missing": sorted(shapes.keys() - found.keys()),
        "unexpected": sorted(found.keys() - shapes.keys()),
        "of another shape": misshaped,
    }
    if any(problems.values()):
        lines = [f"  {len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
        raise WeightsError("\n".join([f"{title} ({len(shapes)} tensors)", *lines]))


def _is_zip(path: Path) -> bool:
    """torch maps only its zip format (the default since 1.6) from disk; older files are read."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
