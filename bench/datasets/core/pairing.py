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
    stem: str
    image: Path
    mask: Path


class Names(NamedTuple):
    """How the files of a folder get the names by which they are paired."""

    only: str | None = None  # glob of the file names that count
    suffix: str = ""  # what a name has after that of its partner
    recursive: bool = False  # whether folders within the folder are read


def pairs_of(
    images: str,
    masks: str,
    notes: list[str],
    *,
    only: str | None = None,
    shared_masks: bool = False,
    mask_suffix: str = "",
    recursive: bool = False,
) -> list[Pair]:
    """``matched`` pairs, all of which are in order. Raises ``DataError`` with everything that is not."""
    errors: list[str] = []
    how = {"only": only, "shared_masks": shared_masks, "mask_suffix": mask_suffix, "recursive": recursive}
    pairs = matched(images, masks, notes, errors, **how)
    if errors:
        raise DataError(errors)
    return pairs


def matched(
    images: str,
    masks: str,
    notes: list[str],
    errors: list[str],
    *,
    only: str | None = None,
    shared_masks: bool = False,
    mask_suffix: str = "",
    recursive: bool = False,
) -> list[Pair]:
    """All pairs of two folders in the order of their names (``by_name``).

    only: glob of the file names that count; shared_masks: masks without an image belong to another set; mask_suffix:
    what a mask's name has after its image's. Files without a partner go into ``errors``; if another suffix would pair
    more of them, the error proposes it.
    """
    of_image = by_name(Path(images), Names(only, "", recursive), notes, errors)
    of_mask = by_name(Path(masks), Names(only, mask_suffix, recursive), notes, errors)
    both = of_image.keys() & of_mask.keys()
    if of_image and of_mask:
        lone_images, lone_masks = sorted(of_image.keys() - both), sorted(of_mask.keys() - both)
        ending, count = suffix_that_pairs(of_image.keys(), lone_masks)
        hint = ""
        if count > len(both):
            hint = f". Set dataset.mask_suffix={ending}, which would pair {count} of {len(of_image)}"
        if lone_images:
            errors.append(f"{images}: {len(lone_images)} without a mask of the same stem: {some(lone_images)}{hint}")
        if lone_masks and not shared_masks:
            errors.append(f"{masks}: {len(lone_masks)} without an image of the same stem: {some(lone_masks)}")
    return [Pair(name, of_image[name], of_mask[name]) for name in sorted(both)]


def by_name(folder: Path, names: Names, notes: list[str], errors: list[str]) -> dict[str, Path]:
    """The image files of a folder by the name that pairs them: the path below the folder without the last extension.

    Names are compared in Unicode's composed form (NFC): macOS writes accents as two characters, others as one. Two
    files of one name and an empty folder go into ``errors``, files that are no images into ``notes``.
    """
    found, others = pictures(folder, names.only, names.recursive)
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
        name = name.removesuffix(names.suffix)
        if name in files:
            twice.add(name)
        files[name] = file
    if twice:
        errors.append(f"{folder}: more than one file for {some(sorted(twice))}")
    return files


def suffix_that_pairs(images: Collection[str], masks: Collection[str]) -> tuple[str, int]:
    """The ending that most masks' names have after the name of an image, and how many have it; 0 if none has."""
    endings = Counter(name[cut:] for name in masks for cut in range(1, len(name)) if name[:cut] in images)
    return endings.most_common(1)[0] if endings else ("", 0)


def pictures(folder: Path, only: str | None = None, recursive: bool = False) -> tuple[list[Path], list[str]]:
    """The image files of a folder, and the names of whatever else lies there and is not a file browser's litter.

    only: glob of the file names that count; recursive: files in folders within the folder count, too.
    """
    entries = folder.rglob("*") if recursive else folder.iterdir()
    files = [f for f in entries if not _is_hidden(f.relative_to(folder)) and f.name.lower() not in LITTER]
    files = [f for f in files if only is None or fnmatchcase(f.name, only)]
    if recursive:
        files = [f for f in files if not f.is_dir()]
    found = [f for f in files if f.is_file() and f.suffix.lower() in EXTENSIONS]
    return found, sorted({f.relative_to(folder).as_posix() for f in set(files) - set(found)})


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def content_of(pair: Pair) -> str:
    """``stem/digest of the image file/digest of the mask file``; "gone" for a file that is not there."""
    digests = [file_digest(path) if path.exists() else "gone" for path in pair[1:]]
    return "/".join([pair.stem, *digests])


def file_digest(path: Path) -> str:
    """32 hex digits over the bytes of a file. Raises ``DataError``."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError([f"{path}: cannot be read ({error})"]) from None


def set_fingerprint(contents: list[str]) -> str:
    """32 hex digits over the names and bytes of a set's pairs, wherever they lie; ``bench.data check`` prints it."""
    return cache.digest(sorted(contents))
