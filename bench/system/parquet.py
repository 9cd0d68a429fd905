"""Parquet files from any source: an unusable file gives a line instead of an error."""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from pyarrow import types

LARGEST_NUMBER = 1e100
"""Largest absolute value that is accepted; larger ones overflow in figures and statistics."""
MOST_ROWS = 5_000_000
Columns = dict[str, list]


class Kind(NamedTuple):
    """The content of a column: its name in messages, its Arrow types, and a check of its values."""

    words: str
    types: tuple[Callable[[pyarrow.DataType], bool], ...]
    can_be: Callable[[Any], bool]


def _is_there(value: Any) -> bool:
    return value is not None


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST_NUMBER


def _is_number_or_nothing(value: Any) -> bool:
    return value is None or _is_number(value)


def _lists_texts(kind: pyarrow.DataType) -> bool:
    return types.is_list(kind) and types.is_string(kind.value_type)


TEXT = Kind("texts", (types.is_string, types.is_large_string), _is_there)
TEXTS = Kind("lists of texts", (_lists_texts,), _is_there)
NUMBER = Kind("numbers", (types.is_floating, types.is_integer), _is_number)
READING = Kind("numbers or nothing", (*NUMBER.types, types.is_null), _is_number_or_nothing)
BYTES = Kind("bytes", (types.is_binary, types.is_large_binary), _is_there)


def read(path: Path, known: Mapping[str, Kind], required: Collection[str], others: Kind) -> tuple[Columns | None, str]:
    """Returns the columns of a file, or ``None`` and a line with the reason; the line is empty if there is no file.

    known: kinds of the columns by name. required: columns that the file must have. others: kind of all other columns. A
    file without rows has no columns.
    """
    if not path.exists():
        return None, ""
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise ValueError(f"it has {file.metadata.num_rows:,} rows")
            table = file.read()
        return _checked(table, known, required, others) if len(table) else {}, ""
    except Exception as error:  # Arrow raises errors of many classes for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None, f"{path}: cannot be used ({reason})"


def _checked(table: pyarrow.Table, known: Mapping[str, Kind], required: Collection[str], others: Kind) -> Columns:
    """Returns the columns of a table. Raises ``ValueError`` for missing or repeated columns and for wrong values."""
    if missing := [name for name in required if name not in table.column_names]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError("it has two columns of one name")
    columns = {}
    for name in table.column_names:
        kind, column = known.get(name, others), table.column(name)
        if not any(fits(column.type) for fits in kind.types):
            raise ValueError(f"its column {name} holds {column.type}, not {kind.words}")
        columns[name] = column.to_pylist()
        for value in columns[name]:
            if not kind.can_be(value):
                raise ValueError(f"its column {name} holds {value}, not {kind.words}")
    return columns
