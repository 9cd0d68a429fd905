"""Names and labels that steer a terminal, turn the direction of writing, hide or calculate: neutral in every output."""

import csv
import io
import re
import sys
from dataclasses import replace

import pytest
import synthetic
from conftest import RANKS, SWEEP
from pairs import write_pairs
from rich.table import Table
from rich.text import Text

from bench import data, plan, predict, run, score
from bench.records import sweep_json
from bench.report import page, terminal
from bench.report import __main__ as report
from bench.report.latex import latex
from bench.report.tables import as_csv, comparisons_csv, markdown
from bench.system import console
from bench.system.command import _Stream
from bench.system.sanitize import csv_cell, harmless

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\x08\x7f\x9b1m"
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HIDES = "\u200b\u200c\u200d\u2060\ufeff\xad\u2028\u2029"
NASTY = f"=HYPERLINK(1){ESCAPES}{TURNS}{HIDES}@"


def raw(text, also=""):
    """Which of the characters that no output may hold it holds."""
    return sorted(set(text) & set(ESCAPES.translate(dict.fromkeys(range(32, 127))) + TURNS + HIDES + also))


def test_what_has_no_look_of_its_own_is_written_out():
    assert harmless("\x1b[2J a\u202eb\nc\u200b\ud800") == "\\x1b[2J a\\u202eb\\nc\\u200b\\ud800"
    assert harmless("one\ntwo\tthree", keep="\n") == "one\ntwo\\tthree"
    usual = "Größe ± 3 中文 עברית العربية é \U0001f600 □ \\x1b"
    assert harmless(usual) == usual and harmless(harmless(NASTY)) == harmless(NASTY)
    assert raw(harmless(NASTY)) == [] and raw(NASTY)


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-1 + 1", "-"])
def test_what_a_spreadsheet_would_calculate_gets_an_apostrophe(text):
    assert csv_cell(text) == "'" + harmless(text)


@pytest.mark.parametrize("value", ["-1", "+0.5", "-1e-05", "-inf", "a=b", "", "last:2", -1, 0.5, None, True])
def test_numbers_and_other_texts_stay_as_they_are(value):
    assert csv_cell(value) is value


