"""Where people run it: what notebooks, containers, schedulers and old terminals set must not end a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def python(code: str, folder: Path, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess:
    """Runs a program in a process of its own, with some variables set, or removed by ``None``."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False)


DRAWS = """
import os
from pathlib import Path
from bench.report import plots
from matplotlib.figure import Figure
plots.save(Figure(), Path("empty.png"))
print(os.environ.get("MPLBACKEND"))
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "", None])
def test_figures_need_no_backend(tmp_path, backend):
    """A backend that is not installed here is refused by matplotlib itself: nothing may ask it to resolve one."""
    done = python(DRAWS, tmp_path, MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == str(backend)
    assert (tmp_path / "empty.png").stat().st_size > 0
