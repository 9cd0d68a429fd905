"""Size of the images for which a model is built: the side of a square, or height and width."""

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

LARGEST_SIDE = 8192


def _well_formed(value: Any) -> Any:
    sides = (value, value) if type(value) is int else value
    if (
        isinstance(sides, list | tuple)
        and len(sides) == 2
        and all(type(s) is int and 0 < s <= LARGEST_SIDE for s in sides)
    ):
        return sides[0] if sides[0] == sides[1] else tuple(sides)
    allowed = f"a side such as 336, or [height, width], up to {LARGEST_SIDE}"
    raise PydanticCustomError("size", "is no size in pixels. Allowed: {allowed}", {"allowed": allowed})


Size = Annotated[int | tuple[int, int], BeforeValidator(_well_formed)]
"""Pixels. ``[336, 336]`` is 336, so that it is the same trial."""


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of a size.

    >>> height_width(336), height_width((336, 448))
    ((336, 336), (336, 448))
    """
    return (size, size) if isinstance(size, int) else size


def in_words(size: int | tuple[int, int]) -> str:
    """Words a size.

    >>> in_words(336), in_words((336, 448))
    ('336', '336 x 448')
    """
    return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"


def misfit(size: int | tuple[int, int], step: int) -> str | None:
    """Words the nearest sizes whose sides are multiples of ``step``; ``None`` if the size is one of them.

    >>> misfit(350, 14), misfit(340, 14), misfit((336, 440), 14)
    (None, '336, 350', '[336, 434], [336, 448]')
    """
    sides = height_width(size)
    if not any(side % step for side in sides):
        return None
    near = [[side // step * step + up * (side % step > 0) for side in sides] for up in (0, step)]
    return ", ".join(str(low if isinstance(size, int) else [low, high]) for low, high in near if low and high)
