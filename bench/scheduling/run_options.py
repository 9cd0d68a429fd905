"""The command line of ``bench.run`` and its typed values."""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

from bench.config.errors import ConfigError
from bench.scheduling import resources
from bench.scheduling.trial_queue import Limits
from bench.system.console import ArgumentParser
from bench.training import feature_cache
from models.core.paths import expanded

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Times:
    """Durations in seconds that the command line sets."""

    limits: Limits
    checkpoint: float  # between two saves of the training state
    page: float | None  # between two rebuilds of the page; None: it is not rebuilt while trials run


def parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = ArgumentParser(prog="python -m bench.run", description="Run a sweep and write its leaderboard.")
    parser.add_argument("sweep", type=expanded, help="a sweep file, e.g. ablations/adapter_rank.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.epochs=5 dataset.task=mirror")
    parser.add_argument("--profile", help="a profile of the sweep file (default: its first, 'embedded')")
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the trials, their sizes and what is done; run none"
    )
    resources.add_options(parser)
    parser.add_argument(
        "--trial-time-limit", metavar="TIME", help="end a trial that takes longer in this run, e.g. 90s, 30m, 2h"
    )
    parser.add_argument(
        "--stall-limit", default="30m", metavar="TIME", help="end a trial without a sign of life; off: never (30m)"
    )
    parser.add_argument(
        "--checkpoint-every", default="60s", metavar="TIME", help="how often a trial keeps what it has trained (60s)"
    )
    feature_cache.add_options(parser)
    parser.add_argument(
        "--page-every", default="60s", metavar="TIME", help="how often the page is rebuilt meanwhile; off: never (60s)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def times_of(options: argparse.Namespace) -> Times:
    """Reads the durations. Raises ``ConfigError``."""
    trial, silence, page = options.trial_time_limit, options.stall_limit, options.page_every
    limits = Limits(
        None if trial is None else _seconds("--trial-time-limit", trial, 1),
        None if silence == "off" else _seconds("--stall-limit", silence, 10),
    )
    checkpoint = _seconds("--checkpoint-every", options.checkpoint_every, 0)
    return Times(limits, checkpoint, None if page == "off" else _seconds("--page-every", page, 1))


def _seconds(option: str, text: str, least: float) -> float:
    """Reads a duration such as ``90s`` or ``2h``. Raises ``ConfigError`` for others and for less than ``least``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = float(match[1]) * UNITS[match[2]] if match else math.nan
    if not least <= seconds < math.inf:
        low = f", at least {least:g}s" if least else ""
        raise ConfigError(f"{option} {text}: a number with s, m, h or d is needed, as in 90s, 30m or 2h{low}")
    return seconds
