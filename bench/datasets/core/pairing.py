"""Pairs of image and mask files: found in two folders and matched by the names of their files."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from bench.datasets import DataError
from bench.datasets.core import cache
from bench.datasets.core.images import EXTENSIONS
from bench.system.wording import some

LITTER = {"thumbs.db", "desktop.ini"}
"""Files that file browsers leave in folders."""


class Pair(NamedTuple):
    """An image file and its mask file."""

    stem: str
    image: Path
    mask: Path


class Matching(NamedTuple):
    """Settings that decide which files of two folders are pairs."""

    only: str | None = None
    """Glob of the file names that count."""
    mask_suffix: str = ""
    """Ending of a mask's name that its image's name lacks."""
    recursive: bool = False
    """Whether folders within the folders are read."""
    shared_masks: bool = False
    """Whether masks without an image belong to another set."""


def pairs_of(images: Path, masks: Path, notes: list[str], matching: Matching = Matching()) -> list[Pair]:
    """Returns the ``matched`` pairs. Raises ``DataError`` with all errors."""
    errors: list[str] = []
    pairs = matched(images, masks, notes, errors, matching)
    if errors:
        raise DataError(errors)
    return pairs


def matched(
    images: Path, masks: Path, notes: list[str], errors: list[str], matching: Matching = Matching()
) -> list[Pair]:
    """Returns all pairs of two folders in the order of their names (``by_name``).

    Files without a partner go into ``errors``. If another suffix would pair more of them, the error proposes it.
    """
    of_image = by_name(images, matching._replace(mask_suffix=""), notes, errors)
    of_mask = by_name(masks, matching, notes, errors)
    both = of_image.keys() & of_mask.keys()
    if of_image and of_mask:
        lone_images, lone_masks = sorted(of_image.keys() - both), sorted(of_mask.keys() - both)
        ending, count = suffix_that_pairs(of_image.keys(), lone_masks)
        hint = ""
        if count > len(both):
            hint = f". Set dataset.mask_suffix={ending}, which would pair {count} of {len(of_image)}"
        if lone_images:
            errors.append(f"{images}: {len(lone_images)} without a mask of the same stem: {some(lone_images)}{hint}")
        if lone_masks and not matching.shared_masks:
            errors.append(f"{masks}: {len(lone_masks)} without an image of the same stem: {some(lone_masks)}")
    return [Pair(name, of_image[name], of_mask[name]) for name in sorted(both)]


def by_name(folder: Path, matching: Matching, notes: list[str], errors: list[str]) -> dict[str, Path]:
    """Returns the image files of a folder by name: the path below it without the last extension and the suffix.

    Names are compared in Unicode's composed form (NFC): macOS writes accents as two characters, other systems as one.
    Two files of one name and an empty folder go into ``errors``, files that are no images into ``notes``.
    """
    found, others = pictures(folder, matching.only, matching.recursive)
    nested = [name for name in others if (folder / name).is_dir() and pictures(folder / name, recursive=True)[0]]
    if plain := [name for name in others if name not in nested]:
        notes.append(f"{folder}: not used, because they are no images: {some(plain)}")
    remedy = "Set dataset.recursive=true to read them"
    if not found and nested:
        errors.append(f"{folder}: holds no images itself, but folders with images: {some(nested)}. {remedy}")
    elif not found:
        errors.append(f"{folder}: holds no images. Known are {', '.join(sorted(EXTENSIONS))}")
    elif nested:
        notes.append(f"{folder}: folders with images that are not read: {some(nested)}. {remedy}")
    files: dict[str, Path] = {}
    twice = set()
    for file in found:
        name = unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
        name = name.removesuffix(matching.mask_suffix)
        if name in files:
            twice.add(name)
        files[name] = file
    if twice:
        errors.append(f"{folder}: more than one file for {some(sorted(twice))}")
    return files


def suffix_that_pairs(images: Collection[str], masks: Collection[str]) -> tuple[str, int]:
    """Returns the most frequent ending of masks' names after an image's name, and its count; 0 if there is none."""
    endings: Counter[str] = Counter()
    for name in masks:
        endings.update(name[cut:] for cut in range(1, len(name)) if name[:cut] in images)
    return endings.most_common(1)[0] if endings else ("", 0)


def pictures(folder: Path, only: str | None = None, recursive: bool = False) -> tuple[list[Path], list[str]]:
    """Returns the image files of a folder, and the names of all other entries but hidden ones and ``LITTER``.

    only: glob of the file names that count. recursive: whether files in folders within the folder count, too.
    """
    found, others = [], []
    for entry in folder.rglob("*") if recursive else folder.iterdir():
        if _is_hidden(entry.relative_to(folder)) or entry.name.lower() in LITTER:
            continue
        if only is not None and not fnmatchcase(entry.name, only):
            continue
        if recursive and entry.is_dir():
            continue
        if entry.is_file() and entry.suffix.lower() in EXTENSIONS:
            found.append(entry)
        else:
            others.append(entry.relative_to(folder).as_posix())
    return found, sorted(others)


def _is_hidden(path: Path) -> bool:
    """Whether the name of the file, or of a folder above it, starts with a dot."""
    return any(part.startswith(".") for part in path.parts)


def content_of(pair: Pair) -> str:
    """Returns ``stem/digest of the image file/digest of the mask file``; the digest of a missing file is "gone"."""
    digests = [file_digest(path) if path.exists() else "gone" for path in pair[1:]]
    return "/".join([pair.stem, *digests])


def file_digest(path: Path) -> str:
    """Returns 32 hex digits over the bytes of a file. Raises ``DataError``."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError([f"{path}: cannot be read ({error})"]) from None


def set_fingerprint(contents: list[str]) -> str:
    """Returns 32 hex digits over the names and bytes of a set's pairs. It does not depend on their folder."""
    return cache.digest(sorted(contents))
