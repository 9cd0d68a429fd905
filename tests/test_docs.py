"""README.md and docs/: links, names of modules and files, numbers that tables repeat, and the size of the README."""

import ast
import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from bench import plan, run
from bench.config.sweep import load_sweep

README = REPOSITORY / "README.md"
INDEX = REPOSITORY / "docs" / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
MOST_WORDS = 1250
"""Words of the README: what a reader takes in five minutes."""
LONGEST_PARAGRAPH = 120
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
MODULE = re.compile(r"(?<![\w./-])(?!models\.md\b)(?:bench|models)(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(r"(?<![\w./$<-])(?:bench|models|tests|docs|ablations|results/examples|\.ci)/[\w./-]*\w/?")
INDEFINITE = re.compile(r"\b(nobody|whoever|whatever|anybody|somebody|so many|what was)\b", re.I)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


@each_page
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        target, _, heading = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists() and path.is_relative_to(REPOSITORY), f"{page}: {link}"
        if heading:
            assert heading in headings(path), f"{page}: {link}"


@each_page
def test_modules_exist(page):
    missing = [name for name in MODULE.findall(page.read_text()) if not is_defined(name)]
    assert not missing, f"{page}: no module, or no name in one"


@each_page
def test_paths_exist(page):
    missing = [path for path in PATH.findall(page.read_text()) if not (REPOSITORY / path).exists()]
    assert not missing, f"{page}: no such file or folder in the repository"


@each_page
def test_paragraphs_are_short_and_their_words_definite(page):
    for paragraph in paragraphs(page.read_text()):
        assert len(paragraph.split()) <= LONGEST_PARAGRAPH, f"{page}: {paragraph}"
        assert not INDEFINITE.findall(paragraph), f"{page}: {paragraph}"


PARSERS = {"bench.run": run.parser(), "bench.plan": plan.parser()}
SWEEP_COMMAND = re.compile(r"python3? -m bench\.(?:run|plan) (?:\\\n|[^`\n])*")


def sweep_commands():
    """The commands of all pages that name a sweep file of this repository."""
    found = []
    for page in [*PAGES, *sorted((REPOSITORY / "ablations").glob("*.yaml"))]:
        for text in SWEEP_COMMAND.findall(page.read_text()):
            words = shlex.split(text.replace("\\\n", " "), comments=True)
            if "ablations/" in text and "..." not in words:
                found.append(pytest.param(words[2], words[3:], id=f"{page.stem}: {' '.join(words[3:])}"))
    return found


@pytest.mark.parametrize(("module", "arguments"), sweep_commands())
def test_the_sweep_of_each_command_is_valid(module, arguments):
    options = PARSERS[module].parse_intermixed_args(arguments)
    path, answers = REPOSITORY / options.sweep, module == "bench.run"
    assert load_sweep(path, options.profile, options.overrides, answers=answers).seeds


def test_the_readme_takes_five_minutes():
    assert len(README.read_text().split()) <= MOST_WORDS


def test_the_index_lists_every_page():
    listed = {(INDEX.parent / link).resolve() for link in LINK.findall(INDEX.read_text())}
    assert listed == set(PAGES) - {INDEX}
    assert "docs/README.md" in LINK.findall(README.read_text())


@pytest.mark.parametrize(
    ("page", "example"), [(README, "adapter_rank"), (INDEX.with_name("results.md"), "adapter_rank_ecssd")]
)
def test_numbers_are_those_of_the_leaderboard(page, example):
    """The short table has four rows and five columns of the leaderboard."""
    with (REPOSITORY / "results" / "examples" / example / "leaderboard.csv").open() as file:
        rows = {row["model.adapter.rank"]: row for row in csv.DictReader(file)}
    found = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", page.read_text(), re.M)
    assert [rank for rank, *_ in found] == list(rows)
    for rank, *cells in found:
        row = rows[rank]
        assert [cell.strip("*") for cell in cells] == [
            interval(row, "test.s_measure"),
            interval(row, "test.mae"),
            f"{float(row['training.tensor_bytes']) / 2**20:.1f}",
            f"{float(row['parameters.trainable']) / 1e6:.3f}",
        ]


def interval(row: dict[str, str], quantity: str) -> str:
    return f"{float(row[quantity]):.3f} ± {float(row[f'{quantity}.half_width95']):.3f}"


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module, a package, or a name that a module defines at its top."""
    path, parts = REPOSITORY, name.split(".")
    for number, part in enumerate(parts):
        if (path / part).is_dir():
            path /= part
        elif (path / f"{part}.py").is_file():
            return number == len(parts) - 1 or parts[number + 1] in defined(path / f"{part}.py")
        else:
            return part in defined(path / "__init__.py")
    return True


def defined(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs and items of lists; no code, tables, headings, pictures or comments."""
    lines = []
    for line in [*re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.S).splitlines(), ""]:
        plain = line.strip()
        ends = not plain or plain.startswith(("|", "#", "![", "<")) or line.startswith("    ")
        if ends or re.match(r"(-|\d+\.) ", plain):
            if lines:
                yield " ".join(lines)
            lines = []
        if not ends:
            lines.append(plain)
