"""Errors of processes that left no record, in words."""

import pytest

from bench.records import failures


@pytest.mark.parametrize(
    ("said", "how", "line"),
    [
        (
            "",
            "the process ended with code 3 and without a record",
            "the process ended with code 3 and without a record",
        ),
        (
            "a\n\n  b\nc\nd\n",
            "the process was killed by SIGSEGV",
            "the process was killed by SIGSEGV; its standard error ended with: b / c / d",
        ),
        (
            "x: no\n",
            "rank 1 of 2: the process ended with code 1",
            "rank 1 of 2: the process ended with code 1; its standard error ended with: x: no",
        ),
        (
            "No module named torch\n",
            "the process that starts trials cannot be reached: [Errno 2]",
            "the process that starts trials cannot be reached: [Errno 2]; its standard error ended with: No module "
            "named torch",
        ),
        ("Traceback\n  File\n", "KeyError: 'x'", "KeyError: 'x'"),  # a trial's own error is its last line
        ("", "", ""),
    ],
)
def test_how_a_process_ended_and_what_it_said_fit_a_line(said, how, line):
    assert failures.in_a_line(failures.without_record(said, how)) == line


def test_a_process_that_talks_a_lot_leaves_its_last_lines():
    said = "\n".join(f"warning {i}" for i in range(10_000))
    lines = failures.without_record(said, "the process ended with code 1").splitlines()
    assert len(lines) == failures.LINES_KEPT + 1 and lines[-2:] == [
        "warning 9999",
        "the process ended with code 1",
    ]
