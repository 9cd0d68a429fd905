"""What a trial's process tells whoever started it: a line of JSON for each epoch, an empty one as a sign of life; and
how it ends with whoever started it."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from bench.training.loop import Epoch


@contextmanager
def telling() -> Iterator[tuple[Callable[[Epoch], None], Callable[[], None]]]:
    """Two functions that tell an epoch and a sign of life. What a library prints meanwhile goes to standard error.

    Where nobody listens any more, they end the process: as an exception that would become the trial's record.
    """
    listens = sys.stdout

    def say(line: str) -> None:
        try:
            print(line, file=listens, flush=True)
        except OSError:
            os._exit(1)

    def tell(epoch: Epoch) -> None:
        say(json.dumps(dataclasses.asdict(epoch)))

    def alive() -> None:
        say("")

    with redirect_stdout(sys.stderr):
        yield tell, alive


def end_with_input() -> None:
    """Waits for the end of standard input, which who started this process holds open, and then ends it."""
    while os.read(0, 1):
        pass
    os._exit(1)


def hear(line: str, on_epoch: Callable[[Epoch], Any], on_step: Callable[[], Any]) -> None:
    """Hands on what a line says."""
    if line.strip():
        on_epoch(Epoch(**json.loads(line)))
    else:
        on_step()
