"""The legend: one wording in Markdown, LaTeX, the terminal and on the page, and only signs that the table has."""

import io

import pytest
from rich.console import Console
from synthetic import synthetic

from bench.report import legend, terminal
from bench.report.latex import escape, latex
from bench.report.legend import Entry, embedded_note, sentences
from bench.report.page.content import content
from bench.report.tables import markdown


def shown(board):
    file = io.StringIO()
    terminal.show(board, Console(file=file, width=160, highlight=False))
    return file.getvalue()


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_all_outputs_say_the_same(seeds):
    results = synthetic(rows=4, seeds=seeds)
    board = results.board()
    page = content(results, board)
    outputs = {"Markdown": markdown(board), "terminal": shown(board), "page": page["legend"]}
    for entry in legend.legend(board):
        text = "" if entry.kind == "second" else entry.text  # only LaTeX and the terminal mark the second-best mean
        assert [name for name, output in outputs.items() if text not in output] == []
        assert escape(entry.text) in latex(board)
    note = embedded_note(board)
    assert note == page["embedded"] and escape(note) in latex(board) and note.split(":")[1] in markdown(board)


def test_signs_are_explained_where_the_table_has_them():
    kinds = {len(seeds): [e.kind for e in legend.legend(synthetic(4, seeds).board())] for seeds in ((0,), (0, 1, 2))}
    assert "spread" in kinds[3] and "tied" in kinds[3] and not {"spread", "tied"} & set(kinds[1])


def test_each_output_has_its_own_sign_for_the_best_and_escapes_the_rest():
    entries = [Entry("best", "a_b"), Entry("second", "c"), Entry("front", "d"), Entry("sentence", "E_f.")]
    assert sentences(entries, "*", "2") == ["* a_b; 2 c; ● d.", "E_f."]
    assert sentences(entries, r"\textbf{x}", escape=escape) == [r"\textbf{x} a\_b; \ensuremath{\bullet} d.", r"E\_f."]
