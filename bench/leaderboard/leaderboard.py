"""Records -> ``Leaderboard``: one row per configuration, mean and spread over seeds, one table per environment."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.config.expand import Trial
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.leaderboard.published_rows import Beside, beside
from bench.leaderboard.statistics import Comparison, compare, half_width
from bench.records.external_scores import ExternalRecord
from bench.records.failures import in_a_line
from bench.records.memory import PEAKS
from bench.records.record import TrialRecord
from bench.records.sweep_json import Predicted
from bench.scoring.metrics import MAIN_METRICS, METRICS, main_metric
from models.core.registry import Missing
from models.core.size import in_words

GIB = 2**30
_MEASURES = ("device (NVML)", "torch reserved", "torch allocated", "peak RSS above baseline (CPU)")
MEMORY_MEASURES = dict(zip(PEAKS, _MEASURES, strict=True))
"""What tables call the peaks of ``bench.memory.measure``, in their order."""
RESOLUTION_BYTES = {
    "nvml_device_bytes": 2 * 2**20,  # pages of CUDA's memory
    "torch_reserved_bytes": 2 * 2**20,
    "torch_allocated_bytes": 512,
    "rss_bytes": 4096,
}
"""The smallest step in which each measure moves."""


@dataclass(frozen=True)
class Cell:
    """A quantity over the seeds of one configuration."""

    mean: float
    deviation: float | None  # sample standard deviation; unknown with one seed
    count: int

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds; unknown with one seed."""
        return half_width(self.deviation, self.count)


