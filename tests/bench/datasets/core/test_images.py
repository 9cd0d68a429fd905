"""Image files of every kind, name and orientation; all of them are made here."""

import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pairs import write_pairs
from PIL import Image, ImageOps

from bench.datasets import DataError
from bench.datasets.core import images
from bench.datasets.core.images import ORIENTATION
from bench.datasets.core.pairing import matched, pairs_of
from bench.datasets.masks.mask import to_mask

WIDTH, HEIGHT = 12, 8
BOX = np.s_[1:4, 2:9]


@pytest.fixture
def picture():
    """A bright box on dark noise and its mask: uint8 [8, 12, 3] and [8, 12]."""
    pixels = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[BOX], mask[BOX] = 200, 255
    return pixels, mask


def read_pair(image, mask, rule):
    """The image as a picture and the mask with how it was read."""
    pixels, drawn = images.read_pair(image, mask, rule)
    return pixels, to_mask(drawn, mask)


def read_mask(mask, image, rule):
    return to_mask(images.read_mask(mask, image, rule), mask)


def save(path, array, **more):
    Image.fromarray(array).save(path, **more)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.PNG", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.TIFF", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_lossless_kinds_give_the_pixels_that_were_written(tmp_path, picture, name, options):
    pixels, mask = picture
    image, read = read_pair(save(tmp_path / name, pixels, **options), save(tmp_path / "m.png", mask), "auto")
    assert np.array_equal(image, pixels) and np.array_equal(read.pixels, mask)
    assert read.how == "0 and 255"


def test_jpeg_and_cmyk_are_read_as_pil_reads_them(tmp_path, picture):
    pixels, mask = picture
    drawn = save(tmp_path / "m.png", mask)
    for mode in ("RGB", "L", "CMYK"):
        path = tmp_path / f"{mode}.JPG"
        Image.fromarray(pixels).convert(mode).save(path, quality=95)
        image, _ = read_pair(path, drawn, "auto")
        assert np.array_equal(image, Image.open(path).convert("RGB"))
        assert np.asarray(image)[BOX].mean() > 150 > np.asarray(image)[5:].mean()


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, picture):
    grey, mask = picture[0][..., 0], picture[1]
    deep_image = save(tmp_path / "a.png", grey.astype(np.uint16) * 257)
    deep_mask = save(tmp_path / "m.tif", mask.astype(np.uint16) * 257)
    image, read = read_pair(deep_image, deep_mask, "auto")
    assert np.array_equal(np.asarray(image), np.stack([grey] * 3, axis=-1))
    assert np.array_equal(read.pixels, mask) and "16 or 32 bits" in read.how


def test_alpha_is_dropped_and_palettes_are_looked_up(tmp_path, picture):
    pixels, mask = picture
    drawn = save(tmp_path / "m.png", mask)
    with_alpha = save(tmp_path / "alpha.png", np.dstack([pixels, mask]))
    assert np.array_equal(read_pair(with_alpha, drawn, "auto")[0], pixels)
    palette = Image.fromarray(pixels).quantize(64)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(read_pair(tmp_path / "palette.png", drawn, "auto")[0], palette.convert("RGB"))


