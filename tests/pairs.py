"""Image and mask files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets.scenes.tasks import salient


def write_pairs(folder: Path, count: int, size: tuple[int, int] = (40, 30), seed: int = 0) -> tuple[Path, Path]:
    """Writes ``count`` real image and mask files, a coloured box on noise each; returns the two folders."""
    rng = np.random.default_rng(seed)
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    width, height = size
    for i in range(count):
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        y, x = rng.integers(2, height // 2), rng.integers(2, width // 2)
        box = np.s_[y : y + height // 3, x : x + width // 3]
        pixels[box] = rng.integers(150, 255, 3)
        mask[box] = 255
        Image.fromarray(pixels).save(images / f"pair {i:03d}.jpg")
        Image.fromarray(mask).save(masks / f"pair {i:03d}.png")
    return images, masks


def write_scenes(folder: Path, count: int, side: int) -> tuple[Path, Path]:
    """Writes painted scenes of ``side`` pixels, as photographs are kept; returns the folders of images and masks."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for i in range(count):
        image, mask = salient(np.random.default_rng(i), side)
        Image.fromarray(image).save(images / f"{i:04d}.jpg", quality=90)
        Image.fromarray(mask).save(masks / f"{i:04d}.png")
    return images, masks


def put(root, images, masks, count=3, seed=0):
    """``count`` pairs with their images and masks in two folders below ``root``."""
    (root / images).parent.mkdir(parents=True, exist_ok=True)
    made = write_pairs(root / f"made {seed} {images.replace('/', ' ')}", count, size=(20, 16), seed=seed)
    made[0].rename(root / images)
    (root / masks).parent.mkdir(parents=True, exist_ok=True)
    (root / masks).mkdir(exist_ok=True)
    for path in made[1].iterdir():
        path.rename(root / masks / path.name)
    made[1].rmdir()
    made[1].parent.rmdir()
