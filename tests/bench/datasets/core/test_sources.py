"""Data and weights by URI. The network is replaced by ``file://``, which takes the same way through pyarrow."""

import io
import json
import threading
from email.message import Message
from pathlib import Path

import pytest
from pairs import write_pairs

from bench.config.errors import ConfigError
from bench.config.trial import with_value
from bench.datasets.core.sources import Source, fetch, parse
from bench.run import main
from bench.scheduling import cluster


def test_paths_and_uris_are_told_apart():
    assert parse(["data/x=s3://bucket/x?region=eu", "w.pt=hf://datasets/a/b@main/w.pt"]) == (
        Source("data/x", "s3://bucket/x?region=eu"),
        Source("w.pt", "hf://datasets/a/b@main/w.pt"),
    )
    wrong = ["data/x", "=s3://b/x", "x=/local", "x=ftp://h/x", "x=http://h/x", "x=s3://"]
    with pytest.raises(ConfigError) as caught:
        parse(wrong)
    assert len(caught.value.lines) == len(wrong) and all("--fetch '" in line for line in caught.value.lines)


def test_a_folder_and_a_file_arrive_whole_and_once(tmp_path):
    write_pairs(tmp_path / "far", 3)
    (tmp_path / "far/w.pt").write_bytes(b"weights")
    wanted = [
        Source(str(tmp_path / "near/deep/pairs"), (tmp_path / "far").as_uri()),
        Source(str(tmp_path / "near/w.pt"), (tmp_path / "far/w.pt").as_uri()),
    ]
    threads = [threading.Thread(target=fetch, args=(wanted,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    def content(folder: Path) -> dict:
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert content(tmp_path / "near/deep/pairs") == content(tmp_path / "far")
    assert (tmp_path / "near/w.pt").read_bytes() == b"weights"
    (tmp_path / "near/w.pt").write_bytes(b"mine")
    assert fetch(wanted) == [] and (tmp_path / "near/w.pt").read_bytes() == b"mine"
    assert not [p for p in (tmp_path / "near").rglob(".*") if p.suffix != ".lock"]


def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(url, timeout):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (tmp_path / "file").write_text("")
    uris = {"a": (tmp_path / "nowhere").as_uri(), "b": "https://host/w.pt", "file/c": (tmp_path / "file").as_uri()}
    problems = fetch([Source(str(tmp_path / name), uri) for name, uri in uris.items()])
    assert len(problems) == 3 and all(len(line.splitlines()) == 1 for line in problems)
    assert "cannot be fetched: there is nothing" in problems[0] and "no route to host" in problems[1]
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


class Answer(io.BytesIO):
    """What a server answers; ``length`` is the one that it promises."""

    def __init__(self, content, length, status=200):
        super().__init__(content)
        self.status, self.headers = status, Message()
        self.headers["ETag"], self.headers["Content-Length"] = '"one"', str(length)


def test_a_connection_that_breaks_is_an_error_and_the_next_fetch_goes_on(tmp_path, monkeypatch):
    wanted = [Source(str(tmp_path / "w.pt"), "https://host/w.pt")]
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: Answer(b"half", 9))
    (problem,) = fetch(wanted)
    assert "the connection ended after 4 of 9 bytes" in problem and not (tmp_path / "w.pt").exists()
    asked = []

    def go_on(request, timeout):
        asked.append(request.get_header("Range"))
        return Answer(b"whole", 5, 206)

    monkeypatch.setattr("urllib.request.urlopen", go_on)
    assert fetch(wanted) == [] and asked == ["bytes=4-"]
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert (tmp_path / "w.pt").read_bytes() == b"halfwhole"


def test_a_node_fetches_before_it_says_what_it_lacks(tiny, tmp_path):
    write_pairs(tmp_path / "far", 12)
    near = tmp_path / "near"
    folders = {"name": "folder", "images": str(near / "images"), "masks": str(near / "masks")}
    text = with_value(tiny, {"dataset": folders}).model_dump_json()
    assert cluster.inspect_node([text]).lacking
    seen = cluster.inspect_node([text], [Source(str(near), (tmp_path / "far").as_uri())])
    assert not seen.lacking and not seen.problems
    seen = cluster.inspect_node([text], [Source(str(tmp_path / "other"), (tmp_path / "nowhere").as_uri())])
    assert "nowhere cannot be fetched" in seen.problems[0]


def test_on_one_machine_too(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = tiny.model_dump(mode="json", exclude={"seed"})
    sweep = {"name": "s", "question": "q?", "base": base, "axes": {"train.epochs": [1]}, "seeds": [0]}
    Path("s.yaml").write_text(json.dumps(sweep))
    nowhere = (tmp_path / "nowhere").as_uri()
    assert main(["s.yaml", "--fetch", f"x={nowhere}"]) == 2
    assert capsys.readouterr().err == f"missing x, and {nowhere} cannot be fetched: there is nothing\n"
    assert main(["s.yaml", "--fetch", f"x={nowhere}", "--fetch", "y"]) == 2
    assert "--fetch 'y': PATH=URI is needed" in capsys.readouterr().err


def test_a_fetch_leaves_no_lock_and_removes_no_folder_of_the_users(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("content")
    assert fetch([Source(str(tmp_path / "mine" / "x"), (tmp_path / "nowhere").as_uri())])
    assert list((tmp_path / "mine").iterdir()) == []
    assert not fetch([Source(str(tmp_path / "mine" / "x"), (tmp_path / "file").as_uri())])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["x"]
