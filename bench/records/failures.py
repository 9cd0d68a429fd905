"""Error texts: of trials whose process ended without a record, and as one line of a table."""

import re
import signal

LINES_KEPT = 50
"""Maximum number of lines of standard error in the record of a process that ended without one."""
LINES_SHOWN = 3
"""Maximum number of these lines in a row of a table."""
ENDED = re.compile(r"\bthe process (that starts trials )?(ended|was killed|cannot be reached)\b")
"""Pattern in the last line of the error of a process that ended without a record."""
SERVER_DIED = "the process that starts trials was killed"


def without_record(said: str, how: str) -> str:
    """Returns the error of a process without a record: last lines of its standard error, then how it ended."""
    return "\n".join([*said.strip().splitlines()[-LINES_KEPT:], how])


def in_a_line(error: str) -> str:
    """Returns an error as one line: its last line and, for a process without a record, the end of standard error."""
    *before, last = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    if not before or not ENDED.search(last):
        return last
    return f"{last}; its standard error ended with: {' / '.join(before[-LINES_SHOWN:])}"


def in_words(code: int) -> str:
    """Explains the exit code of a process that ended without a record."""
    if code >= 0:
        return f"the process ended with code {code} and without a record"
    hint = " (often the kernel's doing, when memory runs out)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"
