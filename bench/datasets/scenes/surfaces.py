"""Surfaces in painted scenes: materials, their colours and their patterns."""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

from bench.datasets.scenes.geometry import TURN, WHOLE, Array, Window, grid

MATERIALS = ("plain", "cloud", "stripes", "checks", "dots", "rings", "bricks", "speckle")


class Style(NamedTuple):
    """The appearance of a surface: a material, two colours and the geometry of its pattern."""

    material: str
    colours: Array  # float [2, 3], 0..1
    angle: float  # radians
    frequency: float  # periods over the image


def random_style(rng: Generator, hue: float, materials: tuple[str, ...] = MATERIALS) -> Style:
    """Draws a style around ``hue`` (0..1, periodic)."""
    light = rng.uniform(0.25, 0.8)
    first = _colour(hue + rng.normal(0, 0.03), rng.uniform(0.25, 0.75), light)
    second = _colour(
        hue + rng.normal(0, 0.08), rng.uniform(0.2, 0.8), np.clip(light + rng.choice([-0.3, 0.3]), 0.1, 0.95)
    )
    return Style(str(rng.choice(materials)), np.stack([first, second]), rng.uniform(0, math.pi), rng.uniform(5, 12))


def odd_style(rng: Generator, common: Style, hue: float) -> Style:
    """Draws a style that differs from ``common`` in one to three of hue, lightness and material."""
    differs = rng.random(3) < 0.5
    if not differs.any():
        differs[rng.integers(3)] = True
    style = common
    if differs[0]:
        style = style._replace(colours=random_style(rng, hue + rng.uniform(0.25, 0.75)).colours)
    if differs[1]:
        style = style._replace(
            colours=np.where(style.colours.mean() > 0.45, style.colours * 0.4, 1 - 0.45 * (1 - style.colours))
        )
    if differs[2]:
        others = tuple(m for m in MATERIALS if m != common.material)
        style = style._replace(material=str(rng.choice(others)), angle=common.angle + math.pi / 2)
    return style


def varied(rng: Generator, style: Style) -> Style:
    """Varies the colours and the geometry of a style a little, for another object."""
    colours = np.clip(style.colours + rng.normal(0, 0.035, size=(2, 3)), 0, 1)
    return style._replace(
        colours=colours, angle=style.angle + rng.normal(0, 0.15), frequency=style.frequency * rng.uniform(0.85, 1.15)
    )


def texture(rng: Generator, style: Style, s: int, window: Window = WHOLE) -> Array:
    """Paints a style over a window of the image: float32 [h, w, 3], 0..1."""
    x, y = grid(s, window)
    c, d = math.cos(style.angle), math.sin(style.angle)
    u = (x * c + y * d) * (style.frequency / 2) + rng.random()
    v = (y * c - x * d) * (style.frequency / 2) + rng.random()
    match style.material:
        case "plain":
            mix = 0.25 + 0.12 * (u / style.frequency)
        case "cloud":
            mix = _noise(rng, s, (3, 6, 12))[window]
        case "stripes":
            mix = _soft(np.sin(TURN * u))
        case "checks":
            mix = _soft(np.sin(TURN * u) * np.sin(TURN * v) * 2)
        case "dots":
            mix = _soft(2.5 * (np.cos(TURN * u) + np.cos(TURN * v) - 0.9))
        case "rings":
            mix = _soft(np.sin(TURN * np.hypot(u, v)))
        case "bricks":
            row = np.floor(v)
            mix = _soft(16 * (0.12 - np.minimum(np.abs((u + row / 2) % 1 - 0.5), np.abs(v % 1 - 0.5))))
        case "speckle":
            mix = _noise(rng, s, (s // 4, s // 2))[window]
    mix = mix[..., None]
    first, second = style.colours.astype(np.float32)
    return first * (1 - mix) + second * mix


def background(rng: Generator, s: int, hue: float) -> Array:
    """Paints an uneven background, float32 [s, s, 3], 0..1; half of the backgrounds have a horizon."""
    canvas = texture(rng, random_style(rng, hue, materials=("cloud", "plain", "speckle")), s)
    if rng.random() < 0.5:
        x, y = grid(s)
        floor = np.clip((y - rng.uniform(-0.2, 0.5) - 0.2 * x * rng.uniform(-1, 1)) * s / 4, 0, 1)[..., None]
        canvas += floor * (texture(rng, random_style(rng, hue + rng.uniform(-0.2, 0.2)), s) - canvas)
    return canvas


def _noise(rng: Generator, s: int, cells: tuple[int, ...]) -> Array:
    """Draws smooth noise with one octave for each number of cells: float32 [s, s], 0..1."""
    total = np.zeros((s, s), np.float32)
    for octave, n in enumerate(cells):
        coarse = Image.fromarray(rng.random((n, n), dtype=np.float32))
        total += np.asarray(coarse.resize((s, s), Image.Resampling.BICUBIC)) / 2**octave
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _soft(wave: Array) -> Array:
    """Returns the mix of two colours, 0..1, with soft edges where the wave changes its sign."""
    return 1 / (1 + np.exp(-4 * wave))


def _colour(hue: float, saturation: float, lightness: float) -> Array:
    """Converts HSL to RGB, float [3], 0..1."""
    k = (np.array([0, 8, 4]) + hue * 12) % 12
    return lightness - saturation * min(lightness, 1 - lightness) * np.clip(np.minimum(k - 3, 9 - k), -1, 1)
