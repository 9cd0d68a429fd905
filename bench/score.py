"""Scores any method's folder of predictions: ``python -m bench.score --pred DIR --gt DIR --name METHOD``.

Files are paired by stem. The same PNG files give what upstream's eval.py (sod) or HetNet's eval.py (mirror) prints.
"""

from bench import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from bench.datasets import DataError, some
from bench.external import FOLDER, ExternalRecord, load_external, targets
from bench.family import end_with
from bench.files import TargetError, check_targets
from bench.predictions import LISTED, UNREADABLE, Pair, check_sizes, find_pairs, grey
from bench.protocol import ProtocolConfig
from bench.provenance import provenance
from bench.scores import METRICS, Measured, collect, measure


class Result(NamedTuple):
    """What came of one pair: its scores, or why there are none."""

    measured: Measured | None
    digests: tuple[str, str]
    empty: bool
    binary: bool  # a mask of 0 and 1, read as 0 and 255
    error: str


def main(arguments: list[str]) -> int:
    """Exit code: 0 scored, 2 the input is wrong."""
    options = _parser().parse_args(arguments)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    protocol = ProtocolConfig(name=options.protocol, minmax=not options.no_minmax)
    name = options.name or options.pred.resolve().name
    try:
        folder = _target(options, name)
        pairs = find_pairs(options.pred, options.gt)
        check_targets(targets(folder, name), [path for pair in pairs for path in pair[1:]])
        check_sizes(pairs)
        record = score_folder(pairs, protocol, name, options, console)
        folder.mkdir(parents=True, exist_ok=True)
        paths = record.save(folder)
    except DataError as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except TargetError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {os.strerror(error.errno)}", file=sys.stderr)
        return 2
    _show(console, record)
    console.print(f"wrote {', '.join(map(str, paths))}", markup=False)
    if options.into:
        console.print("the sweep's command, run again, puts it into the leaderboard; it trains nothing twice")
    return 0


def score_folder(
    pairs: list[Pair], protocol: ProtocolConfig, name: str, options: argparse.Namespace, console: Console
) -> ExternalRecord:
    """Scores all pairs on ``options.jobs`` processes. Raises ``DataError`` naming the files that cannot be read."""
    jobs = min(options.jobs, len(pairs))
    console.print(f"scoring {len(pairs)} pairs, protocol {protocol.name}, on {jobs} core{'s' * (jobs > 1)}")
    started = time.perf_counter()
    with _mapper(jobs) as mapper:
        work = mapper(_score_pair, [(pair, protocol) for pair in pairs])
        shown = track(work, "scoring", len(pairs), console=console, disable=not console.is_terminal, transient=True)
        results = list(shown)
    failed = [result.error for result in results if result.error]
    if failed:
        raise DataError(failed)
    seconds = time.perf_counter() - started
    console.print(f"{len(pairs)} pairs in {seconds:.1f} s, {len(pairs) / seconds:.1f} a second")
    for what, names in (
        ("empty masks", [p.name for p, r in zip(pairs, results) if r.empty]),
        ("masks of 0 and 1, read as 0 and 255", [p.name for p, r in zip(pairs, results) if r.binary]),
    ):
        if names:
            console.print(f"note: {len(names)} {what}: {some(names, LISTED)}", markup=False)

    scores = collect([pair.name for pair in pairs], [result.measured for result in results], protocol)
    source = provenance(torch.device("cpu"), 1)
    return ExternalRecord(
        name=name,
        protocol=protocol.name,
        minmax=protocol.minmax,
        scores=scores.overall,
        images=len(pairs),
        predictions=str(options.pred.resolve()),
        masks=str(options.gt.resolve()),
        predictions_fingerprint=_fingerprint(pairs, [r.digests[0] for r in results]),
        masks_fingerprint=_fingerprint(pairs, [r.digests[1] for r in results]),
        scored=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=source.commit,
        dirty=source.dirty,
        versions={package: source.versions[package] for package in ("numpy", "pysodmetrics")},
        image_scores=scores.images,
    )


def _score_pair(task: tuple[Pair, ProtocolConfig]) -> Result:
    """Errors are returned, not raised: one unreadable file must not hide the next."""
    pair, protocol = task
    digests, maps = [], []
    for path in pair[1:]:
        try:
            content = path.read_bytes()
            maps.append(grey(content))
        except UNREADABLE as error:
            return Result(None, ("", ""), False, False, f"{path}: cannot be read ({error})")
        digests.append(hashlib.blake2b(content, digest_size=16).hexdigest())
    prediction, mask = maps
    if binary := mask.max() == 1:
        mask = mask * np.uint8(255)
    return Result(measure(prediction, mask, protocol), tuple(digests), not mask.any(), bool(binary), "")


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """``map`` in this process or over several; results come in the order of the tasks either way."""
    if jobs == 1:
        yield map
        return
    # a forked process has all imports done; elsewhere forking is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker, (os.getpid(),)) as executor:
        try:
            yield executor.map
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker(parent: int) -> None:
    """Signals are for the parent, with which this process ends, however that ends: its queue would not tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def _target(options: argparse.Namespace, name: str) -> Path:
    """The folder for the record. Raises ``DataError`` when it or the name cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise DataError([f"--name {name}: becomes a file name. Allowed: letters, digits and _ . - as in SAM2-UNet"])
    into = options.into
    if into is not None and not into.is_dir():
        raise DataError([f"--into {into}: no such folder. It holds a sweep's records, e.g. results/adapter_rank"])
    sweep = Path("results") if into is None else into
    for record in load_external(sweep)[0]:
        before, now = (record.predictions, record.masks), tuple(str(f.resolve()) for f in (options.pred, options.gt))
        if record.name == name and before != now:
            there = f"{sweep / FOLDER / name}.json scores other files, {' against '.join(before)}"
            raise DataError([f"--name {name}: {there}. Give another name, or delete it"])
    return sweep / FOLDER


def _fingerprint(pairs: list[Pair], digests: list[str]) -> str:
    lines = "\n".join(f"{digest} {pair.name}" for pair, digest in zip(pairs, digests))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _show(console: Console, record: ExternalRecord) -> None:
    console.print(f"{record.name}: {record.images} images, protocol {record.protocol}", markup=False)
    for metric, value in record.scores.items():
        console.print(f"  {METRICS[metric].label:6} {value:.4f}   {metric}", markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.score", description="Score a folder of predictions.")
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR", help="the method's maps, 0 to 255")
    parser.add_argument("--gt", type=Path, required=True, metavar="DIR", help="the masks, of the same stems and sizes")
    parser.add_argument("--protocol", choices=("sod", "mirror"), default="sod", help="default: sod")
    parser.add_argument("--no-minmax", action="store_true", help="do not stretch maps to their range, as upstream does")
    parser.add_argument("--name", metavar="METHOD", help="as tables call it (default: the name of the folder)")
    parser.add_argument("--into", type=Path, metavar="SWEEP", help="results folder of a sweep to stand beside")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=_positive, default=cores, metavar="N", help="processes (default: cores)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed (got {text})")
    return int(text)


if __name__ == "__main__":
    sys.exit(command.run(main))
