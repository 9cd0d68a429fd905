"""The records of a results folder: read, saved, taken over from other folders, and set aside where they are damaged."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.datasets.core import cache
from bench.records import schema
from bench.records.record import MANIFEST, SUFFIXES, TrialRecord
from bench.records.schema import NewerVersion
from bench.system.files import set_aside, write_whole

NOT_ADOPTED = (None, "error", "stopped early")
"""Statuses of records that are not copied from other sweeps; ``None`` is a file that this version cannot read."""


def unsaved() -> Path:
    """Returns the folder of records that could not be written to their results folder; ``adopt`` copies them back."""
    return cache.root() / "unsaved"


def save_or_keep(record: TrialRecord, folder: Path) -> None:
    """Saves a record in ``folder`` or, if that fails, in ``unsaved()``, so that a full disk costs no result.

    Raises the ``OSError`` of the folder if both fail, and for a record with status ``error``.
    """
    try:
        record.save(folder)
    except OSError:
        if record.status == "error":
            raise
        with suppress(OSError):
            unsaved().mkdir(parents=True, exist_ok=True)
            record.save(unsaved())
            return
        raise


def set_aside_damaged(trial_ids: Iterable[str], folder: Path) -> list[str]:
    """If a file of a trial is damaged, renames that file and the record.

    Returns a line for each such trial, which then counts as not run. Raises ``NewerVersion``, without a change, for a
    trial whose record a newer version wrote.
    """
    lines = []
    for trial_id in trial_ids:
        paths = {suffix: folder / f"{trial_id}{suffix}" for suffix in SUFFIXES}
        found = _damaged(paths)
        if found is not None:
            path, reason = found
            aside = [set_aside(p) for p in dict.fromkeys((path, paths[".json"])) if p.exists()]
            lines.append(f"{path}: {reason}; set aside as {', '.join(p.name for p in aside)}")
    return lines


def _damaged(paths: Mapping[str, Path]) -> tuple[Path, str] | None:
    """Returns the first damaged file of a trial, and the reason. Deleted files are no damage."""
    if not paths[".json"].exists():
        return None
    try:
        record = load(paths[".json"])
    except (ValueError, OSError):
        return paths[".json"], "not a readable record"
    odd = next((path for path in paths.values() if path.exists() and not path.is_file()), None)
    if odd is not None:  # opening a pipe may block for ever
        return odd, "is no regular file"
    for suffix in (".images.parquet", ".memory.parquet", ".samples.parquet"):
        try:
            if record.status != "error" and paths[suffix].exists():
                pyarrow.parquet.read_table(paths[suffix], page_checksum_verification=True)
        except (pyarrow.ArrowException, OSError) as error:
            return paths[suffix], f"cannot be read ({str(error).splitlines()[0]})"
    weights = paths[".safetensors"]
    if record.checkpoint_bytes is not None and weights.exists():
        try:
            size = weights.stat().st_size
            safe_open(weights, "pt")
        except (SafetensorError, OSError) as error:
            return weights, f"cannot be read ({error})"
        if size != record.checkpoint_bytes:
            return weights, f"has {size} bytes, {record.checkpoint_bytes} were written"
    return None


class OtherTrial(ValueError):
    """The record in a file says that it is of another trial than the file's name."""


def load(path: Path) -> TrialRecord:
    """Reads a record. Raises ``ValidationError`` and ``OtherTrial``, which are ``ValueError``s, ``NewerVersion`` and
    ``OSError``."""
    record = TrialRecord.model_validate_json(schema.read(path))
    if record.trial_id != path.stem:
        raise OtherTrial(f"it says that it is of trial {record.trial_id!r}")
    return record


def adopt(trial_ids: Iterable[str], folder: Path) -> list[Path]:
    """Copies the records of these trials from other results folders beside ``folder`` and from ``unsaved()``.

    Returns the paths of the originals. Equal configurations are the same trial in every sweep, which is trained once.
    """
    sources = []
    for trial_id in trial_ids:
        for path in [*sorted(folder.parent.glob(f"*/{trial_id}.json")), unsaved() / f"{trial_id}.json"]:
            if (folder / path.name).exists() or path.parent == folder or _status(path) in NOT_ADOPTED:
                continue
            for suffix in SUFFIXES:
                beside = path.with_name(trial_id + suffix)
                if beside.exists():
                    content = beside.read_bytes()
                    write_whole(folder / beside.name, lambda file: file.write(content))
                    if path.parent == unsaved():
                        beside.unlink()
            sources.append(path)
    return sources


def _status(path: Path) -> str | None:
    try:
        return load(path).status
    except (ValueError, OSError, NewerVersion):
        return None


class RecordStore:
    """The records of a results folder. It reads each file once, and again only after the file has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, TrialRecord] = {}
        """By trial id, as of the last ``refresh``."""
        self.problems: list[str] = []
        """A line for each file that holds no record, or that a newer version of the suite wrote."""
        self._files: dict[Path, tuple[tuple[int, ...], TrialRecord | str]] = {}  # by path: its version and content

    def refresh(self) -> dict[str, TrialRecord]:
        """Reads new and changed files and returns all records by trial id. Other processes may write meanwhile."""
        files, self.records, self.problems = {}, {}, []
        for path in sorted(self.folder.glob("*.json")):
            if path.name == MANIFEST:
                continue
            version = _version(path)
            content = self._files[path][1] if path in self._files and self._files[path][0] == version else _read(path)
            files[path] = version, content
            if isinstance(content, str):
                self.problems.append(content)
            else:
                self.records[content.trial_id] = content
        self._files = files
        return dict(self.records)


def _version(path: Path) -> tuple[int, ...]:
    """Returns numbers that change with the file, because files are replaced as a whole; none for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> TrialRecord | str:
    """Reads a record; returns a line where the file holds none that this version can read."""
    try:
        return load(path)
    except (ValueError, OSError) as error:
        reason = schema.unreadable(error, TrialRecord) if isinstance(error, ValidationError) else error
        return f"{path}: not a readable record ({reason})"
    except NewerVersion as error:
        return str(error)


def load_all(folder: Path) -> tuple[dict[str, TrialRecord], list[str]]:
    """Returns all records of a folder by trial id, and a line for each file that is none or comes from a newer version."""
    store = RecordStore(folder)
    return store.refresh(), store.problems


def pending(trials: list[Trial], records: dict[str, TrialRecord]) -> list[Trial]:
    """Returns the trials without a record or with an error."""
    done = {trial_id for trial_id, record in records.items() if record.status != "error"}
    return [trial for trial in trials if trial.trial_id not in done]


def check_writable(folder: Path) -> None:
    """Makes the results folder. Raises ``ConfigError`` if files cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write results there ({os.strerror(error.errno)}). Give --results DIR")