@pytest.fixture(scope="module")
def nasty():
    """Results with the text wherever a user or a file can put one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "HOSTILE", NASTY)
        made = synthetic.synthetic(rows=12, seeds=(0, 1), hostile=True)
    sweep = made.sweep._replace(name=f"{NASTY}name", profile=NASTY)
    return replace(made, sweep=sweep, remarks=[NASTY])


def shown(board, **look):
    file = io.StringIO()
    terminal.show(board, console.Console(file=file, width=250, highlight=False, soft_wrap=True, **look))
    return file.getvalue()


def test_no_table_holds_any_of_it(nasty):
    board = nasty.board()
    for text in (markdown(board), as_csv(board), comparisons_csv(board), latex(board), page.html(nasty, board)):
        assert text and raw(text) == []  # the page writes U+2028 as JSON does
    assert raw(shown(board)) == [] and "\\x1b[2J" in shown(board)


def test_no_cell_of_a_csv_file_is_a_formula(nasty):
    board = nasty.board()
    board = replace(board, axes=(f"={board.axes[0]}", *board.axes[1:]))
    for text in (as_csv(board), comparisons_csv(board)):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        formulas = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert any(cell.startswith("'=") for cell in cells) and all(map(_is_number, formulas))


def _is_number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False


def test_a_terminal_keeps_its_own_colours():
    file = io.StringIO()
    made = console.Console(file=file, force_terminal=True, color_system="standard", width=80)
    table = Table("name", "number")
    table.add_row(f"{NASTY}\nsecond line", Text("1", "bold red"))
    made.print(table)
    made.print(NASTY, markup=False, highlight=False)
    text = file.getvalue()
    assert "\x1b[1;31m1" in text and "\x1b[2J" not in text and "\x1b]0" not in text and raw(text) == ["\x1b"]
    assert "second line" in text
    assert harmless(NASTY) in text.replace("\n", ""), "what is written out counts for the width of a line"
    *lines, _ = re.sub("\x1b\\[[0-9;]*m", "", text).partition("┘")[0].splitlines()
    assert len(set(map(len, lines))) == 1, "and of a column"


def test_errors_repeat_what_was_typed_without_doing_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    typed = NASTY.replace("\0", "")
    lines = [
        (run, ["smoke.yaml", f"--{typed}", "--dry-run"]),
        (run, [typed, "--dry-run"]),
        (run, ["smoke.yaml", "--dry-run", "--profile", typed]),
        (run, ["smoke.yaml", "--dry-run", "--executor", typed]),
        (report, [typed]),
        (plan, ["smoke.yaml", "--card", typed]),
        (score, ["--pred", ".", "--gt", ".", "--name", typed]),
        (data, ["fetch", typed]),
        (data, ["check", typed]),
        (predict, ["x", typed, "out"]),
    ]
    for command, arguments in lines:
        try:
            code = command.main(arguments)
        except SystemExit as end:  # of argparse
            code = end.code
        out, err = capsys.readouterr()
        assert code == 2 and raw(out + err) == [] and "\\x1b" in err, (command, arguments, out, err)


def test_conditions_and_orders_of_a_report(tmp_path, capsys):
    made = synthetic.synthetic(rows=2, seeds=(0,))
    sweep_json.of(made.sweep, made.trials).save(tmp_path)
    for record in made.records.values():
        record.save(tmp_path)
    for arguments in (["--where", NASTY], ["--where", f"status == {NASTY}"], ["--sort", NASTY]):
        assert report.main([str(tmp_path), "--out", str(tmp_path / "out"), *arguments]) == 2
        out, err = capsys.readouterr()
        assert raw(out + err) == [] and "\\x1b" in err


def test_file_names_are_named_and_do_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, masks = write_pairs(tmp_path, 3)
    (images / f"{NASTY}.txt").write_text("no image")
    (masks / f"{NASTY}.png").write_bytes(b"no image")
    assert data.main(["check", str(tmp_path)]) == 1
    assert score.main(["--pred", str(masks), "--gt", str(masks), "--name", "x", "--jobs", "1"]) == 2
    out, err = capsys.readouterr()
    assert raw(out + err) == [] and "\\x1b" in out and "\\x1b" in err


# --- streams that lack characters -------------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch):
    """``narrow(encoding)`` gives standard output and error that encoding; the result reads what was written."""

    def replace_streams(encoding):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
        monkeypatch.setattr(sys, "stderr", _Stream(streams["stderr"], "standard error"))
        monkeypatch.setattr(sys, "stdout", _Stream(streams["stdout"], "standard output", report_to=sys.stderr))

        def written(name):
            streams[name].flush()
            return streams[name].buffer.getvalue().decode(encoding)

        return written

    return replace_streams


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_a_stream_lacks_are_replaced(narrow, tmp_path, monkeypatch, encoding):
    """In every command: what they say has arrows, dashes and signs, and names have what people write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis="model.adapter.rank: {中文 ≈: 1}"), encoding="utf-8")
    made = synthetic.synthetic(rows=3, seeds=(0, 1))
    results = tmp_path / "results" / "made"
    results.mkdir(parents=True)
    sweep_json.of(made.sweep, made.trials).save(results)
    for record in made.records.values():
        record.save(results)
    written = narrow(encoding)
    assert run.main(["smoke.yaml", "--dry-run"]) == 0
    assert report.main([str(results)]) == 0
    assert data.main(["list"]) == 0
    assert "?" in written("stdout") and not written("stderr")
    for command, arguments in ((run, ["中文.yaml", "--dry-run"]), (report, ["中文"]), (data, ["fetch", "中文"])):
        assert command.main(arguments) == 2
    assert score.main(["--pred", "中文", "--gt", "中文"]) == 2
    assert predict.main(["中文", "中文", "out"]) == 2
    assert plan.main(["中文.yaml"]) == 2
    assert "\\u4e2d\\u6587" in written("stderr")
