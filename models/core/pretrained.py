"""Base of configurations whose weights come from a file: which file it is, and how to get it."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from models.core.paths import expanded
from models.core.registry import Config, Missing


class Pretrained(Config):
    """A configuration with a field ``weights``, which each entry declares: ``random``, a path, or ``published``."""

    published: ClassVar[str] = "pretrained"
    """Value of ``weights`` for the published file."""
    by_path: ClassVar[str] = "give the path of an existing file, 'pretrained' or 'random'"
    """Remedy for a path without a file."""

    def published_checkpoint(self) -> Path | None:
        """Returns the place of the published file, which need not exist; ``None`` if it is in no known place."""
        raise NotImplementedError

    def how_to_get(self) -> str:
        """Returns the remedy for a published file that is missing."""
        raise NotImplementedError

    def not_found(self) -> str:
        """Describes a published file that is in no known place."""
        raise NotImplementedError

    def checkpoint(self) -> Path | None:
        """Returns the file to load, which need not exist.

        ``None`` for random weights, and for a published file that is in no known place.
        """
        if self.weights == "random":
            return None
        return self.published_checkpoint() if self.weights == self.published else expanded(self.weights)

    def missing(self) -> Iterator[Missing]:
        path = self.checkpoint()
        if self.weights == "random" or (path is not None and path.is_file()):
            return
        if path is None:
            what = self.not_found()
        else:
            what = f"{path} is no file" if path.exists() else f"{path} does not exist"
        remedy = self.how_to_get() if self.weights == self.published else self.by_path
        yield Missing("weights", "weights", what, remedy)

    def weight_files(self) -> Iterator[Path]:
        path = self.checkpoint()
        if path is not None:
            yield path
