"""Painted scenes of the two embedded tasks (salient objects, mirrors) and of the pre-training task (materials).

A change in the pixels of scenes needs a new ``VERSION``, which is a part of every fingerprint.
"""

import math

import numpy as np
from numpy.random import Generator

from bench.datasets.scenes.geometry import Array, Shape, cover_of, grid, outline, places_apart, random_shape
from bench.datasets.scenes.painting import binary, blur, cast_shadow, paint, photograph
from bench.datasets.scenes.surfaces import MATERIALS, background, odd_style, random_style, texture, varied

VERSION = 1


def salient(rng: Generator, s: int) -> tuple[Array, Array]:
    """Paints a scene of the salient-object task: image uint8 [s, s, 3] and mask uint8 [s, s] of 0 or 255.

    All objects but the salient ones share one style. Salient objects differ from it in hue, lightness or material. Size
    and position are weak hints only, and shadows and occluders belong to no object, so a model needs the whole scene.
    """
    hue = rng.random()
    common = random_style(rng, hue)
    odd = odd_style(rng, common, hue)
    canvas = background(rng, s, hue + rng.uniform(-0.15, 0.15))
    mask = np.zeros((s, s), np.float32)

    crowd = [(random_shape(rng, 0.14, 0.40), common, 0.0) for _ in range(rng.integers(3, 7))]
    for _ in range(2 if rng.random() < 0.25 else 1):
        shape = random_shape(rng, 0.26, 0.50, spread=0.6)
        crowd.insert(int(rng.integers(len(crowd) // 2, len(crowd) + 1)), (shape, odd, 1.0))

    for shape, style, is_salient in crowd:
        cover = cover_of(shape, s)
        cast_shadow(rng, canvas, cover)
        paint(canvas, cover, varied(rng, style), rng)
        mask = mask * (1 - cover) + is_salient * cover
    return photograph(rng, canvas), binary(mask)


def mirror(rng: Generator, s: int) -> tuple[Array, Array]:
    """Paints a scene of the mirror task: image uint8 [s, s, 3] and mask uint8 [s, s] of 0 or 255 (the glass).

    A mirror and one or two pictures hang in frames of the same style. The mirror shows the scene around it, flipped and
    a little darker; a picture shows another scene. Only a comparison with the surroundings distinguishes them.
    """
    hue = rng.random()
    canvas = background(rng, s, hue)
    for _ in range(rng.integers(5, 9)):
        cover = cover_of(random_shape(rng, 0.12, 0.36, spread=0.95), s)
        cast_shadow(rng, canvas, cover)
        paint(canvas, cover, random_style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
    room = canvas.copy()

    frame = random_style(rng, rng.random(), materials=("plain", "cloud"))
    width = rng.uniform(0.045, 0.075)
    mask = np.zeros((s, s), np.float32)
    places = places_apart(rng, count=int(rng.integers(2, 4)))
    for index, (x, y) in enumerate(places):
        corners = int(rng.choice([0, 4, 4]))
        tilt = rng.uniform(-0.2, 0.2) + math.pi / 4
        shape = Shape(x, y, rng.uniform(0.34, 0.52), rng.uniform(0.85, 1.0), tilt, corners, waves=())
        outer, glass = cover_of(shape, s, grow=width), cover_of(shape, s)
        cast_shadow(rng, canvas, outer)
        paint(canvas, outer, varied(rng, frame), rng)
        shown = _reflection(room, shape) if index == 0 else _other_scene(rng, s, hue)
        tint = rng.uniform(0.80, 0.95, size=3).astype(np.float32)
        canvas += glass[..., None] * (blur(shown, rng.uniform(0.2, 0.7)) * tint - canvas)
        mask = mask * (1 - outer) + (index == 0) * glass

    for _ in range(rng.integers(0, 3)):
        cover = cover_of(random_shape(rng, 0.08, 0.2), s)
        cast_shadow(rng, canvas, cover)
        paint(canvas, cover, random_style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
        mask = mask * (1 - cover)
    return photograph(rng, canvas), binary(mask)


def materials(rng: Generator, s: int) -> tuple[Array, Array]:
    """Paints a scene of the pre-training task: image uint8 [s, s, 3] and targets uint8 [s, s, 3].

    The targets are the index into ``MATERIALS``, the depth order (0 at the back, 255 at the front) and the outlines
    (0 or 255). They do not tell which object is salient or which frame is a mirror.
    """
    style = random_style(rng, rng.random())
    canvas = texture(rng, style, s)
    label = np.full((s, s), MATERIALS.index(style.material), np.uint8)
    count = int(rng.integers(4, 11))
    depth = np.zeros((s, s), np.float32)
    edges = np.zeros((s, s), np.float32)
    for index in range(count):
        style = random_style(rng, rng.random())
        cover = cover_of(random_shape(rng, 0.12, 0.55, spread=1.0), s)
        if rng.random() < 0.5:
            cast_shadow(rng, canvas, cover)
        paint(canvas, cover, style, rng)
        inside = cover > 0.5
        label[inside] = MATERIALS.index(style.material)
        depth[inside] = (index + 1) / count
        edges = edges * (1 - cover)
        edges[outline(inside)] = 1
    targets = np.stack([label, (depth * 255).astype(np.uint8), (edges > 0.5).astype(np.uint8) * 255], axis=-1)
    return photograph(rng, canvas), targets


def _reflection(room: Array, shape: Shape) -> Array:
    """Flips the room about the mirror's inner edge, so that the glass shows the objects next to it."""
    s = room.shape[0]
    towards_middle = -1.0 if shape.x > 0 else 1.0
    axis = shape.x + towards_middle * shape.radius * 0.8
    columns = np.clip(((2 * axis - grid(s)[0][0] + 1) * s / 2).astype(int), 0, s - 1)
    return room[:, columns]


def _other_scene(rng: Generator, s: int, hue: float) -> Array:
    """Paints another scene of the same kind, which a picture shows."""
    canvas = background(rng, s, hue + rng.uniform(-0.2, 0.2))
    for _ in range(rng.integers(4, 8)):
        paint(canvas, cover_of(random_shape(rng, 0.12, 0.36), s), random_style(rng, hue + rng.uniform(-0.2, 0.2)), rng)
    return canvas
