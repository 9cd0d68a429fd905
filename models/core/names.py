"""Names of tensors in the suite and in upstream's code, translated in both directions for their checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Names:
    """Pairs (ours, theirs): a name starts with one of the ``prefixes`` and may contain any of the ``parts``.

    >>> names = Names(prefixes=(("decoder.head.", "head."),), parts=((".adapter.", ".prompt_learn."),))
    >>> names.theirs("decoder.head.bias"), names.ours("head.bias"), names.ours("decoder.head.bias")
    ('head.bias', 'decoder.head.bias', 'decoder.head.bias')
    """

    prefixes: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...] = ()

    def theirs(self, name: str) -> str:
        """Translates the suite's name of a tensor to upstream's."""
        return _translate(name, self.prefixes, self.parts)

    def ours(self, name: str) -> str:
        """Translates upstream's name of a tensor to the suite's; the suite's names and other names stay as they are."""
        if any(name.startswith(prefix) for prefix, _ in self.prefixes):
            return name
        prefixes = tuple((theirs, ours) for ours, theirs in self.prefixes)
        return _translate(name, prefixes, tuple((theirs, ours) for ours, theirs in self.parts))


def renamed(state: dict[str, Value], rename: Callable[[str], str]) -> dict[str, Value]:
    """Renames the keys of a dictionary; their order stays."""
    return {rename(name): value for name, value in state.items()}


def _translate(name: str, prefixes: tuple[tuple[str, str], ...], parts: tuple[tuple[str, str], ...]) -> str:
    for before, after in prefixes:
        if name.startswith(before):
            name = after + name.removeprefix(before)
            break
    else:
        return name
    for before, after in parts:
        name = name.replace(before, after)
    return name
