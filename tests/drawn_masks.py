"""Masks as data sets draw them, and folders of such masks."""

import numpy as np
from pairs import write_pairs
from PIL import Image

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS

SHAPE = (40, 48)


def disc(radius=9):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (x - 16) ** 2 + (y - 20) ** 2 < radius**2


def palette(numbers, colours):
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    table = np.zeros((256, 3), np.uint8)
    for number, colour in colours.items():
        table[number] = colour
    image.putpalette(table.tobytes())
    return image


def grey(values):
    return Image.fromarray(np.asarray(values).astype(np.uint8))


def colours(red, green=0, blue=0):
    bands = [np.broadcast_to(band, SHAPE) for band in (red, green, blue)]
    return grey(np.stack(bands, axis=-1))


RIM = disc(10) & ~disc(8)
BODY = disc(8)
INSTANCES = np.where(disc(9), 1 + (np.mgrid[: SHAPE[0], : SHAPE[1]][1] > 16), 0)
VOC = {1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)}
READ = {  # kinds that can mean one thing only
    "0 and 255": lambda: grey(disc() * 255),
    "0 and 1": lambda: grey(disc()),
    "one bit": lambda: grey(disc() * 255).convert("1"),
    "palette of a class": lambda: palette(disc(), {1: (128, 0, 0)}),
    "grey palette": lambda: palette(disc(), {1: (255, 255, 255)}),
    "alpha": lambda: Image.merge("LA", (Image.new("L", SHAPE[::-1], 255), grey(disc() * 255))),
    "opaque": lambda: Image.merge("LA", (grey(disc() * 255), Image.new("L", SHAPE[::-1], 255))),
    "both the same": lambda: Image.merge("LA", (grey(disc() * 255), grey(disc() * 255))),
    "16 bits": lambda: Image.fromarray((disc() * 65535).astype(np.uint16)),
    "floats": lambda: Image.fromarray(disc().astype(np.float32)),
    "254 and 2": lambda: grey(np.where(disc(), 254, 2)),
    "200": lambda: grey(disc() * 200),
}
REFUSED = {  # and what settles it
    "2": (lambda: grey(disc() * 2), "holds grey levels 0, 2,", {"foreground": [2]}),
    "128": (lambda: grey(disc() * 128), "holds grey levels 0, 128,", {"foreground": "nonzero"}),
    "red": (lambda: colours(disc() * 255), "holds colours #000000, #ff0000,", {"foreground": [[255, 0, 0]]}),
    "blue": (lambda: colours(0, 0, disc() * 255), "holds colours #000000, #0000ff,", {"foreground": ["#0000FF"]}),
    "two colours": (
        lambda: colours(disc() * 255, np.eye(*SHAPE) * 255 * ~disc()),
        "holds colours #000000, #00ff00, #ff0000,",
        {"foreground": [[255, 0, 0]]},
    ),
    "VOC's rim": (
        lambda: palette(np.where(RIM, 255, BODY), VOC),
        "holds palette numbers 0 #000000, 1 #800000, 255 #e0e0c0,",
        {"foreground": [1], "ignore": [255]},
    ),
    "VOC's rim in grey": (
        lambda: grey(np.where(RIM, 255, BODY * 15)),
        "holds grey levels 0, 15, 255,",
        {"foreground": 15, "ignore": 255},
    ),
    "rim of a palette without body": (
        lambda: palette(np.where(RIM, 255, 0), VOC),
        "holds palette numbers 0 #000000, 255 #e0e0c0,",
        {"foreground": [255]},
    ),
    "trimap": (lambda: grey(np.where(RIM, 128, BODY * 255)), "grey levels 0, 128, 255,", {"ignore": [128]}),
    "instances": (
        lambda: palette(INSTANCES, VOC),
        "holds palette numbers 0 #000000, 1 #800000, 2 #008000,",
        {"foreground": "nonzero"},
    ),
    "instances in grey": (lambda: grey(INSTANCES * 38), "holds grey levels 0, 38, 76,", {"foreground": [38, 76]}),
    "inverted palette": (
        lambda: palette(~disc(), {0: (9, 0, 0), 1: (0, 90, 0)}),
        "holds palette numbers 0 #090000, 1 #005a00,",
        {"foreground": [[9, 0, 0]]},
    ),
}


def folder_of(root, draw, suffix=".png"):
    """Eight pairs whose masks are all drawn alike; the folders."""
    images, masks = write_pairs(root, 8, size=SHAPE[::-1])
    for path in list(masks.iterdir()):
        path.unlink()
        draw().save(path.with_suffix(suffix))
    return images, masks


def build(folders, **settings):
    images, masks = map(str, folders)
    config = DATASETS.parse({"name": "folder", "images": images, "masks": masks, **settings})
    return DATASETS.build(config, TransformConfig(size=16))
