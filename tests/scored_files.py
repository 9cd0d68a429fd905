"""Predictions and masks that ``bench.score`` scores."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.score import main


def write_files(folder: Path, count: int = 7) -> tuple[Path, Path]:
    """Predictions and masks of several sizes, by whole numbers only, so that they are the same bytes everywhere.

    Masks have values between 0 and 255 at the rim, which the two protocols read differently.
    """
    predictions, masks = folder / "predictions", folder / "masks"
    predictions.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(5)
    for i in range(count):
        height, width = rng.integers(24, 72, 2)
        y, x = np.ogrid[:height, :width]
        cy, cx, radius = rng.integers(8, height - 8), rng.integers(8, width - 8), rng.integers(6, 18)
        distance = (y - cy) ** 2 * 2 + (x - cx) ** 2
        rim = np.where(distance < (radius + 2) ** 2, rng.choice([90, 200, 254]), 0)
        mask = np.where(distance < radius**2, 255, rim)
        moved = (y - cy - rng.integers(-4, 5)) ** 2 + (x - cx - rng.integers(-4, 5)) ** 2
        low, high = rng.integers(0, 40), rng.integers(120, 256)
        prediction = np.clip(high - high * moved // (3 * radius**2) + rng.integers(-30, 31, moved.shape), low, high)
        Image.fromarray(mask.astype(np.uint8)).save(masks / f"pair {i}.a.png")
        Image.fromarray(prediction.astype(np.uint8)).save(predictions / f"pair {i}.a.png")
    return predictions, masks


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def files(tmp_path, monkeypatch):
    """Predictions and masks in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path)


def score_of(maps, masks, *more):
    """Scores of a folder, or ``None`` where it is refused."""
    code = run("--pred", maps, "--gt", masks, "--name", "m", "--jobs", 1, *more)
    path = Path("results/external/m.json")
    found = json.loads(path.read_text()) if code == 0 else None
    path.unlink(missing_ok=True)
    return found
