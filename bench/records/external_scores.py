"""Scores of methods that were not trained here, from their prediction files. They are no trials of a sweep.

``python -m bench.score`` writes ``<sweep>/external/<name>.json`` and ``<name>.images.parquet``, the scores of images.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from bench.config.settings import PROTOCOLS
from bench.records import schema
from bench.records.record import is_beyond
from bench.records.tables import read_images, write_table
from bench.system.files import write_whole
from models.core.registry import Config

FOLDER = "external"


class ExternalRecord(Config):
    """Scores of one folder of predictions, and how they were obtained."""

    schema_version: Literal[1] = 1
    name: str
    protocol: PROTOCOLS.name_field()
    minmax: bool
    """Whether maps were stretched before they were scored. Steps of the method that made them are unknown."""
    foreground: str | list[int | str] = "auto"
    """Rules for object and ignored pixels in the masks (``bench.datasets.masks.reading.PairFiles``)."""
    ignore: list[int | str] = []
    notes: list[str] = []
    """Notes for readers about how the files were read."""
    scores: dict[str, float]
    images: int
    predictions: str
    masks: str
    predictions_fingerprint: str
    """Hash of the names and contents of the files; the next field is that of the masks."""
    masks_fingerprint: str
    scored: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    image_scores: dict[str, list] | None = Field(default=None, exclude=True)
    """Name and metrics of each image; saved as Parquet, not in the JSON."""

    @model_validator(mode="after")
    def _numbers_can_be(self) -> "ExternalRecord":
        if is_beyond(self):
            raise ValueError("holds a number beyond all that can be measured")
        return self

    def save(self, folder: Path) -> list[Path]:
        """Writes both files into ``folder`` and returns their paths; the JSON comes last."""
        paths = targets(folder, self.name)
        if self.image_scores is not None:
            write_table(self.image_scores, paths[0])
        text = self.model_dump_json(indent=1)
        write_whole(paths[1], lambda file: file.write(text.encode()))
        return paths


def targets(folder: Path, name: str) -> list[Path]:
    """Returns the paths of the files of a record: scores of images, and the record."""
    return [folder / f"{name}.images.parquet", folder / f"{name}.json"]


def load_external(sweep_folder: Path) -> tuple[list[ExternalRecord], list[str]]:
    """Returns the external records in the folder of a sweep, and a line for each file that is none."""
    records, broken = [], []
    for path in sorted((sweep_folder / FOLDER).glob("*.json")):
        try:
            record = ExternalRecord.model_validate_json(schema.read(path))
            if record.name != path.stem:
                raise OSError(f"its name is {record.name!r}")
        except (ValidationError, OSError) as error:
            reason = schema.unreadable(error, ExternalRecord) if isinstance(error, ValidationError) else error
            broken.append(f"{path}: not a readable external record ({reason})")
            continue
        except schema.NewerVersion as error:
            broken.append(str(error))
            continue
        images, problems = read_images(path.parent, [record.name])
        broken += problems
        if not problems:
            records.append(record.model_copy(update={"image_scores": images.get(record.name)}))
    return records, broken
