"""The Parquet files beside a record: scores of each image, and memory over time."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet

from bench.system import parquet
from bench.system.files import write_whole


def write_table(columns: dict[str, list], path: Path) -> None:
    """Writes columns as Parquet, whole or not at all."""
    table = pyarrow.table(columns)
    write_whole(path, lambda f: pyarrow.parquet.write_table(table, f, write_page_checksum=True))


def load_images(folder: Path, trial_ids: Iterable[str]) -> dict[str, dict[str, list]]:
    """Per-image scores (name and metrics, in order) on the first test set, by the ids of trials that have them."""
    return read_images(folder, trial_ids)[0]


def read_images(folder: Path, trial_ids: Iterable[str]) -> tuple[dict[str, dict[str, list]], list[str]]:
    """``load_images``, and a line for each file that cannot be used."""
    found, lines = {}, []
    for trial_id in trial_ids:
        path = folder / f"{trial_id}.images.parquet"
        columns, line = parquet.read(path, {"name": parquet.TEXT, "set": parquet.TEXT}, ("name",), parquet.NUMBER)
        if columns == {}:
            line = f"{path}: cannot be used (it has no rows)"
        elif columns is not None:
            found[trial_id] = _first_set(columns)
        lines += [line] * bool(line)
    return found, lines


def _first_set(columns: dict[str, list]) -> dict[str, list]:
    sets = columns.pop("set", None)  # predictions that were scored from files belong to one
    if sets is None:
        return columns
    return {name: [v for v, of in zip(values, sets) if of == sets[0]] for name, values in columns.items()}


def load_series(folder: Path, trial_id: str) -> dict[str, list] | None:
    """A trial's memory readings as columns (``memory_series``); ``None`` where there are none that can be used."""
    return read_series(folder, trial_id)[0]


def read_series(folder: Path, trial_id: str) -> tuple[dict[str, list] | None, str]:
    """``load_series``, and a line if the file cannot be used."""
    known = {"phase": parquet.TEXT, "seconds": parquet.NUMBER}
    columns, line = parquet.read(folder / f"{trial_id}.memory.parquet", known, tuple(known), parquet.READING)
    return columns or None, line
