"""The tables of a record in Parquet files: scores of each image, and memory over time."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet

from bench.system import parquet
from bench.system.files import write_whole


def write_table(columns: dict[str, list], path: Path) -> None:
    """Writes columns as a Parquet file, as a whole."""
    table = pyarrow.table(columns)
    write_whole(path, lambda f: pyarrow.parquet.write_table(table, f, write_page_checksum=True))


def load_images(folder: Path, trial_ids: Iterable[str]) -> dict[str, dict[str, list]]:
    """Returns the scores of each image of the first test set (name and metrics), by the ids of trials that have them."""
    return read_images(folder, trial_ids)[0]


def read_images(folder: Path, trial_ids: Iterable[str]) -> tuple[dict[str, dict[str, list]], list[str]]:
    """Returns the same as ``load_images``, and a line for each file that cannot be used."""
    tables, lines = {}, []
    for trial_id in trial_ids:
        path = folder / f"{trial_id}.images.parquet"
        columns, line = parquet.read(path, {"name": parquet.TEXT, "set": parquet.TEXT}, ("name",), parquet.NUMBER)
        if columns == {}:
            line = f"{path}: cannot be used (it has no rows)"
        elif columns is not None:
            tables[trial_id] = _first_set(columns)
        if line:
            lines.append(line)
    return tables, lines


def _first_set(columns: dict[str, list]) -> dict[str, list]:
    """Returns the rows of the first test set."""
    sets = columns.pop("set", None)
    if sets is None:  # external scores belong to one set
        return columns
    rows = [row for row, name in enumerate(sets) if name == sets[0]]
    return {column: [values[row] for row in rows] for column, values in columns.items()}


def load_series(folder: Path, trial_id: str) -> dict[str, list] | None:
    """Returns the memory of a trial over time as columns (``memory_series``); ``None`` without a usable file."""
    return read_series(folder, trial_id)[0]


def read_series(folder: Path, trial_id: str) -> tuple[dict[str, list] | None, str]:
    """Returns the same as ``load_series``, and a line if the file cannot be used."""
    required = {"phase": parquet.TEXT, "seconds": parquet.NUMBER}
    columns, line = parquet.read(folder / f"{trial_id}.memory.parquet", required, tuple(required), parquet.READING)
    return columns or None, line
