"""Maps and masks of every kind in ``bench.score``: read for what they are, or refused by name."""

import numpy as np
import pyarrow.parquet
import pytest
import scored_files
from PIL import Image
from scored_files import run, score_of

files = pytest.fixture(scored_files.files)


def rewrite(folder, change, suffix=".png"):
    """Every map of a folder as ``change`` makes it from its array."""
    for path in sorted(folder.iterdir()):
        image = change(np.asarray(Image.open(path)))
        path.unlink()
        image.save(path.with_name(path.stem + suffix))


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (lambda a: Image.fromarray((a / 255).astype(np.float32)), ".tif"),
        (lambda a: Image.fromarray(a.astype(np.uint16) * 257), ".png"),
        (lambda a: Image.fromarray(a.astype(np.uint16)), ".png"),
        (lambda a: Image.fromarray(a.astype(np.int32)), ".tif"),
        (lambda a: Image.fromarray(a).convert("RGB"), ".png"),
        (lambda a: Image.fromarray(a).convert("P"), ".png"),
        (lambda a: Image.fromarray(a).convert("LA"), ".png"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--no-minmax",), ("--protocol", "mirror")])
def test_a_map_scores_the_same_however_it_is_stored(files, change, suffix, more):
    expected = score_of(*files, *more)["scores"]
    rewrite(files[0], change, suffix)
    # floats are cut to 256 levels by the metrics, and the nearest float to a level may lie below it
    tolerance = 1e-3 if np.asarray(Image.open(next(files[0].iterdir()))).dtype.kind == "f" else 1e-6
    assert score_of(*files, *more)["scores"] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("more", [(), ("--no-minmax",), ("--protocol", "mirror")])
def test_maps_of_0_and_1_are_certain_and_said(files, capsys, more):
    rewrite(files[0], lambda a: Image.fromarray((a > 90).astype(np.uint8) * 255))
    expected = score_of(*files, *more)["scores"]
    rewrite(files[0], lambda a: Image.fromarray(a // 255))
    found = score_of(*files, *more)
    assert found["scores"] == expected
    assert found["notes"][-1] == "no map of 8 bits holds more than 1, so 1 is read as certainty"
    assert found["notes"][-1] in capsys.readouterr().out


def test_one_dark_map_among_others_is_dark_and_not_certain(files):
    first = sorted(files[0].iterdir())[0]
    dark = (np.asarray(Image.open(first)) > 90).astype(np.uint8)
    Image.fromarray(dark).save(first)
    found = score_of(*files, "--no-minmax")
    mask = np.asarray(Image.open(sorted(files[1].iterdir())[0])) > 128
    images = pyarrow.parquet.read_table("results/external/m.images.parquet")
    assert images["mae"][0].as_py() == pytest.approx(np.abs(dark / 255 - mask).mean()) and not found["notes"][1:]


def with_value(value, dtype):
    def change(array):
        changed = array.astype(dtype)
        changed[0, 0] = value
        return Image.fromarray(changed)

    return change


@pytest.mark.parametrize(
    ("change", "suffix", "expected"),
    [
        (with_value(np.nan, np.float32), ".tif", " values are NaN or infinite"),
        (with_value(-3, np.int32), ".tif", "values from -3 to "),
        (with_value(70000, np.int32), ".tif", "to 70000 are no probability. Allowed are floats from 0 to 1, and whole"),
        (lambda a: Image.fromarray((a / 64).astype(np.float32)), ".tif", "are no probability"),
        (lambda a: Image.fromarray((a / 255 - 0.5).astype(np.float32)), ".tif", "are no probability"),
        (
            lambda a: Image.fromarray(np.stack([a, 255 - a, a], -1)),
            ".png",
            "is a picture in colours, not a map of grey",
        ),
        (lambda a: Image.fromarray(np.stack([a, a], -1)), ".png", "is partly transparent"),
    ],
)
def test_what_is_no_probability_is_an_error_with_names(files, capsys, change, suffix, expected):
    rewrite(files[0], change, suffix)
    assert score_of(*files) is None
    error = capsys.readouterr().err
    assert expected in error and f"pair 0.a{suffix}" in error


def test_masks_of_other_names_and_nested_folders_by_options(files, capsys):
    expected = score_of(*files)["scores"]
    for path in list(files[1].iterdir()):
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    assert score_of(*files) is None
    assert "Give --mask-suffix=_gt, which would pair 7 of 7" in capsys.readouterr().err
    assert score_of(*files, "--mask-suffix", "_gt")["scores"] == expected
    for folder in files:
        (folder / "one" / "two").mkdir(parents=True)
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(folder / "one" / "two" / path.name)
    assert score_of(*files, "--mask-suffix", "_gt") is None
    assert "holds no images itself, but folders with images: one. Set --recursive" in capsys.readouterr().err
    assert score_of(*files, "--mask-suffix", "_gt", "--recursive")["scores"] == expected


def test_masks_are_turned_as_trials_turn_them(files):
    """A mask with an EXIF tag that makes its size that of its map is turned by it."""
    expected = score_of(*files)["scores"]
    for path in files[1].iterdir():
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert score_of(*files)["scores"] == expected


def test_mistakes_in_foreground_and_ignore_are_one_line(files, capsys):
    for flags, expected in (
        (("--foreground", "nonzeros"), "--foreground nonzeros: unknown. Did you mean 'nonzero'?"),
        (("--ignore", "[-1]"), "--ignore [-1]: -1 is no value of a pixel"),
        (("--foreground", "[1"), "--foreground [1: "),
    ):
        assert run("--pred", files[0], "--gt", files[1], *flags) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
