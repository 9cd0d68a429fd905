"""How often answers claim a difference where there is none: ``python -m bench.tools.no_effect``.

It trains a pool of trials that differ by their seed alone (one row of ``ablations/adapter_rank.yaml``; finished trials
are kept, so the same command continues). Then it draws sweeps: trials of the pool, each at most once, become the rows
and seeds of a sweep without any effect, and ``bench.leaderboard`` answers its planned question. Rows of a real sweep
share seeds; the rows drawn here share numbers of seeds only, so pairing by seed takes no luck away. The same sweeps
with a known effect, added to the scores of one row or along the axis, show the power.

Tries that share a pool are not independent. The interval of a share is that of other draws from this pool. For other
pools the standard error is larger, at most sqrt(p (1 - p) (m / N + 1 / T)) with m trials a sweep, N trials in the pool
and T tries (Hoeffding 1948, for the mean over all draws).
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

from bench import run
from bench.config.ask import AskConfig
from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.sweep import folder_name, load_sweep
from bench.leaderboard.inference.answer import Answer, answer
from bench.leaderboard.results import Results, load
from bench.records.provenance import commit_in_words
from bench.records.store import check_writable
from bench.scoring.metrics import METRICS, main_metric
from bench.system.console import ArgumentParser, complain
from bench.system.files import TargetError, check_targets, write_whole
from bench.system.interrupt import INTERRUPTED
from models.core.paths import expanded
from models.core.registry import Config

SWEEP = Path(__file__).resolve().parents[2] / "ablations/adapter_rank.yaml"
ROW = ("name=no_effect", "model.adapter.rank=[16]", "ask=best")
FILE = "no_effect_answers"
ASKED = ("trend", "reference", "best")
LEAST_ROWS, LEAST_SEEDS = 3, 2
ALLOWED = 0.05
"""Allowed share of false claims. Standard errors are those of a share from it to 1 less it."""


class Share(Config):
    """How many tries were answered by a difference, and by an equivalence, for one question and one effect."""

    ask: str
    effect: float
    """0, or what is added: the rise from first to last row (trend), or the gain of the second row (others)."""
    tries: int
    found: int
    """Tries with a resolved trend, or with any resolved pair of rows."""
    low: float
    """95 % interval of the share that was found, over other draws from the same pool (Clopper and Pearson 1934)."""
    high: float
    error: float
    """Largest standard error of the share over other pools; of a share of 5 % where fewer tries were found."""
    equivalent: int
    """Tries in which rows, or the ends of the trend, were called equivalent."""


def main(arguments: list[str]) -> int:
    """Trains, draws, prints and writes. Exit code: 0 done, 2 the input is wrong or too few trials are ok, 130
    interrupted."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        _check(options)
        settings = [*ROW, f"seeds=[{', '.join(map(str, range(options.trials)))}]", *options.overrides]
        sweep = load_sweep(SWEEP, None, settings)
        check_targets([options.results / f"{FILE}.{ending}" for ending in ("md", "json")])
        check_writable(options.results)
        code = run.main([str(SWEEP), *settings, "--results", str(options.results), "--executor", options.executor])
        if code in (2, INTERRUPTED):
            return code
        results, _ = load(options.results / folder_name(sweep))
        metric, pool = scores_of(results)
        if len(pool) < options.rows * options.seeds:
            raise ConfigError(_too_few(len(pool), options, "trials that are ok"))
        shares = list(shares_of(pool, metric, options))
        _write(shares, len(pool), metric, results, options)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.tools.no_effect", description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the trials, e.g. train.epochs=1")
    parser.add_argument("--trials", type=int, default=60, metavar="N", help="trials of the pool, default: 60")
    parser.add_argument("--rows", type=int, default=4, help="rows of a sweep, default: 4")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of a sweep, default: 5")
    parser.add_argument("--tries", type=int, default=100, help="sweeps that are drawn, default: 100")
    parser.add_argument(
        "--effects", type=float, nargs="+", default=[0.005, 0.01, 0.02], metavar="D", help="added effects, besides none"
    )
    parser.add_argument("--draw", type=int, default=0, metavar="SEED", help="seed of the draws, default: 0")
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--executor", choices=("ray", "serial"), default="ray", help="of the trials; serial needs no Ray"
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raises ``ConfigError`` for numbers with which nothing can be drawn."""
    for name, least in (("rows", LEAST_ROWS), ("seeds", LEAST_SEEDS), ("tries", 1), ("draw", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} {getattr(options, name)}: a number from {least} is needed")
    if not all(math.isfinite(effect) for effect in options.effects):
        raise ConfigError(f"--effects: finite numbers are needed (got {options.effects})")
    if options.trials < options.rows * options.seeds:
        raise ConfigError(_too_few(options.trials, options, "--trials"))


def _too_few(count: int, options: argparse.Namespace, noun: str) -> str:
    needed = options.rows * options.seeds
    remedy = "Give more --trials, or fewer --rows or --seeds"
    return f"{noun}: {count}, but a sweep of {options.rows} rows x {options.seeds} seeds needs {needed}. {remedy}"


def scores_of(results: Results) -> tuple[str, np.ndarray]:
    """Returns the main metric and its scores [trial, image] of all trials that are ok.

    Raises ``ConfigError`` where trials have different test images.
    """
    records = [results.records[trial.trial_id] for trial in results.trials if trial.trial_id in results.images]
    known = [results.images[record.trial_id] for record in records if record.status == "ok"]
    metric = main_metric(metric for columns in known for metric in columns)
    if metric is None:
        raise ConfigError("no trial of the pool is ok: nothing can be drawn")
    if len({tuple(columns["name"]) for columns in known}) > 1:
        raise ConfigError("the trials of the pool have different test images: fix the split, as in dataset.split=fixed")
    return metric, np.array([columns[metric] for columns in known], dtype=float)


def shares_of(pool: np.ndarray, metric: str, options: argparse.Namespace) -> Iterator[Share]:
    """Yields the share of each question and effect. pool: scores [trial, image]; every effect has the same draws."""
    for effect in dict.fromkeys([0.0, *options.effects]):
        rng = np.random.default_rng(options.draw)
        found, equivalent = dict.fromkeys(ASKED, 0), dict.fromkeys(ASKED, 0)
        for _ in range(options.tries):
            chosen = rng.permutation(len(pool))[: options.rows * options.seeds]
            table = pool[chosen].reshape(options.rows, options.seeds, -1)
            for name in ASKED:
                said = _answer(table, name, effect, metric)
                found[name] += differs(said)
                equivalent[name] += bool(said.groups) or said.ends_equivalent
        for name in ASKED:
            share = _share(name, effect, options, found[name], equivalent[name], len(pool))
            print(f"{name}, effect {effect:g}: a difference in {share.found} of {share.tries} tries", flush=True)
            yield share


def differs(said: Answer) -> bool:
    """Returns whether an answer claims any difference."""
    if said.ask.name == "trend":
        return said.trend is not None and said.trend.resolved
    return any(comparison.resolved for comparison in said.comparisons)


def _answer(table: np.ndarray, name: str, effect: float, metric: str) -> Answer:
    rows = len(table)
    labels = [str(2**row) for row in range(rows)]
    gains = effect * (np.arange(rows) / (rows - 1) if name == "trend" else np.arange(rows) == 1)
    ask = AskConfig(name=name, reference=labels[0] if name == "reference" else None)
    axis = Axis.over("model.adapter.rank", {label: int(label) for label in labels})
    scored = METRICS[metric]
    return answer(
        ask, [axis], [(label,) for label in labels], table + gains[:, None, None], scored.label, scored.better
    )


def _share(name: str, effect: float, options: argparse.Namespace, found: int, equivalent: int, trials: int) -> Share:
    tries, p = options.tries, found / options.tries
    likely = min(max(p, ALLOWED), 1 - ALLOWED)  # a share of none of the tries is not known without error
    error = math.sqrt(likely * (1 - likely) * (options.rows * options.seeds / trials + 1 / tries))
    low = float(betaincinv(found, tries - found + 1, 0.025)) if found else 0.0
    high = float(betaincinv(found + 1, tries - found, 0.975)) if found < tries else 1.0
    return Share(
        ask=name, effect=effect, tries=tries, found=found, low=low, high=high, error=error, equivalent=equivalent
    )


def lines_of(shares: Sequence[Share], trials: int, label: str, options: argparse.Namespace) -> list[str]:
    """Returns the lines of a Markdown table, with the sentences that it needs."""
    lines = [
        f"{options.tries} sweeps of {options.rows} rows x {options.seeds} seeds, drawn from {trials} trials that differ by "
        f"their seed alone; metric {label}. Tries share the pool, so they are not independent: the interval is that of "
        "other draws from this pool, and the last column bounds the standard error over other pools.",
        "",
        "| question | effect | claims a difference | 95 % interval | names equivalent rows | standard error, at most |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for each in shares:
        effect = f"{each.effect:g}" if each.effect else "none"
        cells = (each.ask, effect, f"{each.found / each.tries:.2f}", f"{each.low:.2f} to {each.high:.2f}")
        lines.append(f"| {' | '.join(cells)} | {each.equivalent / each.tries:.2f} | {each.error:.2f} |")
    return lines


def _write(shares: Sequence[Share], trials: int, metric: str, results: Results, options: argparse.Namespace) -> None:
    """Prints the table and writes it as Markdown, and as JSON with the provenance of the pool."""
    lines = lines_of(shares, trials, METRICS[metric].label, options)
    print("\n".join(lines))
    sources = [record.provenance for record in results.records.values() if record.provenance]
    facts = {
        "commit": commit_in_words() or None,
        "pool": {
            "trials": trials,
            "commits": sorted({source.commit or "unknown" for source in sources}),
            "host_cpu": sorted({source.host_cpu for source in sources}),
            "versions": sources[0].versions if sources else None,
            "dataset_fingerprint": sorted({source.dataset_fingerprint or "unknown" for source in sources}),
            "config": results.trials[0].config.model_dump(mode="json", exclude={"seed"}),
        },
        "draws": {name: getattr(options, name) for name in ("rows", "seeds", "tries", "draw")},
        "metric": metric,
        "shares": [share.model_dump() for share in shares],
    }
    page = "\n".join(["# Sweeps without an effect", "", *lines, ""])
    texts = {"md": page, "json": json.dumps(facts, indent=2) + "\n"}
    for ending, text in texts.items():
        write_whole(options.results / f"{FILE}.{ending}", lambda file, text=text: file.write(text.encode()))


if __name__ == "__main__":
    sys.exit(command.run(main))
