"""A notation for a choice of encoder blocks: those that get an adapter, and those that are tuned.

=============  ========================================================================
``all``        every block
``none``       no block
``first:N``    the N blocks nearest to the image
``last:N``     the N blocks nearest to the decoder
``every:N``    the N-th, 2N-th, ... block (``every:8`` of 32 is 7, 15, 23, 31 counted from 0)
``[3, 7]``     these blocks, counted from 0
=============  ========================================================================
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from models.core.registry import InvalidModel

ALLOWED = "all, none, first:N, last:N, every:N (N at least 1) or a list of block numbers such as [7, 15]"


def _well_formed(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"all|none|(first|last|every):[1-9]\d*", value):
        return value
    if isinstance(value, list | tuple) and value and all(type(i) is int and i >= 0 for i in value):
        if len(set(value)) == len(value):
            return tuple(sorted(value))
    raise PydanticCustomError("placement", "is no placement. Allowed: {allowed}", {"allowed": ALLOWED})


Placement = Annotated[str | tuple[int, ...], BeforeValidator(_well_formed)]


def resolve(placement: Placement, depth: int, field: str = "placement") -> tuple[int, ...]:
    """Returns the numbers of the chosen blocks, ascending. Raises ``InvalidModel`` for blocks beyond ``depth``.

    >>> resolve("every:2", 6), resolve("last:2", 6), resolve((0, 5), 6)
    ((1, 3, 5), (4, 5), (0, 5))
    """
    if placement == "none":
        return ()
    if placement == "all":
        return tuple(range(depth))
    if isinstance(placement, str):
        word, count = placement.split(":")
        n = int(count)
        if n > depth:
            raise InvalidModel(f"{field}: '{placement}' asks for {n} blocks, but the encoder has {depth}")
        return {
            "first": tuple(range(n)),
            "last": tuple(range(depth - n, depth)),
            "every": tuple(range(n - 1, depth, n)),
        }[word]
    beyond = [i for i in placement if i >= depth]
    if beyond:
        raise InvalidModel(f"{field}: {list(placement)} names {beyond}, but the encoder's blocks are 0 to {depth - 1}")
    return placement
