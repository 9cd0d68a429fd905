"""How many training images a trial uses, and whether its split is drawn with its seed: settings of every dataset."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, PositiveInt

from bench.config.settings import ALL_IMAGES
from models.core.registry import Config


def _count(raw: Any) -> Any:
    if isinstance(raw, str) and raw != ALL_IMAGES:
        raise ValueError(f"a number of images is needed, or {ALL_IMAGES}")
    return None if raw == ALL_IMAGES else raw


class Draw(Config):
    """Base of a dataset's configuration: the draw of its training images and of its split."""

    seed_field: ClassVar[str] = "split_seed"
    """Field with the seed of the draw."""

    train_images: Annotated[PositiveInt | None, BeforeValidator(_count)] = None
    """Number of training images that are used; ``None``, or ``all`` in a sweep file: all of them. The images of a
    smaller number are among those of a larger one: the seed of the split draws an order, and the first ones are used.
    The other splits stay the same."""
    split: Literal["fixed", "by_seed"] = "fixed"
    """``fixed``: all seeds of a trial have the same images. ``by_seed``: what the suite draws is drawn anew with each
    seed of a trial: the split, the training images, or painted scenes."""

    def draws(self) -> bool:
        """Returns whether some split is drawn; else all splits are those of the dataset."""
        return True

    def split_in_words(self) -> str:
        """Returns where the splits are from."""
        if not self.draws():
            return "splits of the dataset"
        if self.split == "by_seed":
            return "split drawn anew with each seed"
        return f"split fixed (dataset.{self.seed_field} {getattr(self, self.seed_field)})"

    def drawn(self, seed: int) -> "Draw":
        """Returns the configuration of a trial with this seed."""
        return self.model_copy(update={self.seed_field: seed}) if self.split == "by_seed" else self
