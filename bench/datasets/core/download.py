"""Downloads one file over HTTP, goes on where an earlier attempt stopped, and checks the checksum at the end.

``fsspec`` is not used: its HTTP file system needs aiohttp, and it neither resumes a download nor checks it.
"""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException
from pathlib import Path

from bench.datasets.core.catalogue import File

TIMEOUT_SECONDS = 60
BLOCK = 1 << 20
Watch = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the size of the file, ``None`` if the server does not tell it."""


class DownloadError(Exception):
    """The reason why a download failed, in one line."""


def download(file: File, folder: Path, watch: Watch = lambda done, total: None) -> tuple[Path, str]:
    """Downloads a file into ``folder`` under its own name; returns its path and a line that says how it was checked.

    An interrupted download is kept as ``NAME.part`` (``resume``). A file with the wrong digest is set aside as
    ``NAME.wrong``. Raises ``DownloadError``.
    """
    target = folder / file.url.rsplit("/", 1)[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if file.digest is None:
                return target, "was there already; its source publishes no checksum"
            if _digest(target, file.digest) == file.digest:
                return target, "was there already; checksum agrees"
            raise DownloadError(f"{target}: is there, but its checksum is not {file.digest}. Move it away")
        part = target.with_name(f"{target.name}.part")
        resume(file.url, part, watch)
        found = _digest(part, file.digest or "sha256:")
        if file.digest is not None and found != file.digest:
            wrong = target.with_name(f"{target.name}.wrong")
            part.replace(wrong)
            version_file(part).unlink(missing_ok=True)
            raise DownloadError(f"{file.url}: its checksum is {found}, not {file.digest}. Set aside as {wrong}")
        part.replace(target)
        version_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error})") from None
    return target, "checksum agrees" if file.digest else f"its source publishes no checksum; this file is {found}"


def resume(url: str, part: Path, watch: Watch = lambda done, total: None) -> None:
    """Downloads all of ``url`` to ``part``, from the end of an earlier attempt if the server has the same version.

    ``version_file(part)`` keeps the version that the server named; the caller removes it together with ``part``. Raises
    ``DownloadError`` if the server or the connection fails, and ``OSError`` if the disk refuses.
    """
    about = version_file(part)
    version = _known_version(about) if part.exists() else None
    done = part.stat().st_size if version else 0
    headers = {"Range": f"bytes={done}-", "If-Range": version} if version and done else {}
    total = None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as answer:
            resumed = answer.status == 206
            if not resumed:
                done = 0
            version, length = _version(answer.headers), answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            about.write_text(json.dumps(version))
            with part.open("ab" if resumed else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    done += len(block)
                    watch(done, total)
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        is_complete = error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}"
        if not is_complete:
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise DownloadError(f"{url}: cannot be reached ({error.reason})") from None
    except (HTTPException, TimeoutError, ConnectionError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(f"{url}: the connection broke ({reason}). Run it again to go on") from None
    if total is not None and done < total:
        raise DownloadError(f"{url}: the connection ended after {done:,} of {total:,} bytes. Run it again to go on")


def version_file(part: Path) -> Path:
    """Returns the path of the file that names the version of a partial download."""
    return part.with_name(f"{part.name}.json")


def _known_version(about: Path) -> str | None:
    """Returns the version of the file that an earlier attempt began to download."""
    try:
        return json.loads(about.read_text())
    except (OSError, ValueError):
        return None


def _version(headers: Message) -> str | None:
    """Returns the header that identifies a version of a file; a weak tag does not identify it."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _digest(path: Path, like: str) -> str:
    """Returns ``md5:...`` or ``sha256:...`` of a file, of the kind that ``like`` has."""
    name = like.partition(":")[0]
    state = hashlib.new(name)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
    return f"{name}:{state.hexdigest()}"
