"""Data and weights by URI: copied to the path where trials expect them, once per machine, before any trial starts.

A trial's configuration names the path alone, so it stays the same trial wherever its data come from.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from pyarrow import fs

from bench.config.errors import ConfigError
from bench.system.locks import ProcessLock
from models.core.paths import expanded

SCHEMES = ("s3", "gs", "hdfs", "hf", "https", "file")
TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Source:
    path: str
    uri: str


def parse(texts: Sequence[str]) -> tuple[Source, ...]:
    """``PATH=URI`` texts. Raises ``ConfigError`` with one line for each that is something else."""
    sources, errors = [], []
    for text in texts:
        path, _, uri = text.partition("=")
        scheme = re.match(r"([a-z0-9]+)://.", uri)
        if not path or scheme is None or scheme[1] not in SCHEMES:
            allowed = ", ".join(f"{name}://" for name in SCHEMES)
            errors.append(
                f"--fetch '{text}': PATH=URI is needed, as in data/ECSSD=s3://bucket/ECSSD. Allowed: {allowed}"
            )
        sources.append(Source(path, uri))
    if errors:
        raise ConfigError(*errors)
    return tuple(sources)


def fetch(sources: Sequence[Source]) -> list[str]:
    """Copies what is not at its path yet, a file or a whole folder; a line for each that could not be had.

    A copy appears under its name only when it is complete. What is there is not compared with its source.
    """
    problems = []
    for source in sources:
        try:
            _fetch(expanded(source.path), source.uri)
        except Exception as error:  # the file systems of clouds raise what they like, and the user can but read it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            problems.append(f"missing {source.path}, and {source.uri} cannot be fetched: {reason}")
    return problems


def _fetch(path: Path, uri: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.parent / f".{path.name}.lock"
    while (lock := ProcessLock.acquire(lock_path, own_folder=False)) is None:  # another process fetches it
        time.sleep(POLL_SECONDS)
    try:
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            copy = Path(folder) / path.name
            if uri.startswith("https://"):
                with urlopen(uri, timeout=TIMEOUT_SECONDS) as answer, copy.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            else:
                system, place = _open(uri)
                if system.get_file_info(place).type == fs.FileType.NotFound:
                    raise FileNotFoundError("there is nothing")
                fs.copy_files(place, str(copy), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())
            os.replace(copy, path)
    finally:
        lock.release()


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    if uri.startswith("hf://"):
        from huggingface_hub import HfFileSystem  # slow to load, and every command loads this file

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), uri.removeprefix("hf://")
    if uri.startswith("gs://") and "?" not in uri:
        uri += f"?retry_limit_seconds={TIMEOUT_SECONDS}"  # else it tries for a quarter of an hour, deaf to signals
    return fs.FileSystem.from_uri(uri)
