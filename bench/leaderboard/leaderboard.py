"""The leaderboard as data: cells, rows, tables of rows that may be compared, and the whole with its remarks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

from bench.config.search import SearchConfig
from bench.leaderboard.inference.answer import Answer
from bench.leaderboard.inference.two_way import effective_seeds
from bench.leaderboard.published_rows import Beside
from bench.leaderboard.statistics import Comparison, half_width
from bench.leaderboard.tuning.facts import Tuned, Tuning
from bench.scoring.metrics import MAIN_METRICS


@dataclass(frozen=True)
class Cell:
    """The mean of a quantity over the seeds of one configuration."""

    mean: float
    deviation: float | None  # sample standard deviation; None with one seed
    count: int  # number of seeds
    overlap: float = 0.0  # share of images that two seeds have in common, where each seed has images of its own

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; ``None`` with one seed."""
        return None if self.deviation is None else self.deviation / sqrt(effective_seeds(self.count, self.overlap))

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds; ``None`` with one seed."""
        return half_width(self.deviation, self.count, effective_seeds(self.count, self.overlap))


@dataclass(frozen=True)
class Row:
    """One configuration and the trials of all its seeds."""

    labels: tuple[str, ...]  # one for each axis
    statuses: tuple[str, ...]  # one for each seed: a record's status, or missing, running or pending
    errors: tuple[str, ...]  # one line for each error and for each missing requirement
    trial_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]  # by quantity; a quantity that was not measured has no cell
    on_front: bool = False  # no other row is at least as accurate with less memory
    notes: tuple[str, ...] = ()  # warnings about the row's memory and its tuned values
    underfit: bool = False  # its training score is below the best test score of the table
    stopped_at: int | None = None  # epoch after which a trial was stopped early
    shared_card: bool = False  # some trial shared its GPU, so that its memory and speed are unknown
    tuned: Tuned | None = None  # values that the sweep chose for this row; None if all are those of the sweep file

    @property
    def count_ok(self) -> int:
        """Number of seeds with status ok."""
        return self.statuses.count("ok")

    @property
    def untrained(self) -> bool:
        """Whether the model has no trainable parameters: its scores are those of the released weights."""
        trainable = self.cells.get("parameters.trainable")
        return self.count_ok > 0 and trainable is not None and trainable.mean == 0


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: they have the same device, versions, weights and data."""

    environment: Mapping[str, str]
    commits: tuple[str, ...]  # of the code, with "-dirty" where there were uncommitted changes; rows may differ in it
    trials_at_once: tuple[int, ...]  # numbers of trials that ran at the same time; rows may differ in it
    weights: tuple[str, ...]  # names of the loaded weight files, and their digests
    rows: tuple[Row, ...]
    memory_measure: str | None  # the first of ``MEASURES`` that all trained rows have
    main_metric: str = MAIN_METRICS[0]  # decides the front
    comparisons: Mapping[str, tuple[Comparison, ...]] = field(default_factory=dict)  # of all pairs of rows, by metric
    images: int | None = None  # number of images in the comparisons
    overlap: float | None = (
        None  # share of images that two seeds have in common; None if all seeds have the same images
    )
    looks: int = 1  # number of interim analyses; p values are corrected for it
    answer: Answer | None = None  # to the planned question of the sweep; None if there is nothing to compare

    def tested(self, metric: str) -> list[Comparison]:
        """The comparisons on a metric that could be tested."""
        return [comparison for comparison in self.comparisons.get(metric, ()) if comparison.p is not None]


@dataclass(frozen=True)
class Leaderboard:
    """All tables of a sweep, and the facts that its reader must know."""

    name: str
    question: str
    profile: str
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    embedded: tuple[str, ...]  # stand-ins for the real encoder and data, e.g. "encoder sam3_vit_tiny"
    settings: str  # settings that all rows share
    splits: str  # where training, validation and test images are from
    tables: tuple[Table, ...]
    beside: Beside = Beside()  # external methods and published numbers
    search: SearchConfig = SearchConfig()  # how the configurations and the number of seeds were chosen
    remarks: tuple[str, ...] = ()  # what was merged, left out or selected
    tuning: Tuning = Tuning()  # how tuned values were chosen

    @property
    def warning(self) -> str:
        """A short warning that the numbers are those of stand-ins; empty for a real model and real data."""
        return f"EMBEDDED RUN ({', '.join(self.embedded)}): not results of SAM3-UNet" if self.embedded else ""

    def environment_heading(self, number: int) -> str:
        """Returns the heading of table ``number``, counted from 1; empty if there is one table only."""
        several = len(self.tables) > 1
        return f"Environment {number} of {len(self.tables)}: not comparable with the others" if several else ""


def measured_memory(row: Row, table: Table) -> Cell | None:
    """Returns the row's peak memory in training by the table's measure, in bytes."""
    return row.cells.get(f"training.{table.memory_measure}")
