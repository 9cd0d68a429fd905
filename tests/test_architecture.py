"""The plan of the house, enforced: who may import whom, and who owns which heavy library."""

import ast
import sys
from collections import defaultdict
from pathlib import Path

import bench
import models

ROOT = Path(__file__).resolve().parent.parent
OWNERS = {
    "plotly": {"bench.report.page"},
    "ray": {"bench.scheduling.ray_tune"},
    "tensorboardX": {"bench.watching.trackers"},
    "wandb": {"bench.watching.trackers"},
    "mlflow": {"bench.watching.trackers"},
    "optuna": {"bench.search.tpe"},
    "pynvml": {"bench.memory.nvml"},
    "py_sod_metrics": {"bench.scoring.sod_measures"},
    "matplotlib": {"bench.report.plots"},
    "torchao": {"models.core.frozen"},
}


FLOORS = (
    {"bench.system"},
    {"bench.config"},
    {"bench.datasets"},
    {"bench.scoring", "bench.records"},
    {"bench.training"},
    {"bench.memory"},
    {"bench.trial", "bench.leaderboard"},
    {"bench.search", "bench.report"},
    {"bench.watching", "bench.processes"},
    {"bench.scheduling"},
    {"bench.run", "bench.plan", "bench.score", "bench.data", "bench.predict", "bench.export"},
    {"bench.tools"},
)
"""Packages and files of bench: each imports those before it only. Packages of one floor do not import each other."""
LARGEST_PACKAGE = 14
"""Python files of a package, ``__init__.py`` left out."""
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


def modules() -> dict[str, ast.Module]:
    trees = {}
    for package in ("bench", "models"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return trees


def imports(tree: ast.AST) -> set[str]:
    """Names of the modules that a tree imports; ``from a import b`` counts as ``a`` and ``a.b``, ``module_of("a", ...)``
    as ``a``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "module_of":
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


TREES = modules()


def test_bench_and_models_are_those_of_this_repository():
    assert Path(bench.__file__).parent == ROOT / "bench"
    assert Path(models.__file__).parent == ROOT / "models"


def test_models_know_nothing_of_bench():
    for name, tree in TREES.items():
        if name.startswith("models"):
            assert not {m for m in imports(tree) if m.split(".")[0] == "bench"}, name


def test_packages_import_those_below_them_only():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    rooms = {name: ".".join(name.split(".")[:2]) for name in TREES if name.startswith("bench.")}
    assert set(rooms.values()) == floor.keys()
    upwards = set()
    for name, room in rooms.items():
        for module in imports(TREES[name]) & rooms.keys():
            if rooms[module] != room and floor[rooms[module]] >= floor[room]:
                upwards.add(f"{name} -> {module}")
    assert not upwards


def test_a_package_can_be_taken_in_at_a_glance():
    sizes = defaultdict(int)
    for package in ("bench", "models"):
        for path in (ROOT / package).rglob("*.py"):
            sizes[path.parent.relative_to(ROOT)] += path.name != "__init__.py"
    assert {folder: size for folder, size in sizes.items() if size > LARGEST_PACKAGE} == {}


def test_no_two_modules_of_a_package_differ_by_a_plural():
    """Their names would not say what is in which."""
    assert [name for name in TREES if f"{name}s" in TREES] == []


def test_files_and_functions_are_short():
    long_files, long_functions = set(), set()
    for package in ("bench", "models", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if len(text.splitlines()) > LONGEST_FILE:
                long_files.add(str(path.relative_to(ROOT)))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION:
                    long_functions.add(f"{path.relative_to(ROOT)}: {node.name}")
    assert not long_files and not long_functions


def test_each_heavy_library_has_one_owner():
    """A file, or a folder with all that is in it."""
    users = defaultdict(set)
    owners = {owner for names in OWNERS.values() for owner in names}
    for name, tree in TREES.items():
        for module in imports(tree):
            parents = (name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1))
            users[module.split(".")[0]].add(next((parent for parent in parents if parent in owners), name))
    assert {library: users[library] for library in OWNERS} == OWNERS


def test_no_import_cycles():
    edges = {name: {m for m in imports(tree) if m in TREES and m != name} for name, tree in TREES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in edges[name]:
                if not name.startswith(f"{other}."):  # a module may use its own package
                    visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_every_package_that_is_imported_is_declared():
    """What pip does not install for us must be in pyproject.toml: a fresh machine has nothing else."""
    text = (ROOT / "pyproject.toml").read_text()
    distribution = {
        "fontTools": "fonttools",
        "yaml": "pyyaml",
        "PIL": "pillow",
        "py_sod_metrics": "pysodmetrics",
        "pynvml": "nvidia-ml-py",
    }
    used = {m.split(".")[0] for tree in TREES.values() for m in imports(tree)}
    outside = used - set(sys.stdlib_module_names) - {"bench", "models"}
    outside.remove("pydantic_core")  # a part of pydantic
    names = {name: distribution.get(name, name).replace("_", "-") for name in outside}
    assert {name for name in outside if f'"{names[name]}' not in text} == set()


def test_every_module_says_what_it_is():
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    assert not silent
