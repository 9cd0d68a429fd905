"""Reading checkpoints and matching them against a module, strictly: a wrong file is an error that lists the keys."""

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
"""What torch.compile and DataParallel put into names, before or between their other parts."""
LIGHTNING = "model."
"""What Lightning puts before the names of a network that is called ``model``, as most are."""
_told: ContextVar[list[str] | None] = ContextVar("_told", default=None)
REBUILT = "freqs_cis"  # ends the names of tables that depend on the image size: modules make them, files are not asked


class Found(NamedTuple):
    """Tensors of a checkpoint, in the names of the module that was saved."""

    tensors: State
    note: str = ""
    """Where they lay and what was left out of their names, in a line; empty if they lay there as they are."""


@contextmanager
def notes() -> Iterator[list[str]]:
    """Collects what a user should know about the checkpoints that the body loads, a line each."""
    lines: list[str] = []
    before = _told.set(lines)
    try:
        yield lines
    finally:
        _told.reset(before)


def only(path: Path) -> State:
    """The tensors of a checkpoint by name, for who has no shapes to hold them against. Raises ``WeightsError``."""
    found = _one(path, read(path))
    _refuse_nan(path, found.tensors)
    return _told_of(found)


def read(path: Path) -> dict[str, Found]:
    """The sets of tensors that a ``.safetensors`` or torch checkpoint holds, mapped from disk, by the key that they lie
    under; ``""`` are those of the file itself, if none lie under one of ``NESTED``. At least one.

    Names are those of the module itself: what torch.compile, DataParallel and Lightning put into them is left out.
    Pickled code is never run. Raises ``WeightsError``.
    """
    if stand_in := what_stands_in(path):
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
    except Exception as error:  # whatever torch's and safetensors' readers trip over in a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: not a readable checkpoint ({reason})") from None
    sets = _sets(state) if isinstance(state, dict) else {}
    if not sets:
        holds = f"a {type(state).__name__}" if not isinstance(state, dict) else _some([repr(key) for key in state])
        places = ", ".join(NESTED)
        raise WeightsError(f"{path}: holds {holds}, and no tensors by name, neither directly nor under {places}")
    return {key: _unwrapped(path, key, tensors) for key, tensors in sets.items()}


def what_stands_in(path: Path) -> str:
    """What a file is that was saved in place of a download, and the remedy; empty for anything else."""
    if not path.is_file():  # to open a pipe may wait for ever
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
    """Tensors by name below each of ``NESTED``, or else those of the dictionary itself; without empty ones."""
    found = {key: _tensors(state[key]) for key in NESTED if isinstance(state.get(key), dict)}
    found = {key: tensors for key, tensors in found.items() if tensors}
    own = {} if found else _tensors(state)
    return found or ({"": own} if own else {})


def _tensors(state: dict) -> State:
    return {k: v for k, v in state.items() if isinstance(v, Tensor)} if all(isinstance(k, str) for k in state) else {}


def _unwrapped(path: Path, key: str, state: State) -> Found:
    """A set of tensors under the names that the module itself gives them."""
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
    said = [f"tensors were found under '{key}'"] * bool(key)
    said += [f"{' and '.join(map(repr, left_out))} left out of their names"] * bool(left_out)
    return Found(state, f"{path}: {', '.join(said)}" if said else "")


def _one(path: Path, sets: dict[str, Found], fits: Callable[[State], bool] = lambda state: True) -> Found:
    """The set that fits. Raises ``WeightsError`` where several do: which of them is meant, nobody can know."""
    fitting = [key for key, found in sets.items() if len(sets) == 1 or fits(found.tensors)]
    if len(fitting) > 1:
        keys = " and ".join(map(repr, fitting))
        remedy = "Save the one that you mean in a file of its own"
        raise WeightsError(f"{path}: tensors of this model are under {keys}. {remedy}")
    return sets[fitting[0] if fitting else next(iter(sets))]


def _refuse_nan(path: Path, state: State) -> None:
    if broken := sorted(name for name, value in state.items() if value.isnan().any()):
        raise WeightsError(f"{path}: its weights are no numbers (NaN): {_some(broken)}")


def _told_of(found: Found) -> State:
    lines = _told.get()
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
    """Gives a checkpoint's tensors to ``module`` and returns their number, which is all of the module's.

    They are mapped from a file that holds these tensors alone, in the module's names: made from the checkpoint once,
    then shared by all trials of the machine (``models.cache.weight_cache``). The module may change them; the file stays.

    prefixes: the names under which checkpoints hold the module, tried in order; ``""`` is the module itself.
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

    state = _told_of(Found(*weight_cache.mapped(path, shapes, make)))
    if any(value.is_meta for value in wanted.values()):  # a skeleton: that they fit is all there is to find out
        return len(state)
    module.load_state_dict(state, strict=False, assign=True)  # not strict: the rebuilt tables are not in it
    return len(state)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


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
