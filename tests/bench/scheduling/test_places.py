"""Where people run it: what notebooks, containers, schedulers and old terminals set must not end a command."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import RANKS, REPOSITORY, SWEEP
from pairs import write_pairs

from bench import score
from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import DataError
from bench.datasets.core import cache
from bench.processes.client import LONGEST_SOCKET, place_for_sockets
from bench.run import main
from bench.scheduling.ray_tune import connection
from models import MODELS
from models.cache import weight_cache
from models.core.encoder_decoder import ENCODERS
from models.core.paths import expanded
from models.core.weights import WeightsError


def python(code: str, folder: Path, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess:
    """Runs a program in a process of its own, with some variables set, or removed by ``None``."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False)


DRAWS = """
import json, os, sys
from pathlib import Path
import bench.records.record, bench.leaderboard.statistics, models  # all that takes long but matplotlib
assert "matplotlib" not in sys.modules
for number, backend in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        os.environ.pop("MPLBACKEND", None)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
        from bench.report import plots
        from matplotlib.figure import Figure
        plots.save(Figure(), Path(f"{number}.png"))
        assert os.environ.get("MPLBACKEND") == backend
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, backend
"""


def test_figures_need_no_backend(tmp_path):
    """A backend that is not installed here is refused by matplotlib itself: nothing may ask it to resolve one."""
    backends = ["module://matplotlib_inline.backend_inline", "nonsense", "", None]
    done = python(DRAWS, tmp_path, json.dumps(backends))
    assert done.returncode == 0, done.stderr.decode()
    assert [path.stat().st_size > 0 for path in tmp_path.glob("*.png")] == [True] * 4


# --- the home directory, and variables in paths -----------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch, tmp_path, capsys):
    """``nobody(*arguments, VARIABLE=value)`` runs a sweep as a user whom the machine does not know and who has no
    ``HOME``, a container's usual one: exit code and what was said."""

    def unknown(number):
        raise KeyError(number)

    def begin(*arguments: str, **values: str) -> tuple[int, str]:
        with monkeypatch.context() as inside:
            inside.chdir(tmp_path)
            inside.setattr("pwd.getpwuid", unknown)
            for name in ("HOME", "SAM3_BENCH_CACHE", "XDG_CACHE_HOME", "LOGNAME", "USER"):
                inside.delenv(name, raising=False)
            for name, value in values.items():
                inside.setenv(name, value)
            (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis="model.adapter.rank: [1]"))
            code = main(["smoke.yaml", *arguments])
            return code, "".join(capsys.readouterr())

    return begin


def test_a_user_without_a_home_is_told_what_to_set(nobody):
    code, said = nobody("--executor", "serial")
    assert code == 2 and len(said.splitlines()) == 1 and "Set SAM3_BENCH_CACHE to a folder with room" in said
    code, said = nobody("--feature-cache", "auto")
    assert code == 2 and len(said.splitlines()) == 1 and "SAM3_BENCH_CACHE" in said
    assert nobody("--dry-run")[0] == 0, "it looks into no cache"


@pytest.mark.parametrize("name", ["SAM3_BENCH_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_that_is_named_needs_no_home(nobody, tmp_path, name):
    code, said = nobody("--executor", "serial", **{name: str(tmp_path / "cache")})
    assert code == 0, said
    assert list((tmp_path / "cache").rglob("*.safetensors"))


def test_ray_needs_a_home_and_the_line_says_so(tmp_path):
    (tmp_path / "smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    code = "import pwd, sys\ndef unknown(number): raise KeyError(number)\npwd.getpwuid = unknown\n"
    code += "from bench import run; sys.exit(run.main(['smoke.yaml']))"
    done = python(code, tmp_path, HOME=None)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2 and "Set HOME to a folder, or add --executor serial" in line


@pytest.fixture
def variables(monkeypatch, tmp_path):
    """``variables(NAME=value)`` is the environment; ``~`` is ``tmp_path/home``."""
    for name in ("SAM3_BENCH_CACHE", "XDG_CACHE_HOME", "SAM3_WEIGHTS", "SAM2_WEIGHTS", "SAM3_UNET_WEIGHTS", "NOPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_variables_and_the_home_stand_for_what_they_are_here(variables, tmp_path):
    home = tmp_path / "home"
    variables(DATA="~/data", EMPTY="")
    written = ["~/a", "$HOME/a", "${HOME}/a", "$DATA/a", "a/~/$HOME", "/a~", "$NOPE/a", "$EMPTY/a", "cost$/$(a)", "~"]
    found = [home / "a", home / "a", home / "a", home / "data/a", Path(f"a/~/{home}"), Path("/a~"), Path("$NOPE/a")]
    assert [expanded(text) for text in written] == [*found, Path("$EMPTY/a"), Path("cost$/$(a)"), home]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"SAM3_BENCH_CACHE": "~/c"}, "home/c"),
        ({"SAM3_BENCH_CACHE": "", "XDG_CACHE_HOME": "$HOME/x"}, "home/x/sam3-bench"),
        ({"SAM3_BENCH_CACHE": "", "XDG_CACHE_HOME": ""}, "home/.cache/sam3-bench"),
    ],
)
def test_the_folder_of_caches(variables, tmp_path, values, expected):
    variables(**values)
    assert cache.root() == tmp_path / expected and weight_cache.root() == tmp_path / expected / "weights"


