"""The leaderboard in a terminal: marked, grouped, and as wide as there is room."""

import io

import pytest
from rich.console import Console
from synthetic import HOSTILE, synthetic

from bench.report.terminal import show


def shown(board, width):
    file = io.StringIO()
    show(board, Console(file=file, width=width, highlight=False, soft_wrap=True))
    return file.getvalue()


def test_rows_are_grouped_marked_and_explained():
    text = shown(synthetic(rows=8, seeds=(0, 1, 2)).board(), 250)
    assert "S ↑" in text and "MAE ↓" in text and " ± " in text
    assert text.count("*") >= 2 and "²" in text and "* best mean" in text
    lines = [line for line in text.splitlines() if line.startswith(("1 ", "   "))]
    assert any(line.lstrip().startswith("16") for line in lines)  # the first axis' label stands once in its group
    assert "EMBEDDED RUN" in text and "95 % interval over 3 seeds" in text


@pytest.mark.parametrize("width", [60, 100, 160])
def test_what_has_no_room_is_named_and_numbers_are_whole(width):
    text = shown(synthetic(rows=8, seeds=(0, 1, 2)).board(), width)
    assert "columns without room here: " in text and "train img/s" in text
    assert " ± " in text and "0.…" not in text


def test_every_state_is_in_the_table_and_names_cannot_speak_rich(tmp_path):
    text = shown(synthetic(hostile=True).board(), 250)
    for state in ("oom", "over budget", "error", "missing", "pending"):
        assert state in text
    assert "Environment 2 of 2: not comparable" in text and HOSTILE[:20] in text
    board = synthetic(rows=2, seeds=(0,)).board()
    assert "[red]x[/red]" in shown(type(board)(**{**vars(board), "question": "[red]x[/red]"}), 100)
