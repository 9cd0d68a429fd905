"""Painting of surfaces, shadows and light on the canvas of a scene, float32 [s, s, 3], 0..1."""

import math

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from bench.datasets.scenes.geometry import TURN, Array, bounds, grid
from bench.datasets.scenes.surfaces import Style, texture


def paint(canvas: Array, cover: Array, style: Style, rng: Generator) -> None:
    """Paints the style on the canvas where the shape covers it, with a soft shading from one side."""
    s, window = canvas.shape[0], bounds(cover)
    x, y = grid(s, window)
    angle = rng.uniform(0, TURN)
    shade = 1 + 0.18 * (x * math.cos(angle) + y * math.sin(angle))
    patch = canvas[window]
    patch += cover[window][..., None] * (texture(rng, style, s, window) * shade[..., None] - patch)


def cast_shadow(rng: Generator, canvas: Array, cover: Array) -> None:
    """Darkens the canvas below and to the right of a shape; the soft shadow belongs to no object."""
    s = cover.shape[0]
    dx, dy = (int(d) for d in rng.integers(0, s // 16 + 1, size=2))
    moved = np.zeros_like(cover)
    moved[dy:, dx:] = cover[: s - dy, : s - dx]
    canvas *= (1 - rng.uniform(0.2, 0.5) * blur(moved, s / 40))[..., None]


def photograph(rng: Generator, canvas: Array) -> Array:
    """Returns the canvas as a photograph, uint8: with uneven light, a little blur and sensor noise."""
    s = canvas.shape[0]
    x, y = grid(s)
    angle = rng.uniform(0, TURN)
    light = 1 + 0.2 * (x * math.cos(angle) + y * math.sin(angle))
    grain = rng.standard_normal(canvas.shape, dtype=np.float32) * 0.02
    return (np.clip(blur(canvas, rng.uniform(0.0, 0.6)) * light[..., None] + grain, 0, 1) * 255).astype(np.uint8)


def blur(array: Array, sigma: float) -> Array:
    """Applies a Gaussian blur over the first two axes; edges are repeated."""
    return gaussian_filter(array, (sigma, sigma, 0)[: array.ndim], mode="nearest", truncate=3.0)


def binary(mask: Array) -> Array:
    """Returns a soft mask as uint8: 0, or 255 above one half."""
    return (mask > 0.5).astype(np.uint8) * 255