@dataclass(frozen=True)
class Row:
    """One configuration."""

    labels: tuple[str, ...]  # on each axis
    statuses: tuple[str, ...]  # of each seed: a record's, or missing (cannot run on this machine), running, pending
    errors: tuple[str, ...]  # last lines of what went wrong, and what is missing
    trial_ids: tuple[str, ...]
    seeds: tuple[int, ...]  # of the trials
    cells: Mapping[str, Cell]  # by quantity; quantities that nobody could measure are absent
    on_front: bool = False  # no other row is at least as accurate with less memory
    notes: tuple[str, ...] = ()  # what to know before believing the row's memory
    stopped_at: int | None = None  # epoch after which a trial was stopped early
    shared_card: bool = False  # some trial was not alone on its card, so that its memory and speed are not known

    @property
    def count_ok(self) -> int:
        return self.statuses.count("ok")

    @property
    def untrained(self) -> bool:
        """There was nothing to train: scores are of the model as it came."""
        trainable = self.cells.get("parameters.trainable")
        return self.count_ok > 0 and trainable is not None and trainable.mean == 0


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: same device, versions, weights and data."""

    environment: Mapping[str, str]
    commits: tuple[str, ...]  # of the code, an asterisk where it was changed; shown, but no reason to part rows
    trials_at_once: tuple[int, ...]  # how many shared the machine while speeds were measured; likewise
    weights: tuple[str, ...]  # files that any row loaded, and their digests
    rows: tuple[Row, ...]
    memory_measure: str | None  # the first of ``MEMORY_MEASURES`` that all rows that were trained have
    main_metric: str = MAIN_METRICS[0]  # decides the front
    comparisons: Mapping[str, tuple[Comparison, ...]] = field(default_factory=dict)  # of all pairs of rows, by metric
    images: int | None = None  # how many the comparisons are over
    looks: int = 1  # how often comparisons could end the sweep; p values are corrected for it


@dataclass(frozen=True)
class Leaderboard:
    name: str
    question: str
    profile: str
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    embedded: tuple[str, ...]  # the stand-ins behind the numbers, e.g. "encoder sam3_vit_tiny"
    settings: str  # what all rows share, in words
    tables: tuple[Table, ...]
    beside: Beside = Beside()  # what was not measured by these trials
    search: SearchConfig = SearchConfig()  # how the configurations and the number of seeds were chosen
    remarks: tuple[str, ...] = ()  # about the whole: what was merged, left out or selected

    @property
    def warning(self) -> str:
        """What stands over numbers of stand-ins where there is room for a line; empty for real ones."""
        return f"EMBEDDED RUN ({', '.join(self.embedded)}): not results of SAM3-UNet" if self.embedded else ""

    def environment_heading(self, number: int) -> str:
        """Over the table of this number, from 1; empty where it is the only one."""
        several = len(self.tables) > 1
        return f"Environment {number} of {len(self.tables)}: not comparable with the others" if several else ""


def summarise(
    sweep: Sweep,
    trials: Sequence[Trial],
    records: Mapping[str, TrialRecord],
    absent: Mapping[str, Sequence[Missing]] = MappingProxyType({}),
    images: Mapping[str, Mapping[str, Sequence]] | None = None,
    external: Sequence[ExternalRecord] = (),
    predicted: Mapping[str, Predicted] = MappingProxyType({}),
    remarks: Sequence[str] = (),
    running: Collection[str] = (),
) -> Leaderboard:
    """The sweep's trials in its order, whatever became of them; records of other settings are left out.

    absent: by trial id, what keeps a trial from running on this machine; images: per-image scores by trial id; without
    them no differences are tested; predicted: memory by trial id; running: ids of trials that run at this moment.
    """
    images = {i: scores for i, scores in (images or {}).items() if i in records and records[i].status == "ok"}
    ours = [records[t.trial_id] for t in trials if t.trial_id in records]
    ambiguous = _ambiguous_weights(ours)
    environments = {record.trial_id: _environment(record, ambiguous) for record in ours}
    known = Counter(e for e in environments.values() if e is not None)
    usual = known.most_common(1)[0][0] if known else ()
    groups: dict[tuple, dict[tuple[str, ...], list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        # a trial that never came to its environment stands where most of the others are
        groups[environments.get(trial.trial_id) or usual][trial.point].append(trial)
    tables = []
    for environment, points in sorted(groups.items(), key=lambda item: -len(item[1])):
        rows = [_row(point, members, records, absent, predicted, running) for point, members in points.items()]
        ids = {i for row in rows for i in row.trial_ids}
        measure = next((m for m in MEMORY_MEASURES if _all_have(rows, f"training.{m}")), None)
        accuracy = main_metric(m for m in METRICS if any(f"test.{m}" in row.cells for row in rows))
        looks = sweep.search.looks(len(sweep.seeds))
        comparisons, image_count = _compare(rows, images, looks)
        sources = [records[i].provenance for i in sorted(ids) if i in records and records[i].provenance]
        tables.append(
            Table(
                environment=dict(environment),
                commits=tuple(sorted({(s.commit or "unknown")[:10] + "*" * bool(s.dirty) for s in sources})),
                trials_at_once=tuple(sorted({s.trials_at_once for s in sources})),
                weights=tuple(sorted({f"{n} {digest[:12]}" for s in sources for n, digest in s.weights.items()})),
                rows=_mark_front(rows, measure, accuracy or MAIN_METRICS[0]),
                memory_measure=measure,
                main_metric=accuracy or MAIN_METRICS[0],
                comparisons=comparisons,
                images=image_count,
                looks=looks,
            )
        )
    embedded = tuple(dict.fromkeys(part for trial in trials for part in _stand_ins(trial)))
    return Leaderboard(
        name=sweep.name,
        question=sweep.question,
        profile=sweep.profile,
        axes=tuple(axis.name for axis in sweep.axes),
        seeds=sweep.seeds,
        embedded=embedded,
        settings=_settings(sweep),
        tables=tuple(tables),
        beside=beside(trials, records, images, external, bool(embedded)),
        search=sweep.search,
        remarks=tuple(remarks),
    )


def measured_memory(row: Row, table: Table) -> Cell | None:
    """The row's peak memory in training by the table's measure, in bytes."""
    return row.cells.get(f"training.{table.memory_measure}")


def _failure(record: TrialRecord) -> str:
    """Why a trial has no scores, in a line; out of memory with what was known then."""
    text, known = in_a_line(record.error), record.memory_at_failure
    if record.status != "oom" or known is None:
        return text
    figures = {
        "reserved then": known.torch_reserved_bytes,
        "predicted peak allocated": known.predicted_allocated_bytes,
        "memory.budget_gib": known.budget_bytes,
    }
    said = "; ".join(f"{name} {value / GIB:.2f} GiB" for name, value in figures.items() if value is not None)
    return f"{text} ({said})" if said else text


def _row(
    point: tuple[str, ...],
    trials: Sequence[Trial],
    records: Mapping[str, TrialRecord],
    absent: Mapping[str, Sequence[Missing]],
    predicted: Mapping[str, Predicted],
    running: Collection[str],
) -> Row:
    found = [records.get(trial.trial_id) for trial in trials]
    stopped = [r.curve for r in found if r is not None and r.status == "stopped early" and r.curve]
    values: dict[str, list[float]] = defaultdict(list)
    for record in found:
        if record is not None:
            for name, value in _quantities(record).items():
                values[name].append(value)
    for record, trial in zip(found, trials):
        for name, value in _predictions(record, predicted.get(trial.trial_id)).items():
            values[f"predicted.{name}"].append(value)
    without = ["missing" if t.trial_id in absent else "running" if t.trial_id in running else "pending" for t in trials]
    errors = [_failure(r) for r in found if r is not None and r.error]
    needs = [item for r, trial in zip(found, trials) if r is None for item in absent.get(trial.trial_id, ())]
    errors += [f"missing {item.kind}: {item.what}; {item.remedy}" for item in needs]
    return Row(
        labels=point,
        statuses=tuple(record.status if record else status for record, status in zip(found, without)),
        errors=tuple(dict.fromkeys(errors)),
        trial_ids=tuple(trial.trial_id for trial in trials),
        seeds=tuple(trial.seed for trial in trials),
        notes=tuple(dict.fromkeys(note for r in found if r is not None for note in _memory_notes(r))),
        shared_card=any(_shared_card(r) for r in found if r is not None),
        cells={n: Cell(fmean(v), stdev(v) if len(v) > 1 else None, len(v)) for n, v in values.items()},
        stopped_at=stopped[0][-1].epoch if stopped else None,
    )


def _shared_card(record: TrialRecord) -> bool:
    return record.provenance is not None and record.provenance.gpu_share < 1


def behind_cache(record: TrialRecord) -> bool:
    """Part of the model was not run: what the trial used of memory and time is not what the model needs."""
    return record.feature_cache is not None and record.feature_cache.blocks is not None


def _memory_notes(record: TrialRecord) -> Iterator[str]:
    if behind_cache(record):
        yield (
            f"features of the first {record.feature_cache.blocks} blocks were read from a cache (--feature-cache): "
            "memory and speed are not this model's and are left out"
        )
    if record.resumed_from_epochs and record.memory:
        epochs = ", ".join(map(str, record.resumed_from_epochs))
        trained = "training" in record.memory
        measured = "is the peak of the last part" if trained else "in training is not known: none was left"
        yield f"cut short and gone on after epoch {epochs}: memory {measured}"
    if _shared_card(record):
        yield f"shared its card (--gpus-per-trial {record.provenance.gpu_share:g}): memory and speed are not known"
    for phase, memory in (record.memory or {}).items():
        if memory.breach:
            yield f"memory in {phase} contradicts itself: {memory.breach}"
        if memory.foreign_processes:
            yield f"not alone on the card in {phase}: {', '.join(memory.foreign_processes)}"
        if "processes" in memory.denied:
            yield f"nobody could see who else was on the card in {phase}: NVML says {memory.denied['processes']}"
        if "memory" in memory.denied:
            yield f"the card's memory in use in {phase} is not known: NVML says {memory.denied['memory']}"


def memory_noise_floor(table: Table) -> float | None:
    """Bytes below which two rows' training memory differs no more than repeats do; ``None`` without repeats.

    Two standard errors of a difference, with the spread pooled over all rows that have repeats, and no less than
    what the measure itself resolves.
    """
    cells = [c for row in table.rows if (c := measured_memory(row, table)) and c.deviation is not None]
    if not cells:
        return None
    freedom = sum(c.count - 1 for c in cells)
    pooled = sum(c.deviation**2 * (c.count - 1) for c in cells) / freedom
    fewest = min(c.count for c in cells)
    return max(2 * (2 * pooled / fewest) ** 0.5, RESOLUTION_BYTES[table.memory_measure])


def unresolved(table: Table, floor: float) -> list[tuple[Row, Row]]:
    """Rows that are neighbours in the order of memory and differ by less than ``floor`` bytes."""
    rows = sorted(
        (row for row in table.rows if measured_memory(row, table)), key=lambda row: measured_memory(row, table).mean
    )
    means = [measured_memory(row, table).mean for row in rows]
    return [(a, b) for a, b, x, y in zip(rows, rows[1:], means, means[1:]) if y - x < floor]


def _predictions(record: TrialRecord | None, known: Predicted | None) -> dict[str, int]:
    """Predicted memory by name, from the manifest or else from the record of a trial that failed for want of it."""
    if known is not None:
        return known.model_dump(exclude={"generation"})
    at_failure = record.memory_at_failure if record else None
    bytes_then = at_failure.predicted_allocated_bytes if at_failure else None
    return {} if bytes_then is None else {"allocated_bytes": bytes_then}


def _quantities(record: TrialRecord) -> dict[str, float]:
    """All numbers of a record that were measured, by dotted name; of a trial that is not ok only the parameters.

    What such a trial measured before it ended says nothing of its configuration.
    """
    if record.status != "ok":
        return {f"parameters.{name}": value for name, value in (record.parameters or {}).items()}
    sections: dict[str, Mapping[str, Any] | None] = {
        "test": record.scores,
        **({f"test[{name}]": scores for name, scores in record.test_sets.items()} if len(record.test_sets) > 1 else {}),
        "val": record.val_scores,
        "parameters": record.parameters,
    }
    if not behind_cache(record):
        sections["timing"] = record.timing.model_dump() if record.timing and record.status == "ok" else None
        sections |= {phase: memory.model_dump() for phase, memory in (record.memory or {}).items()}
    return {
        f"{section}.{name}": value
        for section, values in sections.items()
        for name, value in (values or {}).items()
        if isinstance(value, int | float)
    }


def _ambiguous_weights(records: Sequence[TrialRecord]) -> set[str]:
    """Names of checkpoint files that were not the same file in all records."""
    digests: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, digest in (record.provenance.weights if record.provenance else {}).items():
            digests[name].add(digest)
    return {name for name, found in digests.items() if len(found) > 1}


def _environment(record: TrialRecord, ambiguous_weights: set[str]) -> tuple[tuple[str, str], ...] | None:
    """What must agree for two records to be comparable; ``None`` if the trial died before it was known."""
    came_from = record.provenance
    if came_from is None or came_from.dataset_fingerprint is None:
        return None
    threads = came_from.threads
    weights = [f"{n} {digest[:12]}" for n, digest in sorted(came_from.weights.items()) if n in ambiguous_weights]
    cpu = f" ({came_from.host_cpu}, {threads} thread{'s' * (threads > 1)})" if came_from.device == "cpu" else ""
    several = f"{came_from.devices} x " if came_from.devices > 1 else ""  # each with a part of every batch
    return (
        ("device", several + came_from.device + cpu),
        ("platform", came_from.platform),
        ("torch", came_from.versions.get("torch", "unknown")),
        ("cuda", came_from.cuda or "none"),
        ("pysodmetrics", came_from.versions.get("pysodmetrics", "unknown")),
        ("data", f"{came_from.dataset_fingerprint[:12]} ({_split_sizes(came_from.images)})"),
        *([("other weights of one name", ", ".join(weights))] if weights else []),
    )


def _split_sizes(images: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in images.items())


def _compare(
    rows: Sequence[Row], images: Mapping[str, Mapping[str, Sequence]], looks: int
) -> tuple[dict[str, tuple[Comparison, ...]], int | None]:
    """Comparisons of all pairs of rows for each metric that is a mean over images, and how many images there are."""
    names = {i: tuple(images[i]["name"]) for row in rows for i in row.trial_ids if i in images}
    if len(rows) < 2 or not names:
        return {}, None
    ((usual, _),) = Counter(names.values()).most_common(1)  # a table of other images must not hide all others
    known = {i: images[i] for i in names if names[i] == usual}
    found = {}
    for metric in METRICS:
        if not METRICS[metric].mean_of_images or not any(metric in scores for scores in known.values()):
            continue
        scores = [
            {
                seed: np.asarray(known[i][metric], dtype=float)
                for i, seed in zip(row.trial_ids, row.seeds)
                if i in known and metric in known[i]
            }
            for row in rows
        ]
        found[metric] = tuple(compare(scores, looks=looks))
    return found, len(usual)


def _mark_front(rows: Sequence[Row], measure: str | None, metric: str) -> tuple[Row, ...]:
    """Marks the rows of the Pareto front: accuracy by the main metric upwards, training memory downwards."""
    if measure is None:
        return tuple(rows)

    def position(row: Row) -> tuple[float, float] | None:
        accuracy, memory = row.cells.get(f"test.{metric}"), row.cells.get(f"training.{measure}")
        return (accuracy.mean, -memory.mean) if accuracy and memory else None

    places = [position(row) for row in rows]
    front, least = set(), -inf  # from the most accurate on, a place is on it if it needs less memory than all before
    for place in sorted({place for place in places if place is not None}, reverse=True):
        if place[1] > least:
            front.add(place)
            least = place[1]
    return tuple(replace(row, on_front=place in front) for row, place in zip(rows, places))


def _all_have(rows: Sequence[Row], quantity: str) -> bool:
    measured = [row for row in rows if row.count_ok and not row.untrained and not row.shared_card]
    return bool(measured) and all(quantity in row.cells for row in measured)


def _stand_ins(trial: Trial) -> list[str]:
    parts = {"encoder": getattr(trial.config.model, "encoder", None), "data": trial.config.dataset}
    return [f"{noun} {part.name}" for noun, part in parts.items() if part is not None and part.embedded]


def _settings(sweep: Sweep) -> str:
    """What all rows share, as far as it is not an axis."""
    base = sweep.base
    shown = {
        "transform.size": f"{in_words(base.transform.size)} px",
        "train.batch_size": f"batch {base.train.batch_size}",
        "train.epochs": f"{base.train.epochs} epochs",
        "train.lr": f"lr {base.train.lr:g}",
        "train.loss": base.train.loss,
    }
    varied = tuple(path for axis in sweep.axes for path in axis.paths())
    return ", ".join(text for path, text in shown.items() if not path.startswith(varied))
