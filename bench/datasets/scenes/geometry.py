"""Outlines of objects in painted scenes, and the pixels that they cover."""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

Array = np.ndarray
Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))
TURN = 2 * math.pi
"""Radians of a whole turn."""


class Shape(NamedTuple):
    """A star-shaped outline: its radius is a function of the angle."""

    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    corners: int  # 0: smooth blob
    waves: tuple[tuple[float, float], ...]  # amplitude and phase of the blob's 2nd to 4th harmonic


def grid(s: int, window: Window = WHOLE) -> tuple[Array, Array]:
    """Returns the coordinates of the pixel centres: x float32 [1, w], y float32 [h, 1]."""
    axis = (np.arange(s, dtype=np.float32) + 0.5) * (2 / s) - 1
    rows, columns = window
    return axis[None, columns], axis[rows, None]


def random_shape(rng: Generator, smallest: float, largest: float, spread: float = 0.85) -> Shape:
    """Draws a shape of a radius between two bounds, whose centre lies within ``spread``."""
    x, y = rng.uniform(-spread, spread), rng.uniform(-spread, spread)
    waves = tuple((rng.uniform(0, 0.16 / (1 + k / 2)), rng.uniform(0, TURN)) for k in range(3))
    corners = int(rng.choice([0, 0, 3, 4, 4, 5, 6]))
    return Shape(x, y, rng.uniform(smallest, largest), rng.uniform(0.6, 1.0), rng.uniform(0, TURN), corners, waves)


def cover_of(shape: Shape, s: int, grow: float = 0.0) -> Array:
    """Returns the share of each pixel that the shape covers: float32 [s, s], 0..1, with a soft edge of one pixel."""
    x, y = grid(s)
    x, y = x - shape.x, y - shape.y
    c, d = math.cos(shape.angle), math.sin(shape.angle)
    u, v = x * c + y * d, (y * c - x * d) / shape.aspect
    theta = np.arctan2(v, u)
    if shape.corners:
        sector = TURN / shape.corners
        outline = math.cos(sector / 2) / np.cos(theta % sector - sector / 2)
    else:
        outline = 1 + sum(a * np.cos((k + 2) * theta + p) for k, (a, p) in enumerate(shape.waves))
    distance = np.hypot(u, v) - shape.radius * outline - grow
    return np.clip(0.5 - distance * (s / 2), 0, 1)


def bounds(cover: Array) -> Window:
    """Returns the smallest window with all covered pixels."""
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def places_apart(rng: Generator, count: int) -> list[tuple[float, float]]:
    """Draws up to ``count`` places for frames that overlap little."""
    places: list[tuple[float, float]] = []
    for _ in range(40):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.55, 0.55)
        if all(math.hypot(x - a, y - b) > 0.8 for a, b in places):
            places.append((float(x), float(y)))
        if len(places) == count:
            break
    return places


def outline(inside: Array) -> Array:
    """Returns the pixels of ``inside`` that touch the outside."""
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core
