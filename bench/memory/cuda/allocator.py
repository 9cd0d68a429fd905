"""A model of torch's CUDA caching allocator: from the sizes of tensors to the memory reserved on the card.

Rules and constants are those of pytorch, c10/cuda/CUDACachingAllocator.{h,cpp}, with default settings: best fit, one
pool of small and one of large blocks, no expandable segments. On an almost full card torch frees unused segments and
tries again. That is not modelled, so the figure is that of an empty, large card.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

MIB = 2**20
ROUND = 512
SMALL = MIB  # requests up to here share segments of 2 MiB
SMALL_SEGMENT = 2 * MIB
MIN_LARGE = 10 * MIB  # requests below get a segment of 20 MiB
LARGE_SEGMENT = 20 * MIB
ROUND_LARGE = 2 * MIB


def rounded(size: int) -> int:
    """Returns the bytes that ``torch.cuda.memory_allocated`` counts for a request of ``size``; 0 for an empty tensor.

    >>> rounded(1), rounded(512), rounded(513), rounded(0)
    (512, 512, 1024, 0)
    """
    return -(-size // ROUND) * ROUND


@dataclass(eq=False)
class _Block:
    size: int
    address: int
    small: bool
    before: "_Block | None" = None
    after: "_Block | None" = None
    free: bool = False


@dataclass
class CachingAllocator:
    """Replays requests and releases, one after the other; ``reserved`` is the sum of all segments in bytes."""

    reserved: int = 0
    _free: dict[bool, list[tuple[int, int]]] = field(default_factory=lambda: {True: [], False: []})
    _blocks: dict[int, _Block] = field(default_factory=dict)  # free ones, by address
    _next_address: int = 0

    def allocate(self, size: int) -> _Block:
        """Takes the smallest free block that fits, else a new segment, and splits off the rest of the block."""
        size = rounded(size)
        small = size <= SMALL
        pool = self._free[small]
        place = bisect_left(pool, (size, 0))
        if place < len(pool):
            block = self._blocks.pop(pool.pop(place)[1])
            block.free = False
        else:
            block = self._segment(size, small)
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            tail = _Block(rest, block.address + size, small, before=block, after=block.after)
            if block.after:
                block.after.before = tail
            block.size, block.after = size, tail
            self._put_back(tail)
        return block

    def release(self, block: _Block) -> None:
        """Frees a block and merges it with its free neighbours."""
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                self._free[neighbour.small].remove((neighbour.size, neighbour.address))
                del self._blocks[neighbour.address]
                if neighbour is block.before:
                    block.address, block.before = neighbour.address, neighbour.before
                    if block.before:
                        block.before.after = block
                else:
                    block.after = neighbour.after
                    if block.after:
                        block.after.before = block
                block.size += neighbour.size
        self._put_back(block)

    def _segment(self, size: int, small: bool) -> _Block:
        if small:
            whole = SMALL_SEGMENT
        elif size < MIN_LARGE:
            whole = LARGE_SEGMENT
        else:
            whole = -(-size // ROUND_LARGE) * ROUND_LARGE
        block = _Block(whole, self._next_address, small)
        self._next_address += 2 * whole  # segments are never neighbours
        self.reserved += whole
        return block

    def _put_back(self, block: _Block) -> None:
        block.free = True
        self._blocks[block.address] = block
        insort(self._free[block.small], (block.size, block.address))


def replay(events: Iterable[tuple[int, int]]) -> tuple[list[int], int]:
    """Replays ``(number, bytes)`` events: a request if bytes > 0, the release of the same number if 0.

    Returns for each event the change of the bytes that ``torch.cuda.memory_allocated`` counts, and the bytes reserved
    at the end. torch counts whole blocks, and leaves up to 1 MiB of a large block unsplit: a request of 13.5 MiB takes
    a segment of 14 MiB, and counts as 14 MiB.
    """
    allocator, held, changes = CachingAllocator(), {}, []
    for number, size in events:
        if size:
            held[number] = allocator.allocate(size)
            changes.append(held[number].size)
        else:
            block = held.pop(number, None)
            changes.append(-block.size if block else 0)
            if block:
                allocator.release(block)
    return changes, allocator.reserved