def test_a_cache_below_a_variable_without_a_value_is_refused(variables):
    variables(SAM3_BENCH_CACHE="$NOPE/cache")
    with pytest.raises(DataError, match=r"^\$NOPE/cache: .* \$NOPE stands for nothing here. Set SAM3_BENCH_CACHE"):
        cache.root()
    with pytest.raises(WeightsError, match="stands for nothing here"):
        weight_cache.root()


def test_weights_and_data_are_found_and_the_trial_stays_as_it_was_written(variables, tmp_path, tiny):
    home = tmp_path / "home"
    write_pairs(home / "pairs", 10)
    variables(SAM3_WEIGHTS="~/sam3.pt", SAM2_WEIGHTS="$HOME/sam2", SAM3_UNET_WEIGHTS="", PLACE=str(home))
    raw = tiny.model_dump()
    raw["dataset"] = {"name": "folder", "images": "~/pairs/images", "masks": "$PLACE/pairs/masks"}
    config = TrialConfig.model_validate(raw)
    assert not list(config.dataset.missing()) and config.dataset.images == "~/pairs/images"
    assert len(DATASETS.build(config.dataset, config.transform).train) == 7
    lacking = DATASETS.parse({"name": "folder", "images": "~/none", "masks": "$NOPE/masks"}).missing()
    assert [m.what for m in lacking] == [f"{home}/none does not exist", "$NOPE/masks does not exist"]
    assert ENCODERS.parse("sam3_vit").checkpoint() == home / "sam3.pt"
    assert ENCODERS.parse("sam2_hiera").checkpoint() == home / "sam2"
    assert ENCODERS.parse({"name": "sam3_vit", "weights": "$PLACE/w.pt"}).checkpoint() == home / "w.pt"
    model = MODELS.parse({"name": "sam3_unet", "encoder": "sam3_vit_tiny", "checkpoint": "released"})
    assert model.checkpoint_path() == Path("weights/SAM3-UNet-20.pth"), "an empty variable is none"


def test_ids_of_trials_do_not_depend_on_the_machine(variables, tmp_path, tiny_with):
    config = tiny_with({"dataset": {"name": "folder", "images": "~/a", "masks": "$HOME/b"}})
    before = config.trial_id
    variables(HOME=str(tmp_path / "elsewhere"))
    assert config.model_copy().trial_id == before
    assert TrialConfig.model_validate_json(config.model_dump_json()).trial_id == before


def test_paths_on_the_command_line(variables, tmp_path, capsys):
    """A shell replaces ``~`` at the start of a word alone, and not behind ``--option=``."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "smoke.yaml").write_text(SWEEP.format(axis=RANKS))
    assert main(["$HOME/smoke.yaml", "--dry-run", "--results=~/r"]) == 0
    assert f"records in {home}/r/smoke" in capsys.readouterr().out.replace("\n", "")
    assert score.main(["--pred=~/none", "--gt=~/none"]) == 2
    assert str(home / "none") in capsys.readouterr().err


# --- a long way to temporary files ------------------------------------------------------------------------------------


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A folder for temporary files that leaves no room for a socket's name."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    return deep


def test_sockets_find_a_place_that_is_short_enough(deep, tmp_path, monkeypatch):
    assert place_for_sockets(33) == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert place_for_sockets(33) == Path("/var/tmp") and place_for_sockets(95) == Path("/var/tmp")
    assert place_for_sockets(96) == Path("/tmp")


def test_rays_own_folder_is_short_and_goes_away(deep, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with connection._own_folder() as own:
        folder = Path(own["_temp_dir"])
        assert folder.is_dir() and len(str(folder)) + connection.SOCKETS_BELOW <= LONGEST_SOCKET
    assert not folder.exists()
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    with connection._own_folder() as own:
        assert own == {"_temp_dir": "/var/tmp/ray"}
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with connection._own_folder() as own:
        assert own == {}, "who sets Ray's own variable means it"
