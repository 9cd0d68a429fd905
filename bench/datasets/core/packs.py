"""Finds the benchmark sets under a folder, in whatever layout they were unpacked."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.datasets.core.catalogue import Layout, catalogue
from bench.datasets.core.images import EXTENSIONS

DEEPEST = 6  # folders below the root that are looked into
JUNK = "__macosx"  # what macOS leaves in archives


class Found(NamedTuple):
    """Two folders that hold a set, or, without a ``name``, image and mask folders that no known set lies in."""

    name: str | None
    pack: str
    images: Path
    masks: Path
    only: str | None = None
    shared_masks: bool = False


def find(root: Path) -> list[Found]:
    """Every known set under ``root`` in the catalogue's order, then pairs of folders that look like data sets.

    The names of the folders above ``root`` count: a set's own folder is found when it is the root itself.
    """
    folders = {_parts(path): path for path in _folders(root.resolve())}
    found = [f for name in catalogue().sets for f in _known(name, folders)]
    taken = {f.images for f in found}
    return found + [f for f in _unknown(folders) if f.images not in taken]


def _known(name: str, folders: dict[tuple[str, ...], Path]) -> Iterator[Found]:
    seen = set()
    for layout in catalogue().layouts(name):
        for images, masks in _matches(layout, folders):
            if images not in seen:
                seen.add(images)
                yield Found(name, layout.pack, images, masks, layout.only, layout.shared_masks)


def _matches(layout: Layout, folders: dict[tuple[str, ...], Path]) -> Iterator[tuple[Path, Path]]:
    of_images, of_masks = _parts(Path(layout.images)), _parts(Path(layout.masks))
    for parts, images in folders.items():
        if parts[-len(of_images) :] == of_images:
            masks = folders.get((*parts[: -len(of_images)], *of_masks))
            if masks and _holds_images(images) and _holds_images(masks):
                yield images, masks


def _unknown(folders: dict[tuple[str, ...], Path]) -> Iterator[Found]:
    for parts, images in folders.items():
        for pack, names in catalogue().conventions.items():
            of_images, of_masks = (name.lower() for name in names)
            masks = folders.get((*parts[:-1], of_masks)) if parts[-1] == of_images else None
            if masks and _holds_images(images) and _holds_images(masks):
                yield Found(None, f"as {pack}", images, masks)


def _parts(path: Path) -> tuple[str, ...]:
    """Names along a path as they are compared: case and underscores do not matter."""
    return tuple(part.lower().replace("_", "-") for part in path.parts)


def _folders(root: Path) -> Iterator[Path]:
    """``root`` and the folders below it, links followed once, each folder of a name before its siblings' children."""
    seen, level = set(), [root]
    for _ in range(DEEPEST + 1):
        below = []
        for folder in level:
            identity = os.path.realpath(folder)
            if identity in seen:
                continue
            seen.add(identity)
            yield folder
            with os.scandir(folder) as entries:
                inner = sorted((e for e in entries if _is_folder(e)), key=lambda entry: entry.name)
            below += [folder / entry.name for entry in inner]
        level = below


def _is_folder(entry: os.DirEntry) -> bool:
    return entry.is_dir() and not entry.name.startswith(".") and entry.name.lower() != JUNK


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in EXTENSIONS for entry in entries)
