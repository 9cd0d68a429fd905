"""Images, masks, records and checkpoints that are damaged or mean harm, and command lines that do: each ends in
success or one clear error, in bounded time and memory, and runs no code. Mutations come from a fixed seed."""

import copy
import io
import json
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
import yaml
from conftest import examples, write_pairs
from hostile import HOSTILE, NASTY, bounded, damaged, places, values
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from bench import data, plan, predict, run, score
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.leaderboard.results import Results, summarise
from bench.records.external_scores import load_external
from bench.records.record import load_all
from bench.report.tables import as_csv, markdown
from bench.scheduling import executor
from bench.trial import run_trial

EVIL = "touched"  # what no file may bring about


@pytest.fixture
def command(capsys):
    """``command(main, *arguments)`` is the exit code and all that was said; what must never happen is asserted."""

    def execute(main, *arguments):
        capsys.readouterr()
        with bounded():
            try:
                code = main([str(a) for a in arguments])
            except SystemExit as end:  # argparse
                code = end.code
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), (code, out, err)
        assert "Traceback" not in out + err and not os.path.exists(EVIL)
        assert code != 2 or err
        assert len(err) < 20_000 and max(map(len, err.splitlines()), default=0) < 5_000
        return code, out + err

    return execute


# --- images and masks -------------------------------------------------------------------------------------------------

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}


def encoded(kind, mode):
    pixels = np.zeros((24, 20, 3), np.uint8)
    pixels[4:15, 3:14] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Image and mask folders with good pairs of the size of the damaged ones, and a sweep that reads them."""
    root = tmp_path_factory.mktemp("pairs")
    images, masks = write_pairs(root, 6, size=(20, 24))
    text = yaml.safe_dump(
        {
            "name": "mine",
            "question": "Are they read?",
            "base": {
                "model": {"name": "unet", "width": 4},
                "dataset": {"name": "folder", "images": str(images), "masks": str(masks)},
                "transform": {"size": 32},
                "train": {"batch_size": 2, "epochs": 1},
                "device": "cpu",
            },
            "axes": {"train.epochs": [1]},
            "seeds": [0],
        }
    )
    (root / "sweep.yaml").write_text(text)
    return root


@pytest.fixture
def prepared(folders, command, monkeypatch, tmp_path):
    """A whole run up to the point where trials would start, after which nothing is done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor.serial, "run_serially", lambda *arguments, **more: None)
    monkeypatch.setattr(run.report, "write", lambda *arguments, **more: [])

    def execute(*overrides):
        code, said = command(
            run.main, folders / "sweep.yaml", "--results", folders / "results", "--executor", "serial", *overrides
        )
        return 0 if code == 1 else code, said  # 1: nothing ran

    return execute


@settings_of(HOSTILE, max_examples=examples(80))
@given(st.data())
def test_damaged_images_and_masks_are_named_or_read(prepared, command, folders, tmp_path, data):
    suffix = data.draw(st.sampled_from(list(FORMATS)))
    of_mask = data.draw(st.booleans())
    content = data.draw(damaged(encoded(FORMATS[suffix], "L" if of_mask else "RGB")))
    sides = {"images": encoded("PNG", "RGB"), "masks": encoded("PNG", "L")}
    written = []
    for side, good in sides.items():
        bad = (side == "masks") == of_mask
        written.append(folders / side / f"bad{suffix if bad else '.png'}")
        written[-1].write_bytes(content if bad else good)
    try:
        code, said = prepared()
        assert code == 0 or "bad." in said
        if of_mask:  # as a prediction, scored against the good masks
            code, said = command(
                score.main, "--pred", folders / "masks", "--gt", folders / "masks", "--jobs", 1, "--name", "x"
            )
            assert code == 0 or "bad" in said
    finally:
        for path in written:
            path.unlink()


