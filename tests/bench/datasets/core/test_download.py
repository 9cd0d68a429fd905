"""Downloads from a server that the test runs: whole, resumed, changed, wrong, gone, and none at all."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench import data
from bench.datasets.core.catalogue import BenchmarkSet, File, Source, catalogue
from bench.datasets.core.download import DownloadError, download

CONTENT = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves ``content`` under every path but /gone; ``asked`` has the Range header of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.breaks_after, self.ranges, self.asked = CONTENT, '"one"', None, True, []

    def url(self, name="set.zip"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(server.content[start : server.breaks_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, daemon=True)
        thread.start()
        yield one
        one.shutdown()


SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    seen = []
    path, checked = download(File(url=server.url()), tmp_path, lambda *progress: seen.append(progress))
    assert path.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), len(CONTENT))
    assert checked == f"its source publishes no checksum; this file is {SHA256}"
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]
    assert "was there already" in download(File(url=server.url(), digest=SHA256), tmp_path)[1]
    assert len(server.asked) == 1


def interrupted(server, tmp_path, file):
    server.breaks_after = 5000
    with pytest.raises(DownloadError, match="connection ended after 5,000 of 102,400 bytes. Run it again to go on"):
        download(file, tmp_path)
    server.breaks_after = None


@pytest.mark.parametrize("digest", [SHA256, f"md5:{hashlib.md5(CONTENT).hexdigest()}", None])
def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path, digest):
    file = File(url=server.url(), digest=digest)
    interrupted(server, tmp_path, file)
    assert (tmp_path / "set.zip.part").stat().st_size == 5000
    path, checked = download(file, tmp_path)
    assert path.read_bytes() == CONTENT and server.asked == [None, "bytes=5000-"]
    assert digest is None or checked == "checksum agrees"
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    file = File(url=server.url())
    interrupted(server, tmp_path, file)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert download(file, tmp_path)[0].read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_server_that_cannot_promise_the_rest_is_asked_for_all(server, tmp_path, change):
    for name, value in change.items():
        setattr(server, name, value)
    file = File(url=server.url(), digest=SHA256)
    interrupted(server, tmp_path, file)
    assert download(file, tmp_path)[0].read_bytes() == CONTENT


def test_a_finished_part_is_only_checked(server, tmp_path):
    file = File(url=server.url(), digest=SHA256)
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    (tmp_path / "set.zip.part.json").write_text('"\\"one\\""')
    assert download(file, tmp_path) == (tmp_path / "set.zip", "checksum agrees")


def test_a_wrong_checksum_sets_the_file_aside(server, tmp_path):
    file = File(url=server.url(), digest=f"sha256:{'0' * 64}")
    with pytest.raises(DownloadError, match=f"its checksum is {SHA256}, not sha256:0000.*Set aside as .*set.zip.wrong"):
        download(file, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip.wrong"]


def test_a_file_that_is_there_but_wrong_is_not_touched(server, tmp_path):
    (tmp_path / "set.zip").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="is there, but its checksum is not .* Move it away"):
        download(File(url=server.url(), digest=SHA256), tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == b"mine" and not server.asked


def test_gone_and_unreachable(server, tmp_path):
    with pytest.raises(DownloadError, match="/gone: the server answers 404 Not Found"):
        download(File(url=server.url("gone")), tmp_path)
    server.server_close()
    server.shutdown()
    with pytest.raises(DownloadError, match="cannot be reached .*refused"):
        download(File(url=server.url()), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.zip"])
def test_only_the_web_is_fetched_from(url):
    with pytest.raises(ValueError):
        File(url=url)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_source(monkeypatch):
    """``with_source(source)`` makes it the only source of a set ECSSD."""

    def replace(source):
        real = catalogue()
        entry = BenchmarkSet.model_validate({**real.sets["ECSSD"].model_dump(), "sources": [source.model_dump()]})
        changed = real.model_copy(update={"sets": {**real.sets, "ECSSD": entry}})
        monkeypatch.setattr(data, "catalogue", lambda: changed)

    return replace


def test_fetch_shows_terms_and_downloads_only_when_told_where(server, with_source, tmp_path, capsys):
    with_source(Source(page="http://here", files=[File(url=server.url(), digest=SHA256)]))
    assert data.main(["fetch", "ecssd"]) == 0
    assert "terms: No licence found" in capsys.readouterr().out and not server.asked
    assert data.main(["fetch", "ECSSD", "--to", str(tmp_path)]) == 0
    assert "set.zip: checksum agrees" in capsys.readouterr().out
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_fetch_that_fails_ends_with_1_and_names_the_page(server, with_source, tmp_path, capsys):
    with_source(Source(page="http://the-page", files=[File(url=server.url("gone")), File(url=server.url())]))
    assert data.main(["fetch", "ECSSD", "--to", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "404" in said.err and "look at http://the-page" in said.err
    assert (tmp_path / "set.zip").exists()  # the others are fetched all the same


def test_fetch_says_plainly_where_a_person_must_act(with_source, tmp_path, capsys):
    with_source(Source(page="http://the-page", access="ask", how="write to them"))
    assert data.main(["fetch", "ECSSD", "--to", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "http://the-page, a person must ask for access; write to them" in said.out
    assert "a person has to follow one" in said.err
