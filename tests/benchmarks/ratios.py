"""The suite's own speed as ratios of two things that are timed side by side in one run.

``python tests/benchmarks/ratios.py`` runs the benchmarks (2 minutes; ``--long`` adds sweeps of 15 minutes), compares each
ratio with the committed one (``ratios.json``) and ends with code 1 where one has become worse by more than a quarter.
``--json FILE`` takes a file that ``pytest --benchmark-json FILE`` has written instead. ``--write`` makes the new ratios
the committed ones and writes them into docs/performance.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMMITTED = HERE / "ratios.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- ratios.py writes from here -->", "<!-- to here -->"
TOLERANCE = 1.25
"""How much worse a ratio may become: the same benchmark on the same machine moves by a tenth."""


@dataclass(frozen=True)
class Pair:
    what: str
    ours: str  # names of benchmarks
    beside: str
    long: bool = False


PAIRS = (
    Pair(
        "a batch of 12 pairs at 336 px: from the cache, and from files as upstream",
        "bench_loading[cache]",
        "bench_loading[files as upstream]",
    ),
    Pair("an epoch of pairs at 336 px: the cache, and upstream's loader", "bench_the_cache", "bench_upstreams_loader"),
    Pair(
        "structure loss: two passes of one dimension, and upstream's square pass",
        "bench_neighbourhood[two passes]",
        "bench_neighbourhood[one square pass as upstream]",
    ),
    Pair(
        "400 MB of weights: mapped, and read from the checkpoint",
        "bench_weights[mapped]",
        "bench_weights[read from the checkpoint]",
    ),
    Pair(
        "a trial of one epoch: in a forked process, and in a new interpreter",
        "bench_process_of_a_trial[forked]",
        "bench_process_of_a_trial[a fresh interpreter]",
    ),
    Pair(
        "the imports of a worker of Ray, and those of torch alone",
        "bench_imports[import bench.scheduling.ray_tune.worker]",
        "bench_imports[import torch]",
    ),
    Pair(
        "the imports of `bench.run`, and those of torch alone",
        "bench_imports[import bench.run]",
        "bench_imports[import torch]",
    ),
    Pair(
        "the embedded sweep of four decoder widths: with the feature cache, and without",
        "bench_embedded_sweep[auto]",
        "bench_embedded_sweep[off]",
        long=True,
    ),
    Pair(
        "four decoder widths over a frozen encoder of 95 M, 40 epochs: with the feature cache, and without",
        "bench_frozen_encoder[auto]",
        "bench_frozen_encoder[off]",
        long=True,
    ),
)


def measured(report: dict[str, Any]) -> dict[str, float]:
    """How many times as long the second thing of each pair took, by medians of the report's rounds."""
    medians = {entry["name"]: entry["stats"]["median"] for entry in report["benchmarks"]}
    pairs = [pair for pair in PAIRS if {pair.ours, pair.beside} <= medians.keys()]
    return {pair.what: float(f"{medians[pair.beside] / medians[pair.ours]:.3g}") for pair in pairs}


def worse(now: dict[str, float], committed: dict[str, float]) -> list[str]:
    """A line for each ratio that has fallen by more than the tolerance."""
    return [
        f"{what}: {now[what]}, {committed[what]} before"
        for what in now
        if what in committed and now[what] * TOLERANCE < committed[what]
    ]


def written(page: str, committed: dict[str, float], machine: str) -> str:
    """The page with the table of ratios between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    rows = "\n".join(f"| {what} | **{ratio:g}** |" for what, ratio in committed.items())
    table = f"| what is timed, and what beside it (on {machine}) | times as long |\n| --- | --: |\n{rows}"
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def run(long: bool) -> dict[str, Any]:
    pairs = [pair for pair in PAIRS if long or not pair.long]
    functions = " or ".join({name.split("[")[0] for pair in pairs for name in (pair.ours, pair.beside)})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pytest", str(HERE), "-o", "python_files=bench_*.py", "-q", "-k", functions]
        subprocess.run([*command, "--benchmark-json", str(report)], cwd=ROOT, check=True)
        return json.loads(report.read_text())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="a report of pytest-benchmark instead of a run")
    parser.add_argument("--long", action="store_true", help="the sweeps of 15 minutes, too")
    parser.add_argument("--write", action="store_true", help="commit these ratios, also to docs/performance.md")
    options = parser.parse_args(arguments)
    report = json.loads(options.json.read_text()) if options.json else run(options.long)
    now, committed = measured(report), json.loads(COMMITTED.read_text())
    for what, ratio in now.items():
        print(f"{ratio:8g}  (committed: {committed.get(what, 'none')})  {what}")
    if options.write:
        committed |= now
        COMMITTED.write_text(json.dumps(committed, indent=2) + "\n")
        cpu = report["machine_info"]["cpu"]
        machine = f"{cpu['brand_raw']}, {cpu['count']} cores, {report['datetime'][:10]}"
        PAGE.write_text(written(PAGE.read_text(), committed, machine))
        return 0
    fallen = worse(now, committed)
    for line in fallen:
        print(f"worse: {line}", file=sys.stderr)
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
