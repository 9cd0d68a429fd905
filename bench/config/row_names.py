"""Names of rows in sentences, figures and the page: "rank 64", "LoRA, placement none"."""

from collections.abc import Sequence

MEANINGLESS = ("none", "all", "true", "false")
"""Labels that say nothing without the name of their axis."""


def row_name(labels: Sequence[str], axes: Sequence[str]) -> str:
    """Returns the labels of a row on its axes, joined by commas. Numbers and ``MEANINGLESS`` labels are preceded by the
    short name of their axis; among several axes places such as ``last:2``, too.

    >>> row_name(["64", "none", "LoRA"], ["model.adapter.rank", "model.adapter.name", "variant"])
    'rank 64, adapter none, LoRA'
    >>> row_name(["all", "last:2"], ["model.adapter.placement", "model.tuned_blocks"])
    'placement all, tuned_blocks last:2'
    """
    parts = []
    for axis, label in zip(axes, labels):
        unclear = label[:1].isdigit() or label in MEANINGLESS or (":" in label and len(axes) > 1)
        parts.append(f"{short_name(axis)} {label}" if unclear and axis != "variant" else label)
    return ", ".join(parts)


def short_name(axis: str) -> str:
    """Returns the last part of a dotted path; the last but one for a path that ends in ``name``."""
    *parents, last = axis.split(".")
    return parents[-1] if last == "name" and parents else last
