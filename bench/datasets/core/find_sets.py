"""Finds the benchmark sets below a folder, in any known layout."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.datasets.core.catalogue import Layout, catalogue
from bench.datasets.core.images import EXTENSIONS

DEEPEST = 6
"""Levels of folders below the root that are searched."""
JUNK = "__macosx"
"""Folder that macOS adds to archives."""


class Found(NamedTuple):
    """The two folders of a set; without a ``name``, an image and a mask folder of an unknown set."""

    name: str | None
    pack: str
    images: Path
    masks: Path
    only: str | None = None
    shared_masks: bool = False


def find(root: Path) -> list[Found]:
    """Finds every known set below ``root``, in the order of the catalogue, then other pairs of image and mask folders.

    The names of the folders above ``root`` count, too, so ``root`` may be a set's own folder.
    """
    folders = {_parts(path): path for path in _folders(root.resolve())}
    found: list[Found] = []
    for name in catalogue().sets:
        found += _known(name, folders)
    known = {each.images for each in found}
    found += [each for each in _unknown(folders) if each.images not in known]
    return found


def _known(name: str, folders: dict[tuple[str, ...], Path]) -> Iterator[Found]:
    """Yields the places of a set, each image folder once."""
    seen = set()
    for layout in catalogue().layouts(name):
        for images, masks in _matches(layout, folders):
            if images not in seen:
                seen.add(images)
                yield Found(name, layout.pack, images, masks, layout.only, layout.shared_masks)


def _matches(layout: Layout, folders: dict[tuple[str, ...], Path]) -> Iterator[tuple[Path, Path]]:
    """Yields the image and mask folders of a layout."""
    of_images, of_masks = _parts(Path(layout.images)), _parts(Path(layout.masks))
    for parts, images in folders.items():
        if parts[-len(of_images) :] == of_images:
            masks = folders.get((*parts[: -len(of_images)], *of_masks))
            if masks and _holds_images(images) and _holds_images(masks):
                yield images, masks


def _unknown(folders: dict[tuple[str, ...], Path]) -> Iterator[Found]:
    """Yields sibling folders with the names of an image and a mask folder in some convention."""
    for parts, images in folders.items():
        for pack, names in catalogue().conventions.items():
            of_images, of_masks = (name.lower() for name in names)
            masks = folders.get((*parts[:-1], of_masks)) if parts[-1] == of_images else None
            if masks and _holds_images(images) and _holds_images(masks):
                yield Found(None, f"as {pack}", images, masks)


def _parts(path: Path) -> tuple[str, ...]:
    """Returns the names along a path in the form that is compared: without upper case and underscores."""
    return tuple(part.lower().replace("_", "-") for part in path.parts)


def _folders(root: Path) -> Iterator[Path]:
    """Yields ``root`` and the folders below it, level by level; links are followed, and no folder comes twice."""
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
