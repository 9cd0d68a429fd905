"""Data and weights by URI: copied once per machine to the path where trials expect them, before any trial starts.

The configuration of a trial contains the path only, so it is the same trial for every URI.

pyarrow and urllib read all schemes; ``fsspec`` would need s3fs, gcsfs and aiohttp for them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from bench.config.errors import ConfigError
from bench.datasets.core.download import TIMEOUT_SECONDS, resume, version_file
from models.cache.made_once import made_once
from models.core.paths import expanded

SCHEMES = ("s3", "gs", "hdfs", "hf", "https", "file")


@dataclass(frozen=True)
class Source:
    """A path on this machine, and the URI of the file or folder that belongs there."""

    path: str
    uri: str


def parse(texts: Sequence[str]) -> tuple[Source, ...]:
    """Reads ``PATH=URI`` texts. Raises ``ConfigError`` with one line for each text of another form."""
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
    """Copies each file or folder that is not at its path yet; returns a line for each that could not be copied.

    A copy appears under its name only when it is complete. An existing path is not compared with its source.
    """
    problems = []
    for source in sources:
        try:
            _fetch(expanded(source.path), source.uri)
        except Exception as error:  # file systems of clouds raise errors of many classes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            problems.append(f"missing {source.path}, and {source.uri} cannot be fetched: {reason}")
    return problems


def _fetch(path: Path, uri: str) -> None:
    def copy(temporary: Path) -> None:
        if uri.startswith("https://"):
            part = path.with_name(f".{path.name}.part")
            resume(uri, part)
            part.replace(temporary)
            version_file(part).unlink(missing_ok=True)
            return
        system, place = _open(uri)
        if system.get_file_info(place).type == fs.FileType.NotFound:
            raise FileNotFoundError("there is nothing")
        fs.copy_files(place, str(temporary), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())

    made_once(path, copy)


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a URI, and the path within it."""
    if uri.startswith("hf://"):
        from huggingface_hub import HfFileSystem  # its import is slow, and every command imports this file

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), uri.removeprefix("hf://")
    if uri.startswith("gs://") and "?" not in uri:
        uri += f"?retry_limit_seconds={TIMEOUT_SECONDS}"  # by default it tries for 15 minutes and ignores signals
    return fs.FileSystem.from_uri(uri)
