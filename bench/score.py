"""Scores of a folder of predictions by any method: ``python -m bench.score --pred DIR --gt DIR --name METHOD``.

Files are paired by stem. The same PNG files give what upstream's eval.py (sod) or HetNet's eval.py (mirror) prints.
"""

from bench.system import command

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from bench.config.settings import PROTOCOLS, ProtocolConfig
from bench.datasets import DataError
from bench.datasets.masks.mask import BINARY
from bench.datasets.masks.reading import Reading, add_options, reading_of
from bench.datasets.masks.stored import OBJECT
from bench.records import schema
from bench.records.external_scores import FOLDER, ExternalRecord, load_external, targets
from bench.records.provenance import provenance
from bench.scoring.map_folders import LISTED, Inspection, Kind, Pair, find_pairs, full_scales, inspect, read
from bench.scoring.metric_types import Measured, NotFinite
from bench.scoring.metrics import METRICS, OF_PROTOCOL, collect, measure
from bench.system.console import ArgumentParser, Console, complain
from bench.system.files import TargetError, check_targets
from bench.system.machine import cores
from bench.system.process_tree import exit_with_parent
from bench.system.wording import first_lines, some
from models.core.paths import expanded


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 scored, 2 the input is wrong."""
    options = _parser().parse_args(arguments)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    protocol = ProtocolConfig(name=options.protocol, minmax=not options.no_minmax)
    name = options.name or options.pred.resolve().name
    try:
        reading = reading_of(options)
        folder = _target(options, name)
        pairs = find_pairs(options.pred, options.gt, options.mask_suffix, options.recursive)
        check_targets(targets(folder, name), [*(pair.prediction for pair in pairs), *(pair.mask for pair in pairs)])
        record = score_folder(pairs, reading, protocol, name, options, console)
        folder.mkdir(parents=True, exist_ok=True)
        paths = record.save(folder)
    except DataError as error:
        complain(*first_lines(error.errors))
        return 2
    except (NotFinite, TargetError) as error:
        complain(error)
        return 2
    except OSError as error:
        complain(f"{error.filename}: {os.strerror(error.errno)}")
        return 2
    _show(console, record)
    console.print(f"wrote {', '.join(map(str, paths))}", markup=False)
    if options.into:
        console.print("the sweep's command, run again, puts it into the leaderboard; it trains nothing twice")
    return 0


def score_folder(
    pairs: list[Pair],
    reading: Reading,
    protocol: ProtocolConfig,
    name: str,
    options: argparse.Namespace,
    console: Console,
) -> ExternalRecord:
    """Inspects all pairs and then scores them, in ``options.jobs`` processes.

    Raises ``DataError`` with the files that cannot be read without a guess, and ``NotFinite``.
    """
    jobs = min(options.jobs, len(pairs))
    cores_in_words = "1 core" if jobs == 1 else f"{jobs} cores"
    console.print(f"scoring {len(pairs)} pairs, protocol {protocol.name}, on {cores_in_words}")
    started = time.perf_counter()
    with _mapper(jobs) as mapper:

        def each(function: Callable[..., Any], doing: str) -> list[Any]:
            """Applies ``function`` to every pair and shows the progress."""
            work = mapper(function, pairs)
            shown = track(work, doing, len(pairs), console=console, disable=not console.is_terminal, transient=True)
            return list(shown)

        found: list[Inspection] = each(partial(inspect, reading=reading), "checking")
        if failed := [one.error for one in found if one.error]:
            raise DataError(failed)
        scales = full_scales(found)
        measured = each(partial(_measure, reading=reading, scales=scales, protocol=protocol), "scoring")
    seconds = time.perf_counter() - started
    console.print(f"{len(pairs)} pairs in {seconds:.1f} s, {len(pairs) / seconds:.1f} a second")
    notes = _notes(pairs, found, scales, protocol)
    for note in notes:
        console.print(f"note: {note}", markup=False)

    scores = collect([pair.name for pair in pairs], measured, protocol)
    source = provenance(torch.device("cpu"), 1)
    return ExternalRecord(
        name=name,
        protocol=protocol.name,
        minmax=protocol.minmax,
        foreground=reading.foreground if isinstance(reading.foreground, str) else list(reading.foreground),
        ignore=list(reading.ignore),
        notes=notes,
        scores=scores.overall,
        images=len(pairs),
        predictions=str(options.pred.resolve()),
        masks=str(options.gt.resolve()),
        predictions_fingerprint=_fingerprint(pairs, [one.digests[0] for one in found]),
        masks_fingerprint=_fingerprint(pairs, [one.digests[1] for one in found]),
        scored=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=source.commit,
        dirty=source.dirty,
        versions={package: source.versions[package] for package in ("numpy", "pysodmetrics")},
        image_scores=scores.images,
    )


def _measure(pair: Pair, reading: Reading, scales: Mapping[Kind, int], protocol: ProtocolConfig) -> Measured:
    return measure(*read(pair, reading, scales), protocol)


def _notes(
    pairs: list[Pair], found: list[Inspection], scales: Mapping[Kind, int], protocol: ProtocolConfig
) -> list[str]:
    """Returns a line for the user on each special way in which files were read."""

    def line(what: str, names: list[str]) -> list[str]:
        """Returns a line that counts and names the files, if there are any."""
        return [f"{len(names)} {what}: {some(names, LISTED)}"] if names else []

    notes = line("empty masks", [pair.name for pair, one in zip(pairs, found) if one.empty])
    for how in dict.fromkeys(one.how for one in found if one.how != BINARY):
        notes += line(f"masks of {how}", [pair.name for pair, one in zip(pairs, found) if one.how == how])
    if PROTOCOLS.module(protocol.name).OBJECT_ABOVE > OBJECT:
        soft = [pair.name for pair, one in zip(pairs, found) if one.almost_white]
        what = "masks hold levels from 129 to 254, which are background for the"
        notes += line(f"{what} {protocol.name} protocol", soft)
    for kind, scale in scales.items():
        if scale < {"8 bits": 255, "16 bits": 65535, "floats": 1}[kind]:
            notes.append(f"no map of {kind} holds more than {scale}, so {scale} is read as certainty")
    return notes


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Gives a ``map`` in this process or over several; its results come in the order of the tasks."""
    if jobs == 1:
        yield map
        return
    # a forked process needs no imports; on other systems forking is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker, (os.getpid(),)) as executor:
        try:
            yield executor.map
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker(parent: int) -> None:
    """Leaves signals to the parent, and ends this process with the parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=exit_with_parent, args=(parent,), daemon=True).start()


def _target(options: argparse.Namespace, name: str) -> Path:
    """Returns the folder for the record. Raises ``DataError`` if the folder or the name cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise DataError([f"--name {name}: becomes a file name. Allowed: letters, digits and _ . - as in SAM2-UNet"])
    into = options.into
    if into is not None and not into.is_dir():
        raise DataError([f"--into {into}: no such folder. It holds a sweep's records, e.g. results/adapter_rank"])
    sweep = Path("results") if into is None else into
    if newer := schema.newer(sweep / FOLDER / f"{name}.json"):
        raise DataError([newer])
    for record in load_external(sweep)[0]:
        before, now = (record.predictions, record.masks), tuple(str(f.resolve()) for f in (options.pred, options.gt))
        if record.name == name and before != now:
            there = f"{sweep / FOLDER / name}.json scores other files, {' against '.join(before)}"
            raise DataError([f"--name {name}: {there}. Give another name, or delete it"])
    return sweep / FOLDER


