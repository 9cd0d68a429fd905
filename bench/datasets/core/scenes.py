"""Painted scenes: the two embedded tasks (salient objects, mirrors) and the pre-training task (materials).

Every scene is a pure function of a ``numpy.random.Generator`` and a size, so an index and a seed are the whole data
set. Change what a scene looks like only together with ``VERSION``: it is part of every fingerprint.

Notation: ``s`` is the side in pixels, coordinates run over [-1, 1] with x to the right and y down.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter

VERSION = 1
MATERIALS = ("plain", "cloud", "stripes", "checks", "dots", "rings", "bricks", "speckle")

Array = np.ndarray
Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))
TURN = 2 * math.pi


class Style(NamedTuple):
    """How a surface looks: a material, two colours and the pattern's geometry."""

    material: str
    colours: Array  # float [2, 3], 0..1
    angle: float  # radians
    frequency: float  # periods over the image


class Shape(NamedTuple):
    """A star-shaped outline: the boundary's radius is a function of the angle."""

    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    corners: int  # 0: smooth blob
    waves: tuple[tuple[float, float], ...]  # amplitude and phase of the blob's 2nd to 4th harmonic


def salient(rng: Generator, s: int) -> tuple[Array, Array]:
    """One scene of the salient-object task: image uint8 [s, s, 3] and mask uint8 [s, s] of 0 or 255.

    All objects but the salient ones share one style; what stands out does so in hue, lightness or material. Size and
    position are only weak hints, shadows and occluders belong to no object, so the answer needs the whole scene.
    """
    hue = rng.random()
    common = _style(rng, hue)
    odd = _odd_style(rng, common, hue)
    canvas = _background(rng, s, hue + rng.uniform(-0.15, 0.15))
    mask = np.zeros((s, s), np.float32)

    crowd = [(_shape(rng, 0.14, 0.40), common, 0.0) for _ in range(rng.integers(3, 7))]
    for _ in range(2 if rng.random() < 0.25 else 1):
        shape = _shape(rng, 0.26, 0.50, spread=0.6)
        crowd.insert(int(rng.integers(len(crowd) // 2, len(crowd) + 1)), (shape, odd, 1.0))

    for shape, style, is_salient in crowd:
        cover = _cover(shape, s)
        _cast_shadow(rng, canvas, cover)
        _paint(canvas, cover, _jitter(rng, style), rng)
        mask = mask * (1 - cover) + is_salient * cover
    return _photograph(rng, canvas), _binary(mask)


def mirror(rng: Generator, s: int) -> tuple[Array, Array]:
    """One scene of the mirror task: image uint8 [s, s, 3] and mask uint8 [s, s] of 0 or 255 (the glass).

    A mirror and one or two pictures hang in frames of the same make. The mirror shows the scene beside it, flipped and
    a little darker; a picture shows another scene. Only the comparison with the surroundings tells them apart.
    """
    hue = rng.random()
    canvas = _background(rng, s, hue)
    for _ in range(rng.integers(5, 9)):
        cover = _cover(_shape(rng, 0.12, 0.36, spread=0.95), s)
        _cast_shadow(rng, canvas, cover)
        _paint(canvas, cover, _style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
    room = canvas.copy()

    frame = _style(rng, rng.random(), materials=("plain", "cloud"))
    width = rng.uniform(0.045, 0.075)
    mask = np.zeros((s, s), np.float32)
    places = _apart(rng, count=int(rng.integers(2, 4)))
    for index, (x, y) in enumerate(places):
        corners = int(rng.choice([0, 4, 4]))
        tilt = rng.uniform(-0.2, 0.2) + math.pi / 4
        shape = Shape(x, y, rng.uniform(0.34, 0.52), rng.uniform(0.85, 1.0), tilt, corners, waves=())
        outer, glass = _cover(shape, s, grow=width), _cover(shape, s)
        _cast_shadow(rng, canvas, outer)
        _paint(canvas, outer, _jitter(rng, frame), rng)
        shown = _reflection(room, shape) if index == 0 else _elsewhere(rng, s, hue)
        tint = rng.uniform(0.80, 0.95, size=3).astype(np.float32)
        canvas += glass[..., None] * (_blur(shown, rng.uniform(0.2, 0.7)) * tint - canvas)
        mask = mask * (1 - outer) + (index == 0) * glass

    for _ in range(rng.integers(0, 3)):
        cover = _cover(_shape(rng, 0.08, 0.2), s)
        _cast_shadow(rng, canvas, cover)
        _paint(canvas, cover, _style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
        mask = mask * (1 - cover)
    return _photograph(rng, canvas), _binary(mask)


def materials(rng: Generator, s: int) -> tuple[Array, Array]:
    """One scene of the pre-training task: image uint8 [s, s, 3] and targets uint8 [s, s, 3].

    The targets are the index into ``MATERIALS``, the depth order (0 at the back, 255 at the front) and the outlines
    (0 or 255). Nothing in them says which object stands out or what a mirror is.
    """
    style = _style(rng, rng.random())
    canvas = _texture(rng, style, s)
    label = np.full((s, s), MATERIALS.index(style.material), np.uint8)
    count = int(rng.integers(4, 11))
    depth = np.zeros((s, s), np.float32)
    edges = np.zeros((s, s), np.float32)
    for index in range(count):
        style = _style(rng, rng.random())
        cover = _cover(_shape(rng, 0.12, 0.55, spread=1.0), s)
        if rng.random() < 0.5:
            _cast_shadow(rng, canvas, cover)
        _paint(canvas, cover, style, rng)
        inside = cover > 0.5
        label[inside] = MATERIALS.index(style.material)
        depth[inside] = (index + 1) / count
        edges = edges * (1 - cover)
        edges[_outline(inside)] = 1
    targets = np.stack([label, (depth * 255).astype(np.uint8), (edges > 0.5).astype(np.uint8) * 255], axis=-1)
    return _photograph(rng, canvas), targets


# --- surfaces ---------------------------------------------------------------------------------------------------------


def _style(rng: Generator, hue: float, materials: tuple[str, ...] = MATERIALS) -> Style:
    """A random style around ``hue`` (0..1, wraps)."""
    light = rng.uniform(0.25, 0.8)
    first = _colour(hue + rng.normal(0, 0.03), rng.uniform(0.25, 0.75), light)
    second = _colour(
        hue + rng.normal(0, 0.08), rng.uniform(0.2, 0.8), np.clip(light + rng.choice([-0.3, 0.3]), 0.1, 0.95)
    )
    return Style(str(rng.choice(materials)), np.stack([first, second]), rng.uniform(0, math.pi), rng.uniform(5, 12))


def _odd_style(rng: Generator, common: Style, hue: float) -> Style:
    """A style that stands out from ``common`` in one to three of hue, lightness and material."""
    differs = rng.random(3) < 0.5
    if not differs.any():
        differs[rng.integers(3)] = True
    style = common
    if differs[0]:
        style = style._replace(colours=_style(rng, hue + rng.uniform(0.25, 0.75)).colours)
    if differs[1]:
        style = style._replace(
            colours=np.where(style.colours.mean() > 0.45, style.colours * 0.4, 1 - 0.45 * (1 - style.colours))
        )
    if differs[2]:
        others = tuple(m for m in MATERIALS if m != common.material)
        style = style._replace(material=str(rng.choice(others)), angle=common.angle + math.pi / 2)
    return style


def _jitter(rng: Generator, style: Style) -> Style:
    """The same style on another object: colours and geometry vary a little."""
    colours = np.clip(style.colours + rng.normal(0, 0.035, size=(2, 3)), 0, 1)
    return style._replace(
        colours=colours, angle=style.angle + rng.normal(0, 0.15), frequency=style.frequency * rng.uniform(0.85, 1.15)
    )


def _texture(rng: Generator, style: Style, s: int, window: Window = WHOLE) -> Array:
    """The style over a window of the image: float32 [h, w, 3], 0..1."""
    x, y = _grid(s, window)
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


def _background(rng: Generator, s: int, hue: float) -> Array:
    """A wide, uneven backdrop: two soft materials blended, with a horizon in half of the scenes."""
    canvas = _texture(rng, _style(rng, hue, materials=("cloud", "plain", "speckle")), s)
    if rng.random() < 0.5:
        x, y = _grid(s)
        floor = np.clip((y - rng.uniform(-0.2, 0.5) - 0.2 * x * rng.uniform(-1, 1)) * s / 4, 0, 1)[..., None]
        canvas += floor * (_texture(rng, _style(rng, hue + rng.uniform(-0.2, 0.2)), s) - canvas)
    return canvas


# --- geometry ---------------------------------------------------------------------------------------------------------


def _grid(s: int, window: Window = WHOLE) -> tuple[Array, Array]:
    """Coordinates of the pixel centres: x float32 [1, w], y float32 [h, 1]."""
    axis = (np.arange(s, dtype=np.float32) + 0.5) * (2 / s) - 1
    rows, columns = window
    return axis[None, columns], axis[rows, None]


def _shape(rng: Generator, smallest: float, largest: float, spread: float = 0.85) -> Shape:
    x, y = rng.uniform(-spread, spread), rng.uniform(-spread, spread)
    waves = tuple((rng.uniform(0, 0.16 / (1 + k / 2)), rng.uniform(0, TURN)) for k in range(3))
    corners = int(rng.choice([0, 0, 3, 4, 4, 5, 6]))
    return Shape(x, y, rng.uniform(smallest, largest), rng.uniform(0.6, 1.0), rng.uniform(0, TURN), corners, waves)


def _cover(shape: Shape, s: int, grow: float = 0.0) -> Array:
    """How much of each pixel the shape covers: float32 [s, s], 0..1, with a one-pixel soft edge."""
    x, y = _grid(s)
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


def _bounds(cover: Array) -> Window:
    """The smallest window that holds all covered pixels."""
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _apart(rng: Generator, count: int) -> list[tuple[float, float]]:
    """Up to ``count`` places for frames that do not overlap much."""
    places: list[tuple[float, float]] = []
    for _ in range(40):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.55, 0.55)
        if all(math.hypot(x - a, y - b) > 0.8 for a, b in places):
            places.append((float(x), float(y)))
        if len(places) == count:
            break
    return places


def _outline(inside: Array) -> Array:
    """Pixels of ``inside`` that touch the outside."""
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def _reflection(room: Array, shape: Shape) -> Array:
    """The room flipped about the mirror's inner edge, so that the glass shows what hangs beside it."""
    s = room.shape[0]
    towards_middle = -1.0 if shape.x > 0 else 1.0
    axis = shape.x + towards_middle * shape.radius * 0.8
    columns = np.clip(((2 * axis - _grid(s)[0][0] + 1) * s / 2).astype(int), 0, s - 1)
    return room[:, columns]


def _elsewhere(rng: Generator, s: int, hue: float) -> Array:
    """Another small scene with the same habits: what a picture shows."""
    canvas = _background(rng, s, hue + rng.uniform(-0.2, 0.2))
    for _ in range(rng.integers(4, 8)):
        _paint(canvas, _cover(_shape(rng, 0.12, 0.36), s), _style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
    return canvas


# --- light ------------------------------------------------------------------------------------------------------------


def _paint(canvas: Array, cover: Array, style: Style, rng: Generator) -> None:
    """Lay the style over the canvas where the shape covers it, with a soft shading from one side."""
    s, window = canvas.shape[0], _bounds(cover)
    x, y = _grid(s, window)
    angle = rng.uniform(0, TURN)
    shade = 1 + 0.18 * (x * math.cos(angle) + y * math.sin(angle))
    patch = canvas[window]
    patch += cover[window][..., None] * (_texture(rng, style, s, window) * shade[..., None] - patch)


def _cast_shadow(rng: Generator, canvas: Array, cover: Array) -> None:
    """Darken the canvas down and to the right of a shape; the shadow is soft and belongs to no object."""
    s = cover.shape[0]
    dx, dy = (int(d) for d in rng.integers(0, s // 16 + 1, size=2))
    moved = np.zeros_like(cover)
    moved[dy:, dx:] = cover[: s - dy, : s - dx]
    canvas *= (1 - rng.uniform(0.2, 0.5) * _blur(moved, s / 40))[..., None]


def _photograph(rng: Generator, canvas: Array) -> Array:
    """Uneven light, a little blur and sensor noise, 8 bit."""
    s = canvas.shape[0]
    x, y = _grid(s)
    angle = rng.uniform(0, TURN)
    light = 1 + 0.2 * (x * math.cos(angle) + y * math.sin(angle))
    grain = rng.standard_normal(canvas.shape, dtype=np.float32) * 0.02
    return (np.clip(_blur(canvas, rng.uniform(0.0, 0.6)) * light[..., None] + grain, 0, 1) * 255).astype(np.uint8)


def _noise(rng: Generator, s: int, cells: tuple[int, ...]) -> Array:
    """Smooth noise, one octave for each number of cells: float32 [s, s], 0..1."""
    total = np.zeros((s, s), np.float32)
    for octave, n in enumerate(cells):
        coarse = Image.fromarray(rng.random((n, n), dtype=np.float32))
        total += np.asarray(coarse.resize((s, s), Image.Resampling.BICUBIC)) / 2**octave
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _blur(array: Array, sigma: float) -> Array:
    """Gaussian blur over the first two axes; edges are repeated."""
    return gaussian_filter(array, (sigma, sigma, 0)[: array.ndim], mode="nearest", truncate=3.0)


def _soft(wave: Array) -> Array:
    return 1 / (1 + np.exp(-4 * wave))


def _binary(mask: Array) -> Array:
    return (mask > 0.5).astype(np.uint8) * 255


def _colour(hue: float, saturation: float, lightness: float) -> Array:
    """HSL to RGB, float [3], 0..1."""
    k = (np.array([0, 8, 4]) + hue * 12) % 12
    return lightness - saturation * min(lightness, 1 - lightness) * np.clip(np.minimum(k - 3, 9 - k), -1, 1)
