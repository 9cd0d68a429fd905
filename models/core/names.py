"""Names of tensors here and in upstream's code, translated both ways, so that checkpoints can travel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Names:
    """Pairs (ours, theirs): one of the ``prefixes`` starts a name, any of the ``parts`` may follow inside it.

    >>> names = Names(prefixes=(("decoder.head.", "head."),), parts=((".adapter.", ".prompt_learn."),))
    >>> names.theirs("decoder.head.bias"), names.ours("head.bias"), names.ours("decoder.head.bias")
    ('head.bias', 'decoder.head.bias', 'decoder.head.bias')
    """

    prefixes: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...] = ()

    def theirs(self, name: str) -> str:
        """Upstream's name of our tensor."""
        return _translate(name, self.prefixes, self.parts)

    def ours(self, name: str) -> str:
        """Our name of upstream's tensor; a name that is ours already, or that neither knows, stays as it is."""
        if any(name.startswith(prefix) for prefix, _ in self.prefixes):
            return name
        prefixes = tuple((theirs, ours) for ours, theirs in self.prefixes)
        return _translate(name, prefixes, tuple((theirs, ours) for ours, theirs in self.parts))


def renamed(state: dict[str, Value], rename: Callable[[str], str]) -> dict[str, Value]:
    """The same values under other names, in the same order."""
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
