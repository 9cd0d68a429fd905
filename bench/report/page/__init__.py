"""The results of a sweep as one HTML file that needs neither server nor network.

The same results give the same bytes. Texts of users and files (labels, questions, errors, image names) are stored as
JSON that cannot end its element, and are shown as text, never as markup. The content security policy allows the two
scripts by their hashes and forbids every request.
"""

import base64
import gzip
import hashlib
import html as markup
import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from bench.leaderboard.leaderboard import Leaderboard
from bench.leaderboard.results import Results
from bench.report.page.content import content
from bench.report.page.pictures import samples
from bench.system.sanitize import INVISIBLE, harmless

NAME = "page.html"
"""Name of the file in the folder of results."""
LIMIT_BYTES = 7_900_000
"""Largest size of the page; further samples are left out. Mail servers often refuse the 10 MB of 8 encoded MB."""
ESCAPED = re.compile(r"\\(?:u00|[bfr])")  # control characters, as JSON writes them
SCRIPTS = ("document.js", "sketch.js", "table.js", "plots.js", "trial.js", "compare.js", "first.js", "main.js")


def html(results: Results, board: Leaderboard, saved: Mapping[str, str] | None = None) -> str:
    """Returns the whole page. saved: texts of the files that it offers, by name, if they exist (``content``)."""
    data = content(results, board, saved)
    parts = {
        "title": markup.escape(harmless(board.name)),
        "style": _asset("page.css"),
        "plotly": _packed_plotly(),
        "script": _script(),
        "policy": _policy(),
    }
    first = _json(data)
    room = LIMIT_BYTES - sum(len(part.encode()) for part in parts.values()) - len(first.encode())
    parts["data"] = f"{first[:-1]},{_json(samples(results, room))[1:]}"  # one object
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("template.html"))


def _json(data: Any) -> str:
    """Returns JSON that cannot end its ``<script>`` element, without characters that hide or reverse text."""
    text = _dumped(data)
    if ESCAPED.search(text) or any(unicodedata.category(character) in INVISIBLE for character in set(text)):
        text = _dumped(_harmless(data))
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _dumped(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _harmless(data: Any) -> Any:
    if isinstance(data, str):
        return harmless(data, keep="\n\t\u2028\u2029")  # a page may show the ends of lines
    if isinstance(data, Mapping):
        return {_harmless(name): _harmless(value) for name, value in data.items()}
    return [_harmless(value) for value in data] if isinstance(data, list | tuple) else data


@cache
def _asset(name: str) -> str:
    return (files("bench.report.page") / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """Returns the code of the page, for one script element."""
    return "\n".join(['"use strict";', *(_asset(name) for name in SCRIPTS)])


@cache
def _packed_plotly() -> str:
    """Returns plotly.js, compressed to a third of its size; the browser unpacks it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


@cache
def _policy() -> str:
    """Returns the content security policy: no requests; styles and pictures of the page itself only."""
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (_script(), get_plotlyjs())]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
