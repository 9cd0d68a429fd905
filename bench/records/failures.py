"""The error of a trial whose process left no record, and errors as one line of a table."""

import re
import signal

LINES_KEPT = 50
"""Of standard error, in the record of a process that left none itself."""
LINES_SHOWN = 3
"""Of those, in a row of a table."""
ENDED = re.compile(r"\bthe process (that starts trials )?(ended|was killed|cannot be reached)\b")
"""In the last line of the error of a process that left no record."""
SERVER_DIED = "the process that starts trials was killed"


def without_record(said: str, how: str) -> str:
    """The error of a process that left no record: the last lines of its standard error, then how it ended."""
    return "\n".join([*said.strip().splitlines()[-LINES_KEPT:], how])


def in_a_line(error: str) -> str:
    """A trial's error for a table: its last line and, of a process without a record, the end of its standard error."""
    *before, last = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    if not before or not ENDED.search(last):
        return last
    return f"{last}; its standard error ended with: {' / '.join(before[-LINES_SHOWN:])}"


def in_words(code: int) -> str:
    """How a process without a record ended, by its exit code."""
    if code >= 0:
        return f"the process ended with code {code} and without a record"
    hint = " (often the kernel's doing, when memory runs out)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"
