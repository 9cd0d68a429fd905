"""Reading checkpoints and matching them with a module, strictly: a wrong file is an error that lists the keys."""

import pickle
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.cache import weight_cache
from models.cache.weight_cache import WeightsError

State = dict[str, Tensor]
NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "ema")
"""Keys under which training code keeps a model's tensors (``model``: Meta's, sam3/model_builder.py)."""
WRAPPERS = ("_orig_mod", "module")
"""Parts that torch.compile and DataParallel add to names, before or between the other parts."""
LIGHTNING = "model."
"""Prefix that Lightning adds to the names of a network in the attribute ``model``."""
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)
REBUILT = (
    "freqs_cis"  # end of the names of tables that depend on the image size: modules compute them, files are ignored
)


class Found(NamedTuple):
    """Tensors of a checkpoint, in the names of the module that was saved."""

    tensors: State
    note: str = ""
    """Their key in the file and the removed parts of their names, in a line; empty if there are none."""


@contextmanager
def notes() -> Iterator[list[str]]:
    """Collects notes for users about the checkpoints that the body loads, a line each."""
    lines: list[str] = []
    before = _notes.set(lines)
    try:
        yield lines
    finally:
        _notes.reset(before)


def only(path: Path) -> State:
    """Reads the tensors of a checkpoint by name, without comparing their shapes. Raises ``WeightsError``."""
    found = _one(path, read(path))
    _refuse_nan(path, found.tensors)
    return _with_note(found)


def read(path: Path) -> dict[str, Found]:
    """Reads the sets of tensors of a ``.safetensors`` or torch checkpoint, mapped from disk, by their key in the file.

    The key is one of ``NESTED``, or ``""`` if the file has none of them. There is at least one set. Names are those of
    the module itself, without the parts that torch.compile, DataParallel and Lightning add. Pickled code is never run.
    Raises ``WeightsError``.
    """
    stand_in = what_stands_in(path)
    if stand_in:
        raise WeightsError(f"{path}: {stand_in}")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        text = f"{path}: refused, it holds more than tensors and could run code ({reason})"
        raise WeightsError(f"{text}. If you trust its source, save the tensors alone in a file of their own") from None
    except Exception as error:  # a damaged file makes the readers of torch and safetensors raise errors of any type
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: not a readable checkpoint ({reason})") from None
    sets = _sets(state) if isinstance(state, dict) else {}
    if not sets:
        holds = f"a {type(state).__name__}" if not isinstance(state, dict) else _some([repr(key) for key in state])
        places = ", ".join(NESTED)
        raise WeightsError(f"{path}: holds {holds}, and no tensors by name, neither directly nor under {places}")
    return {key: _unwrapped(path, key, tensors) for key, tensors in sets.items()}


def what_stands_in(path: Path) -> str:
    """Describes a file that was saved in place of a download, with the remedy; returns "" for any other file."""
    if not path.is_file():  # opening a pipe may wait forever
        return ""
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            "is a pointer of Git LFS, not the file itself. Run 'git lfs pull' in its repository, or download the file"
        )
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        what = "is a web page that was saved in place of the file: often a login, or a warning about large files"
        return f"{what}. Download it in a browser, or with the site's own tool, such as hf or gdown"
    return ""


def _sets(state: dict) -> dict[str, State]:
    """Returns tensors by name of each key of ``NESTED``, or else those of the dictionary itself; no empty sets."""
    sets = {key: _tensors(state[key]) for key in NESTED if isinstance(state.get(key), dict)}
    if not any(sets.values()):
        sets = {"": _tensors(state)}
    return {key: tensors for key, tensors in sets.items() if tensors}


def _tensors(state: dict) -> State:
    if not all(isinstance(key, str) for key in state):
        return {}
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _unwrapped(path: Path, key: str, state: State) -> Found:
    """Removes the parts of names that training code adds to the module's own names."""
    by_lightning = [name for name in state if name.startswith(LIGHTNING)]
    left_out = []
    if by_lightning and (key or len(by_lightning) == len(state)):
        state = {name.removeprefix(LIGHTNING): state[name] for name in by_lightning}
        left_out.append(LIGHTNING)
    for wrapper in WRAPPERS:
        if any(wrapper in name.split(".") for name in state):
            names = {name: ".".join(part for part in name.split(".") if part != wrapper) for name in state}
            if len(set(names.values())) < len(names):
                raise WeightsError(f"{path}: has tensors twice, with and without '{wrapper}.' in their names")
            state = {names[name]: value for name, value in state.items()}
            left_out.append(f"{wrapper}.")
    facts = []
    if key:
        facts.append(f"tensors were found under '{key}'")
    if left_out:
        facts.append(f"{' and '.join(map(repr, left_out))} left out of their names")
    return Found(state, f"{path}: {', '.join(facts)}" if facts else "")


def _one(path: Path, sets: dict[str, Found], fits: Callable[[State], bool] = lambda state: True) -> Found:
    """Returns the set that fits. Raises ``WeightsError`` if several fit, since any of them could be meant."""
    fitting = [key for key, found in sets.items() if len(sets) == 1 or fits(found.tensors)]
    if len(fitting) > 1:
        keys = " and ".join(map(repr, fitting))
        remedy = "Save the one that you mean in a file of its own"
        raise WeightsError(f"{path}: tensors of this model are under {keys}. {remedy}")
    return sets[fitting[0] if fitting else next(iter(sets))]


def _refuse_nan(path: Path, state: State) -> None:
    broken = sorted(name for name, value in state.items() if value.isnan().any())
    if broken:
        raise WeightsError(f"{path}: its weights are no numbers (NaN): {_some(broken)}")


def _with_note(found: Found) -> State:
    """Adds the note to those that ``notes`` collects, and returns the tensors."""
    lines = _notes.get()
    if found.note and lines is not None:
        lines.append(found.note)
    return found.tensors


def load(
    module: nn.Module,
    path: Path,
    prefixes: Collection[str] = ("",),
    *,
    convert: Callable[[State], State] = lambda state: state,
) -> int:
    """Loads all tensors of ``module`` from a checkpoint and returns their number.

    They are mapped from a file with these tensors alone, in the module's names. The first trial of a machine makes it
    from the checkpoint, all trials share it (``models.cache.weight_cache``). The module may change them; the file stays.

    prefixes: prefixes of the module's names in checkpoints, tried in order; ``""`` is the module itself.
    convert: translates other layouts of the module's tensors to its own, and leaves its own as it is.
    Raises ``WeightsError`` with the missing, unexpected and mis-shaped names.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith(REBUILT)}
    shapes = _shapes(wanted)

    def within(state: State) -> State:
        return convert(_within(state, prefixes))

    def make() -> tuple[State, str]:
        chosen = _one(path, read(path), lambda state: _shapes(within(state)) == shapes)
        found = within(chosen.tensors)
        _check(found, shapes, f"{path}: these are not the weights of this {type(module).__name__}")
        _refuse_nan(path, found)
        return {name: value.to(wanted[name].dtype) for name, value in found.items()}, chosen.note

    state = _with_note(Found(*weight_cache.mapped(path, shapes, make)))
    if any(value.is_meta for value in wanted.values()):  # a skeleton has no memory to fill
        return len(state)
    module.load_state_dict(state, strict=False, assign=True)  # not strict: the rebuilt tables are absent
    return len(state)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _within(state: State, prefixes: Collection[str]) -> State:
    """Returns the tensors with the first prefix that occurs, without it and without tables that modules compute."""
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
    """Tells whether torch can map a file from disk: only its zip format (the default since 1.6)."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
