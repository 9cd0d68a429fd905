"""A dataset of the Hugging Face hub by its id, as in ``{name: hub, id: nobg/DUTS}``: Parquet files with two columns.

The images and masks in its rows are written to the cache once, byte for byte, and then read like those of any folder.
Without a network ``dataset.local=DIR`` gives the folder of a snapshot that was downloaded before.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pyarrow
import pyarrow.parquet
from huggingface_hub import snapshot_download
from pydantic import Field, NonNegativeInt

from bench.config.settings import TransformConfig
from bench.datasets import Data, DataError
from bench.datasets.core import cache
from bench.datasets.core.assemble import Fraction, assemble, split
from bench.datasets.core.pair_reader import PairSet
from bench.datasets.core.pairing import Pair, pairs_of
from bench.datasets.masks.reading import PairFiles
from bench.system.progress import Progress, silent
from bench.system.wording import some
from models.cache.made_once import made_once
from models.core.paths import expanded
from models.core.registry import Missing
from models.core.weights import what_stands_in

KINDS = {  # file extension by the first bytes of the file
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
ROWS = 64
"""Rows that are in memory at a time."""


class Config(PairFiles):
    name: Literal["hub"] = "hub"
    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str | None = None
    """Branch, tag or commit. Only a commit always names the same data."""
    local: str | None = None
    """Folder of a snapshot that was downloaded before; with it nothing is downloaded."""
    image: str = "image"
    """Column of the images."""
    mask: str = "mask"
    """Column of the masks."""
    train_split: str = "train"
    test_split: str | None = "test"
    """``None``: the test split is taken from the training pairs."""
    val: Fraction = 0.0
    test: Fraction | None = None
    """Share of the pairs that are scored, if there is no test split."""
    split_seed: NonNegativeInt = 0

    def draws(self) -> bool:
        return self.test_split is None or self.val > 0 or self.train_images is not None

    def missing(self) -> Iterator[Missing]:
        if self.local is not None and not expanded(self.local).is_dir():
            remedy = f"hf download --repo-type dataset {self.id} --local-dir DIR, then dataset.local=DIR"
            yield Missing("data", "local", f"{expanded(self.local)} is no folder", remedy)


def build(config: Config, transform: TransformConfig, progress: Progress = silent) -> Data:
    """Downloads missing files. Raises ``DataError``, also if the hub cannot be reached."""
    snapshot = _snapshot(config)
    files = sorted(snapshot.rglob("*.parquet"))
    if not files:
        raise DataError([f"{config.id}: no Parquet files in {snapshot}. Download it and use dataset {{name: folder}}"])
    notes: list[str] = []
    sets = []
    for name in (config.train_split, config.test_split):
        if name is not None:
            sets.append(PairSet(name, _unpacked(config, snapshot, files, name, notes, progress), config.reading()))
    pool, tests = sets[:1], sets[1:]
    shares = {"val": config.val, "test": config.test, "seed": config.split_seed, "train_images": config.train_images}
    splits = split(pool, tests, **shares, where=config.id)
    return assemble(pool, tests, splits, transform, notes, progress, redrawn=config.split == "by_seed")


def _snapshot(config: Config) -> Path:
    """Returns the folder of the snapshot, after a download if necessary. Raises ``DataError``."""
    if config.local is not None:
        return expanded(config.local)
    try:
        return Path(
            snapshot_download(config.id, repo_type="dataset", revision=config.revision, allow_patterns="*.parquet")
        )
    except (OSError, ValueError) as error:  # the hub's errors, also without a network and for unknown or gated ids
        reason = str(error).strip().splitlines()[0]
        remedy = "check the id; for a gated one ask for access and `hf auth login`; offline give dataset.local=DIR"
        line = f"{config.id}: cannot be had from the Hugging Face hub ({reason}). Remedy: {remedy}"
        raise DataError([line]) from None


def _unpacked(
    config: Config, snapshot: Path, files: list[Path], name: str, notes: list[str], progress: Progress
) -> list[Pair]:
    """Writes the pairs of a split to the cache and returns them. Raises ``DataError``."""
    pattern = re.compile(rf"(^|/){re.escape(name)}([-_./]|\d|$)")
    own = [f for f in files if pattern.search(f.relative_to(snapshot).as_posix())]
    if not own:
        there = some([f.relative_to(snapshot).as_posix() for f in files])
        raise DataError([f"{config.id}: no file of a split '{name}'. Files: {there}"])
    stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in own]
    folder = cache.root() / f"hub-{cache.digest([stamps, config.image, config.mask])}"
    try:
        made_once(folder, lambda temporary: _unpack(config, own, temporary, progress))
    except OSError as error:
        raise DataError([f"{config.id}: cannot be unpacked to {folder} ({error})"]) from None
    return pairs_of(folder / "images", folder / "masks", notes)


def _unpack(config: Config, files: list[Path], folder: Path, progress: Progress) -> None:
    """Writes the images and masks of all rows to ``folder/images`` and ``folder/masks``. Raises ``DataError``."""
    columns = {"images": config.image, "masks": config.mask}
    for side in columns:
        (folder / side).mkdir(parents=True)
    tables = [_opened(config, file, list(columns.values())) for file in files]
    count = sum(table.metadata.num_rows for table in tables)
    for number, row in enumerate(progress(_rows(tables, list(columns.values())), count)):
        stem = f"{number:06d}"
        name = _name_in(row[config.image])
        if name is not None:
            stem += f"-{PurePosixPath(name).stem}"
        for side, column in columns.items():
            data = _bytes_in(row[column])
            if data is None:
                raise DataError([f"{config.id}: row {number} holds no bytes of an image in '{column}'"])
            suffix = next((s for magic, s in KINDS.items() if data.startswith(magic)), None)
            if suffix is None:
                raise DataError([f"{config.id}: row {number} holds no known kind of image in '{column}'"])
            (folder / side / f"{stem}{suffix}").write_bytes(data)


def _name_in(cell: Any) -> str | None:
    """Returns the file name in a cell that has more than bytes."""
    return cell.get("path") or None if isinstance(cell, dict) else None


def _bytes_in(cell: Any) -> bytes | None:
    """Returns the bytes of the image file in a cell: the cell itself, or its ``bytes``."""
    data = cell["bytes"] if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else None


def _opened(config: Config, file: Path, columns: list[str]) -> pyarrow.parquet.ParquetFile:
    """Opens a Parquet file that has both columns. Raises ``DataError``."""
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowException as error:
        raise DataError([f"{file}: {what_stands_in(file) or f'cannot be read as Parquet ({error})'}"]) from None
    absent = [column for column in columns if column not in table.schema_arrow.names]
    if absent:
        there = f"Columns: {', '.join(table.schema_arrow.names)}. Set dataset.image and dataset.mask"
        raise DataError([f"{config.id}: no column {' and no '.join(absent)} in {file.name}. {there}"])
    return table


def _rows(tables: list[pyarrow.parquet.ParquetFile], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of all tables, a few of which are in memory at a time."""
    for table in tables:
        for batch in table.iter_batches(ROWS, columns=columns):
            yield from batch.to_pylist()
