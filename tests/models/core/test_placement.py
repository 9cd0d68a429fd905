import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from models.core.placement import Placement, resolve
from models.core.registry import InvalidModel

PARSE = TypeAdapter(Placement).validate_python


@pytest.mark.parametrize(
    ("placement", "depth", "blocks"),
    [
        ("all", 3, (0, 1, 2)),
        ("none", 3, ()),
        ("first:2", 4, (0, 1)),
        ("last:2", 4, (2, 3)),
        ("every:8", 32, (7, 15, 23, 31)),  # SAM3's global-attention blocks
        ([5, 1], 6, (1, 5)),
    ],
)
def test_each_word(placement, depth, blocks):
    assert resolve(PARSE(placement), depth) == blocks


@pytest.mark.parametrize(
    "wrong", ["", "al", "first", "first:0", "last:-1", "every:x", "first:1.5", [], [-1], [1, 1], [True], 3, None]
)
def test_what_is_no_placement_names_what_is(wrong):
    with pytest.raises(ValidationError, match="first:N, last:N, every:N"):
        PARSE(wrong)


@pytest.mark.parametrize("beyond", ["first:9", "last:9", "every:9", [2, 8]])
def test_beyond_the_depth_names_field_and_depth(beyond):
    with pytest.raises(InvalidModel, match=r"tuned_blocks.*(8|0 to 7)"):
        resolve(PARSE(beyond), 8, "tuned_blocks")


@given(word=st.sampled_from(["first", "last", "every"]), n=st.integers(1, 40), depth=st.integers(1, 40))
def test_blocks_are_ascending_distinct_and_within_the_depth(word, n, depth):
    if n > depth:
        with pytest.raises(InvalidModel):
            resolve(f"{word}:{n}", depth)
        return
    blocks = resolve(f"{word}:{n}", depth)
    assert list(blocks) == sorted(set(blocks))
    assert all(0 <= b < depth for b in blocks)
    assert len(blocks) == (depth // n if word == "every" else n)