def masks_of(mask):
    """The same mask in every way that data sets draw it, by the words that ``how`` must contain."""
    palette = Image.fromarray(mask // 255, mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0])  # as PASCAL VOC colours class 1: too dark to pass as object by lightness
    flat = np.full_like(mask, 255)
    return {
        "0 and 1": Image.fromarray(mask // 255),
        "0 and 255": Image.fromarray(mask).convert("1"),
        "coloured palette": palette,
        "floats": Image.fromarray((mask / 255).astype(np.float32)),
        "16 or 32 bits, scaled to 8: 0 and 1": Image.fromarray((mask // 255).astype(np.int32)),
        "alpha channel": Image.fromarray(np.dstack([flat, flat, flat, mask])),
        "alpha dropped": Image.fromarray(np.dstack([mask, flat // 2])),
        "colours by lightness": Image.fromarray(np.dstack([mask, mask, mask // 255 * 254])),
    }


@pytest.mark.parametrize("how", list(masks_of(np.zeros((1, 1), np.uint8))))
def test_masks_of_every_kind_mean_the_same_and_say_how(tmp_path, picture, how):
    pixels, mask = picture
    masks_of(mask)[how].save(tmp_path / "m.tif")
    _, read = read_pair(save(tmp_path / "a.png", pixels), tmp_path / "m.tif", "auto")
    assert np.array_equal(np.asarray(read.pixels) > 128, mask > 128)
    assert how in read.how


@given(arrays(np.uint8, (5, 4), elements=st.sampled_from([0, 1, 7, 128, 129, 255])))
def test_what_is_object_does_not_depend_on_how_a_grey_mask_is_stored(mask):
    modes = [Image.fromarray(mask), Image.fromarray(mask).convert("RGB"), Image.fromarray(mask.astype(np.uint16) * 257)]
    read = []
    for image in modes:
        try:
            read.append(to_mask(image, "m").pixels)
        except DataError as error:
            assert "nothing says which of them is the object" in str(error)
            read.append(None)
    plain, rgb, deep = read
    assert plain is not None or 1 < mask.max() <= 128 or set(mask.ravel()) == {0, 128, 255} or has_area(mask)
    if plain is None:
        assert rgb is None
        assert deep is None or mask.max() == 1
        return
    assert np.array_equal(plain, rgb)
    expected = mask * 255 if mask.max() == 1 else mask
    assert np.array_equal(plain, expected)
    assert mask.max() == 1 or np.array_equal(deep, expected)


def has_area(mask):
    """Whether some 3 x 3 pixels have one value from 1 to 128."""
    windows = np.lib.stride_tricks.sliding_window_view(mask, (3, 3)).reshape(-1, 9)
    return any(len(set(window)) == 1 and 1 <= window[0] <= 128 for window in windows.tolist())


def test_pixels_out_of_any_range_are_refused(tmp_path):
    Image.fromarray(np.full((3, 3), -1.0, np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="m.tif: pixels from -1.0 to -1.0. Known are 8 and 16 bits"):
        read_mask(tmp_path / "m.tif", tmp_path / "m.tif", "stored")


# --- orientation ------------------------------------------------------------------------------------------------------


def tagged(path, array, orientation):
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def as_viewers_show(array, orientation):
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn", ["as shown", "as stored", "with the same tag"])
def test_image_and_mask_stay_aligned(tmp_path, picture, suffix, orientation, drawn):
    pixels, mask = picture
    image_path = tagged(tmp_path / f"a{suffix}", pixels, orientation)
    shown = as_viewers_show(mask, orientation)
    if drawn == "with the same tag":
        mask_path = tagged(tmp_path / f"m{suffix}", mask, orientation)
    else:
        mask_path = save(tmp_path / "m.png", shown if drawn == "as shown" else mask)
    rule = "auto"
    if suffix != ".tif" and orientation in (2, 3, 4) and drawn != "with the same tag":
        with pytest.raises(DataError, match="EXIF orientations differ.*sizes do not tell.*dataset.exif=stored"):
            read_pair(image_path, mask_path, "auto")
        rule = drawn.removeprefix("as ")
    if suffix == ".tif" and drawn == "as stored":
        return  # PIL turns TIFF files itself: there is no way to read them as stored
    image, read = read_pair(image_path, mask_path, rule)
    assert image.size == read.pixels.shape[::-1]
    assert np.array_equal(np.asarray(image)[..., 0] > 128, np.asarray(read.pixels) > 128)
    if drawn != "as stored":
        assert np.array_equal(read.pixels, shown)
    assert np.array_equal(read_mask(mask_path, image_path, rule).pixels, read.pixels)


# --- what is refused --------------------------------------------------------------------------------------------------


def png_claiming(path, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, side):
    png_claiming(tmp_path / "bomb.png", side, side)
    with pytest.raises(DataError, match=r"bomb.png: .* pixels, refused as a decompression bomb \(at most 89,478,485\)"):
        read_mask(tmp_path / "bomb.png", tmp_path / "bomb.png", "stored")


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png"])
def test_several_images_in_one_file_are_refused(tmp_path, picture, name):
    first, second = (Image.fromarray(a) for a in (picture[0], 255 - picture[0]))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(DataError, match="holds 2 images. Save the one that is meant"):
        read_pair(tmp_path / name, save(tmp_path / "m.png", picture[1]), "auto")


def test_a_phones_jpeg_with_a_preview_is_its_first_image(tmp_path, picture):
    first, preview = (Image.fromarray(a) for a in (picture[0], 255 - picture[0]))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    image, _ = read_pair(tmp_path / "a.jpg", save(tmp_path / "m.png", picture[1]), "auto")
    assert np.asarray(image)[BOX].mean() > 150


def test_other_kinds_under_a_known_extension_are_refused(tmp_path, picture):
    Image.fromarray(picture[0]).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(DataError, match="a.png: cannot be read .not an image"):
        read_pair(tmp_path / "a.png", save(tmp_path / "m.png", picture[1]), "auto")


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_pair_by_stem_whatever_is_in_them(tmp_path, picture):
    images, masks = tmp_path / "i", tmp_path / "m"
    images.mkdir()
    masks.mkdir()
    stems = ["plain", "with a space", "several.dots.v1", "caf\u00e9", "\u9580", "100%"]
    for stem in stems:
        save(images / f"{unicodedata.normalize('NFD', stem)}.JPG", picture[0])
        save(masks / f"{unicodedata.normalize('NFC', stem)}.png", picture[1])
    notes = []
    assert [pair.stem for pair in pairs_of(images, masks, notes)] == sorted(stems) and not notes


def test_two_spellings_of_one_name_are_two_files_for_one_stem(tmp_path, picture):
    images, masks = write_pairs(tmp_path, 2)
    for form in ("NFC", "NFD"):
        save(images / (unicodedata.normalize(form, "caf\u00e9") + ".png"), picture[0])
    errors = []
    matched(images, masks, [], errors)
    assert any("more than one file for caf\u00e9" in line for line in errors)


def test_links_to_nowhere_and_folders_are_named(tmp_path):
    images, masks = write_pairs(tmp_path, 2)
    (images / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (images / "more").mkdir()
    notes = []
    pairs_of(images, masks, notes)
    assert notes == [f"{images}: not used, because they are no images: lost.jpg, more"]
