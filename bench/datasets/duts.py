"""DUTS (Wang et al., CVPR 2017): 10,553 training and 5,019 test pairs of the salient-object task.

The folders are those of the unpacked archives under ``data/``. As in upstream, training uses all of DUTS-TR and
there is no validation split. Set ``val`` to hold pairs back.
"""

from typing import Literal

from bench.datasets import folder
from bench.datasets.core.assemble import Fraction
from bench.datasets.folder import build  # noqa: F401


class Config(folder.Config):
    name: Literal["duts"] = "duts"
    images: str = "data/DUTS-TR/DUTS-TR-Image"
    masks: str = "data/DUTS-TR/DUTS-TR-Mask"
    test_images: str | None = "data/DUTS-TE/DUTS-TE-Image"
    test_masks: str | None = "data/DUTS-TE/DUTS-TE-Mask"
    val: Fraction = 0.0

    def how_to_get(self, field: str) -> str:
        name, prefix = ("DUTS-TE", "test_") if field.startswith("test_") else ("DUTS-TR", "")
        return (
            f"python -m bench.data fetch {name} --to data gets it, "
            f"or give your folders: dataset.{prefix}images=DIR dataset.{prefix}masks=DIR"
        )
