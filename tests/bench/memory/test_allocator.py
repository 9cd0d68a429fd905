"""The replayed allocator against cases worked out by hand from CUDACachingAllocator's rules."""

from hypothesis import given
from hypothesis import strategies as st

from bench.memory.cuda.allocator import MIB, CachingAllocator, replay, rounded


def test_small_requests_share_a_segment_of_two_mib():
    assert replay([(i, 512 * 1024) for i in range(4)])[1] == 2 * MIB
    assert replay([(i, 512 * 1024) for i in range(5)])[1] == 4 * MIB


def test_middle_requests_take_twenty_mib_and_large_ones_their_own_size():
    assert replay([(0, MIB + 1)])[1] == 20 * MIB
    assert replay([(0, 10 * MIB)])[1] == 10 * MIB
    assert replay([(0, 11 * MIB + 1)])[1] == 12 * MIB


def test_what_was_freed_is_used_again_and_neighbours_are_joined():
    # two of 9 MiB split a segment of 20 (2 MiB are left); freed, the three pieces are one again and serve 20 MiB
    events = [(0, 9 * MIB), (1, 9 * MIB), (0, 0), (1, 0), (2, 20 * MIB)]
    assert replay(events)[1] == 20 * MIB


def test_a_hole_that_is_too_small_is_fragmentation():
    events = [(0, 9 * MIB), (1, 9 * MIB), (0, 0), (2, 10 * MIB)]
    assert replay(events)[1] == 30 * MIB


def test_the_tightest_hole_is_taken():
    allocator = CachingAllocator()
    wide, tight = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.release(wide)
    allocator.release(tight)
    assert allocator.allocate(29 * MIB + 1).address == tight.address
    assert allocator.reserved == 70 * MIB


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(0, 20)), min_size=1, max_size=60))
def test_never_less_than_what_lives_and_everything_can_be_joined_again(requests):
    allocator, held, live, peak = CachingAllocator(), [], 0, 0
    for size, victim in requests:
        held.append((allocator.allocate(size), rounded(size)))
        live += rounded(size)
        peak = max(peak, live)
        if victim < len(held):
            block, freed = held.pop(victim)
            allocator.release(block)
            live -= freed
    assert allocator.reserved >= peak
    for block, _ in held:
        allocator.release(block)
    free = [size for pool in allocator._free.values() for size, _ in pool]
    assert sum(free) == allocator.reserved
    assert all(block.before is None and block.after is None for block in allocator._blocks.values())