def _fingerprint(pairs: list[Pair], digests: list[str]) -> str:
    """Returns 32 hex digits over the names and the contents of files."""
    lines = "\n".join(f"{digest} {pair.name}" for pair, digest in zip(pairs, digests))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _show(console: Console, record: ExternalRecord) -> None:
    console.print(f"{record.name}: {record.images} images, protocol {record.protocol}", markup=False)
    for metric, value in record.scores.items():
        console.print(f"  {METRICS[metric].label:6} {value:.4f}   {metric}", markup=False)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.score", description="Score a folder of predictions.")
    parser.add_argument("--pred", type=expanded, required=True, metavar="DIR", help="the method's maps, 0 to 255")
    parser.add_argument(
        "--gt", type=expanded, required=True, metavar="DIR", help="the masks, of the same stems and sizes"
    )
    parser.add_argument(
        "--mask-suffix", default="", metavar="TEXT", help="what masks' names have after the maps', e.g. _gt"
    )
    parser.add_argument("--recursive", action="store_true", help="read folders within the folders, too")
    add_options(parser)
    parser.add_argument("--protocol", choices=tuple(OF_PROTOCOL), default="sod", help="default: sod")
    parser.add_argument("--no-minmax", action="store_true", help="do not stretch maps to their range, as upstream does")
    parser.add_argument("--name", metavar="METHOD", help="as tables call it (default: the name of the folder)")
    parser.add_argument(
        "--into", type=expanded, metavar="SWEEP", help="results folder of a sweep whose leaderboard shows the scores"
    )
    parser.add_argument("--jobs", type=_positive, default=cores(), metavar="N", help="processes (default: cores)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed (got {text})")
    return int(text)


if __name__ == "__main__":
    sys.exit(command.run(main))