def png(width, height, body=b""):
    """A PNG file that says it has so many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 24\n(%pipe%touch touched) (w) file\n%%EOF\n"
ARRANGED = {
    "a decompression bomb": png(60_000, 60_000),
    "a small bomb": png(12_000, 9_000),
    "a long comment": png(20, 24, struct.pack(">I", 2**31 - 1) + b"zTXt"),
    "a comment that inflates": png(
        20, 24, struct.pack(">I", 60_010) + b"zTXtx\0\0" + zlib.compress(b"\0" * 60_000_000)
    ),
    "a program": POSTSCRIPT,
    "no bytes": b"",
    "text": b"<svg><script>alert(1)</script></svg>",
    "no width": png(0, 24),
}


@pytest.mark.parametrize("content", ARRANGED.values(), ids=ARRANGED)
def test_images_that_are_arranged_to_hurt_are_refused(prepared, command, folders, content):
    for side in ("images", "masks"):
        (folders / side / "bad.png").write_bytes(content)
    try:
        code, said = prepared()
        assert code == 2 and "bad.png" in said
        code, said = command(
            score.main, "--pred", folders / "images", "--gt", folders / "masks", "--jobs", 1, "--name", "x"
        )
        assert code == 2 and "bad" in said
    finally:
        for side in ("images", "masks"):
            (folders / side / "bad.png").unlink()


def test_file_names_are_only_names(prepared, command, folders, tmp_path, capsys):
    names = ["$(touch touched)", "`touch touched`", "-rf", "[bold]x[nothing]", "<b>&amp;", "a;touch touched", "%s%n"]
    for name in names:
        for side, mode in (("images", "RGB"), ("masks", "L")):
            (folders / side / f"{name}.png").write_bytes(encoded("PNG", mode))
    try:
        assert prepared()[0] == 0
        code, said = command(data.main, "check", folders)
        assert code in (0, 1) and "[bold]x" not in said.split("problem")[0]
    finally:
        for name in names:
            for side in ("images", "masks"):
                (folders / side / f"{name}.png").unlink()


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a sweep whose only trial has run; its sweep file; the record's path."""
    root = tmp_path_factory.mktemp("finished")
    tree = {
        "name": "mine",
        "question": "Is it read?",
        "base": {
            "model": {
                "name": "sam3_unet",
                "encoder": {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]},
                "adapter": {"rank": 2},
                "decoder": {"width": 8},
            },
            "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
            "transform": {"size": 32},
            "train": {"epochs": 1, "batch_size": 4},
            "device": "cpu",
        },
        "axes": {"model.adapter.rank": [2]},
        "seeds": [0],
    }
    (root / "sweep.yaml").write_text(yaml.safe_dump(tree))
    (root / "results" / "mine" / "external").mkdir(parents=True)
    (trial,) = expand(load_sweep(root / "sweep.yaml"))
    record = run_trial(trial.config)
    assert record.status == "ok", record.error
    record.save(root / "results" / "mine")
    return root


@st.composite
def changed_records(draw, text):
    tree = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from([p for p in places(tree) if p]))
        node = tree
        for key in above:
            node = node[key]
        change = draw(st.sampled_from(["delete", "replace", "rename"]))
        if change == "delete":
            del node[last]
        elif change == "replace" or isinstance(node, list):
            node[last] = draw(values)
        else:
            node[draw(st.sampled_from(NASTY))] = node.pop(last)
    return json.dumps(tree).encode()


