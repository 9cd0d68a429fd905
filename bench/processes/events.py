"""Events that a trial's process reports to its client: one line of JSON for each epoch, an empty line as a heartbeat."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from bench.training.loop import Epoch


@contextmanager
def report_events() -> Iterator[tuple[Callable[[Epoch], None], Callable[[], None]]]:
    """Yields two functions that report an epoch and a heartbeat on standard output.

    The output of libraries goes to standard error meanwhile. If the client has ended, the functions end the process:
    an exception would become the trial's record.
    """
    output = sys.stdout

    def write(line: str) -> None:
        try:
            print(line, file=output, flush=True)
        except OSError:
            os._exit(1)

    def report_epoch(epoch: Epoch) -> None:
        write(json.dumps(dataclasses.asdict(epoch)))

    def heartbeat() -> None:
        write("")

    with redirect_stdout(sys.stderr):
        yield report_epoch, heartbeat


def dispatch_event(line: str, on_epoch: Callable[[Epoch], Any], on_heartbeat: Callable[[], Any]) -> None:
    """Calls the function for the event that a line reports."""
    if line.strip():
        on_epoch(Epoch(**json.loads(line)))
    else:
        on_heartbeat()


def exit_with_input() -> None:
    """Waits for the end of standard input, which the parent holds open, and then ends this process."""
    while os.read(0, 1):
        pass
    os._exit(1)
