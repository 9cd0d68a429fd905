"""One list of card sizes for plans, tables and figures."""

import ast
from pathlib import Path

import pytest

import bench
from bench.memory.cards import CARDS, USABLE, fits, smallest_card

GIB = 2**30


@pytest.mark.parametrize(
    ("gib", "card"), [(1, 6), (6 * USABLE, 6), (5.9, 8), (8 * USABLE + 0.01, 12), (30, 40), (77, 80), (79, None)]
)
def test_the_smallest_card_that_is_large_enough(gib, card):
    assert smallest_card(gib * GIB) == card
    assert card is None or fits(gib * GIB, card) and not any(fits(gib * GIB, c) for c in CARDS if c < card)


def test_no_other_file_lists_cards():
    root = Path(bench.__file__).parent
    owners = set()
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "CARDS" for target in node.targets):
                owners.add(path.relative_to(root).as_posix())
    assert owners == {"memory/cards.py"}
