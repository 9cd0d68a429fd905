"""Results as one zip file: the report, and all files from which another machine rebuilds the same report.

The same results give the same bytes: files are sorted and carry no dates.
"""

import platform
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import IO

from bench import report
from bench.config.errors import ConfigError
from bench.leaderboard.results import Results
from bench.records import sweep_json
from bench.records.external_scores import FOLDER
from bench.system.files import OwnFolder, write_whole

ENVIRONMENT = "environment.txt"
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the zip format
LARGEST_BYTES = 8 * 2**30
MOST_FILES = 200_000
CHUNK = 1 << 20
UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError)
"""Errors of zipfile for files that are damaged, encrypted or no zip files."""


def pack(results: Results, path: Path, with_weights: bool = False) -> int:
    """Writes a bundle, whole or not at all, and returns the number of files in it.

    It holds records, per-image scores, samples, memory series, ``sweep.json``, the report and a list of this machine's
    packages (each record names the packages of its own run); ``with_weights`` also the trained weights.
    """
    with OwnFolder() as own:
        staging = own / "bundle"
        staging.mkdir()
        report.write(results, staging)
        found = results
        sweep_json.of(found.sweep, found.trials, found.absent, found.predicted, found.remarks, found.tuned).save(
            staging
        )
        (staging / FOLDER).mkdir()
        for record in results.external:
            record.save(staging / FOLDER)
        (staging / ENVIRONMENT).write_text(_environment(), encoding="utf-8")
        files = {file.relative_to(staging).as_posix(): file for file in staging.rglob("*") if file.is_file()}
        for trial_id in sorted(results.records):
            for file in results.folders[trial_id].glob(f"{trial_id}.*"):
                if file.suffix in (".json", ".parquet") or with_weights and file.name == f"{trial_id}.safetensors":
                    files[file.name] = file
        try:
            write_whole(path, lambda target: _zip(files, target))
        except OSError as error:
            raise ConfigError(f"--bundle {path}: cannot be written ({error.strerror or error})") from None
    return len(files)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yields the folder of results: ``path`` itself, or the unpacked bundle, which is deleted afterwards.

    Raises ``ConfigError`` for a file that is no bundle or that is not safe to unpack.
    """
    if not path.is_file():
        yield path
        return
    with OwnFolder() as own:
        target = own / (path.stem or "bundle")
        target.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(path, archive, target)
        except UNREADABLE as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: is no bundle that can be read ({error})") from None
        inside = list(target.iterdir())
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _zip(files: dict[str, Path], target: IO[bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, on all systems
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name].read_bytes())


def _unpack(path: Path, archive: zipfile.ZipFile, target: Path) -> None:
    """Unpacks an archive if all its entries are safe, else nothing."""
    entries = archive.infolist()
    _check_entries(path, entries)
    for entry in entries:
        place = target.joinpath(*PurePosixPath(entry.filename).parts)
        if entry.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        left = entry.file_size
        with archive.open(entry) as source, place.open("wb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ConfigError(f"{path}: {entry.filename!r} is larger than its entry says; it is no bundle")
                file.write(chunk)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises ``ConfigError`` for too much data, and for entries that are outside, links or duplicates."""
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_BYTES or len(entries) > MOST_FILES:
        raise ConfigError(
            f"{path}: would unpack to {total / 2**30:.1f} GiB in {len(entries)} files. "
            f"At most {LARGEST_BYTES // 2**30} GiB in {MOST_FILES} files are allowed"
        )
    seen: set[tuple[str, ...]] = set()
    for entry in entries:
        name = entry.filename
        parts = PurePosixPath(name).parts
        outside = name.startswith("/") or "\\" in name or ".." in parts or ":" in name
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if outside or not parts or kind not in (0, stat.S_IFREG, stat.S_IFDIR) or parts in seen:
            raise ConfigError(f"{path}: holds {name!r}, which no bundle does; nothing was unpacked")
        seen.add(parts)  # two spellings of one path are the same file


def _environment() -> str:
    """Returns the Python version, system and packages of this machine, one in each line."""
    packages: dict[str, str] = {}
    for found in distributions():  # Python imports the first of two with one name
        packages.setdefault((found.metadata["Name"] or "").lower(), found.version)
    packages.pop("", None)
    lines = [f"# packed by Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += ["# every record names the versions that it was measured with"]
    return "\n".join([*lines, *(f"{name}=={number}" for name, number in sorted(packages.items())), ""])
