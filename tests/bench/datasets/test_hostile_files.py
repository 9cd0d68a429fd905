"""Images and masks that are damaged or mean harm: each ends in success or one clear error, in bounded time and memory.

Mutations come from a fixed seed."""

import io
import struct
import zlib

import hostile_files
import numpy as np
import pytest
from conftest import examples
from hostile import HOSTILE, damaged
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from PIL import Image

from bench import data, run, score
from bench.scheduling import executor

command = pytest.fixture(hostile_files.command)
folders = pytest.fixture(hostile_files.folders, scope="module")


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}


def encoded(kind, mode):
    pixels = np.zeros((24, 20, 3), np.uint8)
    pixels[4:15, 3:14] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.fixture
def prepared(folders, command, monkeypatch, tmp_path):
    """A whole run up to the point where trials would start, after which nothing is done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor.serial, "run_serially", lambda *arguments, **more: None)
    monkeypatch.setattr(run.reports, "write", lambda *arguments, **more: [])

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
    """A PNG file whose header names this many pixels."""

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