@settings_of(HOSTILE, max_examples=examples(40))
@given(st.data())
def test_changed_records_are_read_or_set_aside(command, finished, data):
    folder = finished / "results" / "mine"
    (path,) = folder.glob("*.json")
    good = path.read_bytes()
    changes = st.one_of(changed_records(good), damaged(good))
    content = data.draw(st.one_of(changes, st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null"])))
    path.write_bytes(content)
    try:
        assert command(run.main, finished / "sweep.yaml", "--dry-run", "--results", finished / "results")[0] == 0
        records, broken = load_all(folder)
        assert len(records) + len(broken) == 1
        sweep = load_sweep(finished / "sweep.yaml")
        with bounded():
            board = summarise(Results(sweep, expand(sweep), records))
            markdown(board), as_csv(board)
    finally:
        path.write_bytes(good)


@settings_of(HOSTILE, max_examples=examples(30))
@given(st.data())
def test_changed_scores_of_others_are_read_or_left_out(command, finished, folders, data):
    external = finished / "results" / "mine" / "external"
    table, text = external / "other.images.parquet", external / "other.json"
    if not text.exists():
        masks = folders / "masks"
        into = ["--into", finished / "results" / "mine", "--name", "other", "--jobs", 1]
        assert command(score.main, "--pred", masks, "--gt", masks, *into)[0] == 0
    path = data.draw(st.sampled_from([table, text]))
    good = path.read_bytes()
    path.write_bytes(data.draw(damaged(good)))
    try:
        with bounded():
            records, broken = load_external(external.parent)
        assert len(records) + len(broken) == 1
    finally:
        path.write_bytes(good)


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Shell:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return os.system, ("touch touched",)


@pytest.fixture
def pictured(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, 1)
    (weights,) = (finished / "results" / "mine").glob("*.safetensors")
    return weights, tmp_path / "images", tmp_path / "out"


def test_the_checkpoint_itself_is_read(command, pictured):
    assert command(predict.main, *pictured, "--device", "cpu")[0] == 0


@settings_of(HOSTILE, max_examples=examples(60))
@given(st.data())
def test_damaged_checkpoints_are_refused(command, pictured, tmp_path, data):
    path, images, out = pictured
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(data.draw(damaged(path.read_bytes())))
    code, said = command(predict.main, bad, images, out, "--device", "cpu")
    assert code == 0 or "bad.safetensors" in said


@settings_of(HOSTILE, max_examples=examples(40))
@given(st.data())
def test_checkpoints_of_changed_configurations_are_refused(command, pictured, tmp_path, data):
    """Its configuration comes from the file: it must not make the reader build something giant."""
    path, images, out = pictured
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        metadata = json.loads(file.read(size))["__metadata__"]
    config = json.loads(data.draw(changed_records(metadata["config"])))
    if data.draw(st.booleans()) and isinstance(config.get("model"), dict):
        config["model"] = copy.deepcopy(config["model"])
        encoder = config["model"].get("encoder")
        if isinstance(encoder, dict):
            encoder.update(
                data.draw(st.sampled_from([{"dim": 65_536}, {"depth": 900, "dim": 8192}, {"mlp_ratio": 1e6}]))
            )
    bad = tmp_path / "bad.safetensors"
    save_file(load_file(path), bad, metadata={**metadata, "config": json.dumps(config)})
    command(predict.main, bad, images, out, "--device", "cpu")


def torch_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@settings_of(HOSTILE, max_examples=examples(20))
@given(st.data())
def test_damaged_weights_are_refused(command, finished, tmp_path, data):
    good = torch_file({"blocks.0.norm1.weight": torch.ones(64), "pos_embed": torch.zeros(1, 10, 64)})
    path = tmp_path / data.draw(st.sampled_from(["bad.pt", "bad.safetensors"]))
    path.write_bytes(data.draw(damaged(good)))
    arguments = ["--results", tmp_path / "r", "--executor", "serial", f"model.encoder.weights={path}"]
    code, said = command(run.main, finished / "sweep.yaml", *arguments)
    assert code == 2 and path.name in said


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Shell()),
        pickle.dumps({"a": Shell()}, protocol=0),
        torch_file({"blocks.0.norm1.weight": Shell()}),
        torch_file(Shell()),
        b"cos\nsystem\n(S'touch touched'\ntR.",
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.pth"])
def test_no_checkpoint_runs_code(command, finished, tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    arguments = ["--results", tmp_path / "r", "--executor", "serial", f"model.encoder.weights={tmp_path / name}"]
    code, said = command(run.main, finished / "sweep.yaml", *arguments)
    assert code == 2 and name in said and not (tmp_path / EVIL).exists()
    code, said = command(predict.main, tmp_path / name, tmp_path, tmp_path / "out", "--device", "cpu")
    assert code == 2 and not (tmp_path / EVIL).exists()


# --- command lines ----------------------------------------------------------------------------------------------------

WORDS = [*NASTY, "-1", "0", "1e9", "nan", "999999999999999999999", "--help", "-", ".", "x=y", "DUTS-TR", "salient"]
LINES = {
    data.main: ["check", "fetch", "recipe", "list", "--exif", "--json", "--root"],
    score.main: ["--pred", "--gt", "--name", "--into", "--protocol", "--no-minmax"],
    predict.main: ["--device", "--batch-size"],
    plan.main: ["--card", "--profile", "--results"],
    run.main: ["--dry-run", "--profile", "--results", "--gpus", "--cpus-per-trial", "--executor"],
}


@settings_of(HOSTILE, max_examples=examples(150))
@given(st.data())
def test_command_lines(command, finished, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    main = data.draw(st.sampled_from(list(LINES)))
    words = data.draw(st.lists(st.one_of(st.sampled_from(LINES[main]), st.sampled_from(WORDS)), max_size=5))
    words = [word.replace("\0", "") for word in words]
    if main in (plan.main, run.main):
        words = [str(finished / "sweep.yaml"), *words]
    if "/etc/passwd" not in words:
        command(main, *words, *(["--dry-run"] if main is run.main else []))
