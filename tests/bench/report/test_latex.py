"""LaTeX: compiles as it is, marks as papers do, and nothing that a user writes becomes a command."""

import re
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import HOSTILE, synthetic

from bench.report.latex import SPECIAL, escape, latex

ALLOWED = {name for text in SPECIAL.values() for name in re.findall(r"\\([a-zA-Z]+|.)", text)}
ALLOWED |= {"ensuremath", "texttt", "o", "u", "r", "H", "v", "c", "=", ".", '"', "'", "`", "^", "~"}


def braces_balance(text):
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.text(alphabet="\\{}$&#%_^~\"'`-?![]*\n|<>"))
def test_escaped_text_holds_no_command_comment_or_line_end_of_its_own(text):
    found = escape(text)
    assert braces_balance(found) and "\n" not in found and found.isascii()
    assert not re.search(r"(?<!\\)[%$&#_]", found)
    commands = set(re.findall(r"\\([a-zA-Z]+|.)", found))
    greek = {name for name in commands if re.fullmatch("[a-z]{2,7}", name)}
    assert commands - greek <= ALLOWED
    assert not commands & {
        "input",
        "include",
        "write",
        "immediate",
        "openin",
        "catcode",
        "csname",
        "def",
        "end",
        "begin",
    }


def test_a_command_in_a_name_is_printed():
    assert escape(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape("50 % of a_b & c") == r"50 \% of a\_b \& c"
    assert escape("é ü 中") == r"\'{e} \" {u} \texttt{U+4E2D}".replace(r"\" {u}", r"\"{u}")


def test_best_is_bold_and_second_underlined():
    text = latex(synthetic(rows=4, seeds=(0, 1)).board())
    assert text.count(r"\textbf{0.") >= 2 and text.count(r"\underline{0.") >= 2
    assert r"\toprule" in text and r"\bottomrule" in text and r"\usepackage{amsmath,amssymb,array,booktabs" in text
    assert "Embedded run" in text


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("rows", [1, 60])
def test_the_document_is_balanced_and_compiles(tmp_path, rows, hostile):
    text = latex(synthetic(rows=rows, seeds=(0, 1), hostile=hostile).board())
    body = text.split(r"\begin{document}")[1]
    assert braces_balance(text) and HOSTILE not in text and "<script>" not in body
    for name in ("table", "tabular", "fitted", "document"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (texlive-latex-recommended): the document was not compiled")
    (tmp_path / "leaderboard.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "leaderboard.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    assert (tmp_path / "leaderboard.pdf").stat().st_size > 10_000
