"""The committed examples: their reports are those of today's code, and no file is committed that is not needed."""

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import REPOSITORY
from matplotlib import ft2font
from PIL import Image

from bench.report.__main__ import main

EXAMPLES = REPOSITORY / "results" / "examples"
EXAMPLE = EXAMPLES / "adapter_rank"
TABLES = ("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "comparisons.csv")
FIGURES = sorted(path.name for path in (EXAMPLE / "figures").glob("*.png"))
DRAWN_WITH = ("3.11.2", "2.14.3")
"""Versions of matplotlib and FreeType that drew the committed figures: PNG files of the suite do not name them."""
REMEDY = "rebuild the examples as docs/contributing.md says, and commit them"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example without its report, with the report made anew."""
    folder = tmp_path_factory.mktemp("examples") / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(*TABLES, "figures", "page.html"))
    assert main([str(folder), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_this_code(rebuilt, name):
    assert (rebuilt / name).read_bytes() == (EXAMPLE / name).read_bytes(), f"{name} is out of date: {REMEDY}"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_this_code(rebuilt, name):
    """Pixel for pixel with the versions that drew them; 1 pixel in 10,000 may differ, by rounding on another CPU. Other
    versions place text otherwise: then the width and most pixels have to be the same."""
    new, old = _pixels(rebuilt / "figures" / name), _pixels(EXAMPLE / "figures" / name)
    if (matplotlib.__version__, ft2font.__freetype_version__) == DRAWN_WITH:
        assert new.shape == old.shape and _differing(new, old) < 1e-4, f"{name} is out of date: {REMEDY}"
    else:
        height = min(len(new), len(old))
        assert new.shape[1:] == old.shape[1:] and height >= 0.95 * max(len(new), len(old))
        assert _differing(new[:height], old[:height]) < 0.1


def test_the_comparison_of_figures_notices_a_word():
    """A changed word of the smallest print is more than the tolerance: about 400 of 900,000 pixels."""
    old = _pixels(EXAMPLE / "figures" / "memory_accuracy.png")
    new = old.copy()
    new[-20:-10, 100:140] = 0
    assert _differing(new, old) > 1e-4


def test_committed_figures_are_those_that_pages_show():
    """No SVG, no PDF, no page: ``python -m bench.report`` makes them."""
    listed = subprocess.run(["git", "ls-files", EXAMPLES], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"this copy of the suite has no git repository: {listed.stderr.strip()}")
    committed = {REPOSITORY / line for line in listed.stdout.splitlines()}
    assert {path.suffix for path in committed} <= {".json", ".parquet", ".safetensors", ".md", ".csv", ".tex", ".png"}
    shown = set()
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            shown.add((page.parent / target).resolve())
    assert {path for path in committed if path.suffix == ".png"} == {path for path in shown if EXAMPLES in path.parents}


def _pixels(path: Path) -> np.ndarray:
    """RGBA values, uint8 [H, W, 4]."""
    return np.asarray(Image.open(path).convert("RGBA"))


def _differing(new: np.ndarray, old: np.ndarray) -> float:
    """Share of pixels of which any channel differs."""
    return float((new != old).any(axis=-1).mean())
