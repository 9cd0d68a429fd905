"""Results of futures in their order, with a bounded number of futures beyond the one that is waited for."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_order(futures: Iterable[Future[Result]], ahead: int) -> Iterator[Result]:
    """Yields the result of each future, or raises its error. Up to ``ahead`` later futures are submitted before that.

    futures: an iterator that submits a task when its next item is taken.
    """
    pending: deque[Future[Result]] = deque()
    for future in futures:
        pending.append(future)
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
