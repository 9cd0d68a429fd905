"""Everything that the folder of a sweep holds, and the leaderboard that is made from it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bench.config.ask import with_whole_size
from bench.config.errors import ConfigError
from bench.config.expand import Candidates, Trial, row_key
from bench.config.sweep import Sweep
from bench.leaderboard.front import mark_front
from bench.leaderboard.inference.answer import Answer, answer, nothing_to_compare
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.published_rows import beside
from bench.leaderboard.ranking import Compared, ImageScores, compare_rows, mark_underfit, score_table, usual_images
from bench.leaderboard.rows import Environment, TrialState, environments, row_of, with_overlap
from bench.leaderboard.statistics import Comparison
from bench.leaderboard.tuning.choice import by_row, in_rows
from bench.leaderboard.tuning.facts import tuned_of, tuning_of
from bench.records import schema, sweep_json
from bench.records.external_scores import ExternalRecord, load_external
from bench.records.memory import PEAKS
from bench.records.record import TrialRecord
from bench.records.store import load_all
from bench.records.sweep_json import Predicted
from bench.records.tables import read_images, read_series
from bench.scoring.metrics import MAIN_METRICS, METRICS, main_metric
from bench.scoring.sample_predictions import read_samples
from bench.system.wording import first_lines
from models.core.registry import Missing
from models.core.size import in_words

NEWER = Missing("version", "", "its record was written by a newer version of the suite", "update the suite")
"""The reason why the record of a trial is not shown."""


@dataclass(frozen=True)
class Results:
    """Records of a sweep and the folders of their files. Tables, figures and the page are all made from this."""

    sweep: Sweep
    trials: Sequence[Trial]  # in the sweep's order; also those without a record
    records: Mapping[str, TrialRecord] = field(default_factory=dict)  # by trial id; others than the trials' are ignored
    images: ImageScores = field(default_factory=dict)  # on the first test set; without them no differences are tested
    folders: Mapping[str, Path] = field(default_factory=dict)  # by trial id: where the record's other files are
    absent: Mapping[str, Sequence[Missing]] = field(default_factory=dict)  # by trial id: unmet requirements
    external: Sequence[ExternalRecord] = ()
    predicted: Mapping[str, Predicted] = field(default_factory=dict)  # by trial id
    running: frozenset[str] = frozenset()  # ids of trials that run at this moment
    remarks: Sequence[str] = ()  # what was merged, left out or selected
    tuned: Sequence[Candidates] = ()  # of each row whose values were chosen; the trials may be in no row

    def board(self) -> Leaderboard:
        """Returns the leaderboard. It is made once, since its comparisons take seconds for hundreds of trials."""
        return self._board

    @cached_property
    def _board(self) -> Leaderboard:
        return summarise(self)


# --- from a folder to results -----------------------------------------------------------------------------------------


def load(folder: Path) -> tuple[Results, list[str]]:
    """Returns the results in the folder of a sweep, and lines for everything in it that cannot be used, at most 21.

    The same content gives the same results, wherever the folder is. Raises ``ConfigError`` if the folder or its
    ``sweep.json`` is missing or cannot be read, or if no trial can be shown.
    """
    if not folder.is_dir():
        siblings = folder.parent.glob("*") if folder.parent.is_dir() else ()
        near = sorted(path.name for path in siblings if path.is_dir())
        known = f" Folders beside it: {', '.join(near[:8])}" if near else ""
        raise ConfigError(f"{folder}: no such folder.{known}")
    manifest, problem = sweep_json.load(folder)
    if manifest is None:
        raise ConfigError(problem or _without_manifest(folder))
    records, notes = load_all(folder)
    sweep, trials, unread = sweep_json.understand(manifest, records)
    tuned = sweep_json.candidates_of(manifest, records)
    ids = {trial.trial_id for trial in (*trials, *(trial for group in tuned for trial in group.trials))}
    if other := len(records.keys() - ids - manifest.trial_ids):
        belong = "1 record belongs" if other == 1 else f"{other} records belong"
        notes.append(f"{folder}: {belong} to other settings of the sweep, left out")
    kept = {trial_id: record for trial_id, record in records.items() if trial_id in ids}
    absent = _absent(folder, manifest, ids - kept.keys())
    trials = in_rows(trials, tuned, kept, absent.keys())
    external, unreadable = load_external(folder)
    shown = [trial.trial_id for trial in trials if trial.trial_id in kept]
    images, unusable = read_images(folder, shown)
    for trial_id in shown:
        unusable += [line for _, line in (read_series(folder, trial_id), read_samples(folder, trial_id)) if line]
    results = Results(
        sweep=sweep,
        trials=trials,
        records=kept,
        images=images,
        folders={trial_id: folder for trial_id in kept},
        absent=absent,
        external=external,
        predicted=dict(manifest.predicted),
        remarks=list(dict.fromkeys([*manifest.remarks, *unread])),
        tuned=tuned,
    )
    return results, first_lines([*notes, *(f"{line}; left out" for line in [*unusable, *unreadable])])


def _without_manifest(folder: Path) -> str:
    count = sum(path.suffix == ".json" for path in folder.iterdir())
    if not count:
        return f"{folder}: holds no records and no {sweep_json.MANIFEST}. Give the results folder of a sweep"
    held = f"{count} record" if count == 1 else f"{count} records"
    return (
        f"{folder}: holds {held}, but no {sweep_json.MANIFEST}, which says what the sweep varies. Run the sweep again "
        "with the same command: it keeps the records and writes the file"
    )


def _absent(folder: Path, manifest: sweep_json.Manifest, ids: set[str]) -> dict[str, list[Missing]]:
    """Returns the unmet requirements of trials without a record that can be read."""
    absent = {}
    for trial_id, items in manifest.absent.items():
        if trial_id in ids:
            absent[trial_id] = [Missing(**item.model_dump()) for item in items]
    for trial_id in sorted(ids):
        if schema.newer(folder / f"{trial_id}.json"):
            absent[trial_id] = [NEWER]
    return absent


# --- from results to a leaderboard ------------------------------------------------------------------------------------


def summarise(results: Results) -> Leaderboard:
    """Returns the leaderboard of all trials of the sweep in its order; records of other settings are left out."""
    sweep, trials = results.sweep, results.trials
    images = {}
    for trial_id, scores in results.images.items():
        if trial_id in results.records and results.records[trial_id].status == "ok":
            images[trial_id] = scores
    tables = []
    tuned = by_row(results.tuned, results.records, results.absent.keys())
    for environment, points in _by_environment(results):
        rows = []
        for point, members in points.items():
            row = row_of(point, [_state(results, trial) for trial in members])
            rows.append(_with_tuned(results, row, tuned.get(row_key(members[0]))) if tuned else row)
        tables.append(_table(results, environment, rows, images))
    embedded = tuple(dict.fromkeys(part for trial in trials for part in _stand_ins(trial)))
    return Leaderboard(
        name=sweep.name,
        question=sweep.question,
        profile=sweep.profile,
        axes=tuple(axis.name for axis in sweep.axes),
        seeds=sweep.seeds,
        embedded=embedded,
        settings=_settings(sweep),
        splits=" or ".join(dict.fromkeys(trial.config.dataset.split_in_words() for trial in trials)),
        tables=tuple(tables),
        beside=beside(trials, results.records, images, results.external, bool(embedded)),
        search=sweep.search,
        remarks=tuple(results.remarks),
        tuning=tuning_of(results.tuned, results.records, results.absent.keys(), {trial.trial_id for trial in trials}),
    )


def _with_tuned(results: Results, row: Row, candidates: Candidates | None) -> Row:
    """Adds the tuned values of a row, with their caveats; a row without trained weights has none."""
    if candidates is None or row.untrained:
        return row
    found = tuned_of(candidates, results.records, results.absent.keys())
    return replace(row, tuned=found, notes=(*row.notes, *found.notes), errors=(*row.errors, *found.errors))


def _by_environment(results: Results) -> list[tuple[Environment, dict[tuple[str, ...], list[Trial]]]]:
    """Groups the trials by environment and point, the environment with the most points first."""
    records = [results.records[trial.trial_id] for trial in results.trials if trial.trial_id in results.records]
    known = environments(records)
    usual: Environment = Counter(known.values()).most_common(1)[0][0] if known else ()
    groups: dict[Environment, dict[tuple[str, ...], list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in results.trials:  # a trial whose environment is unknown joins most of the others
        groups[known.get(trial.trial_id, usual)][trial.point].append(trial)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _state(results: Results, trial: Trial) -> TrialState:
    trial_id = trial.trial_id
    return TrialState(
        trial,
        results.records.get(trial_id),
        results.predicted.get(trial_id),
        results.absent.get(trial_id, ()),
        trial_id in results.running,
    )


def _table(results: Results, environment: Environment, rows: Sequence[Row], images: ImageScores) -> Table:
    sources = []
    for trial_id in sorted(trial_id for row in rows for trial_id in row.trial_ids):
        if trial_id in results.records and results.records[trial_id].provenance:
            sources.append(results.records[trial_id].provenance)
    measure = next((name for name in PEAKS if _all_have(rows, f"training.{name}")), None)
    scored = [metric for metric in METRICS if any(f"test.{metric}" in row.cells for row in rows)]
    metric = main_metric(scored) or MAIN_METRICS[0]
    looks = results.sweep.search.looks(len(results.sweep.seeds))
    compared = usual_images(rows, images, redrawn=_is_redrawn(results.trials))
    comparisons = compare_rows(rows, compared, looks)
    rows = with_overlap(rows, compared.overlap)
    weights = {f"{name} {digest[:12]}" for source in sources for name, digest in source.weights.items()}
    return Table(
        environment=dict(environment),
        commits=tuple(sorted({(s.commit or "unknown")[:10] + ("-dirty" if s.dirty else "") for s in sources})),
        trials_at_once=tuple(sorted({source.trials_at_once for source in sources})),
        weights=tuple(sorted(weights)),
        rows=mark_underfit(mark_front(rows, measure, metric), metric, results.sweep.ask.margin),
        memory_measure=measure,
        main_metric=metric,
        comparisons=comparisons,
        images=compared.count,
        overlap=compared.overlap,
        looks=looks,
        answer=_answer(results, rows, compared, comparisons.get(metric), metric, looks),
    )


def _answer(
    results: Results,
    rows: Sequence[Row],
    compared: Compared,
    pairs: Sequence[Comparison] | None,
    metric: str,
    looks: int,
) -> Answer | None:
    """Answers the planned question of the sweep on the main metric; ``None`` without scores.

    pairs: comparisons of all pairs of rows on the main metric, if it is a mean over images.
    """
    sweep, label, better = results.sweep, METRICS[metric].label, METRICS[metric].better
    if len(rows) == 1 and rows[0].count_ok:
        return nothing_to_compare(sweep.ask, label)
    scores = score_table(rows, compared, metric)
    if scores is None:
        return None
    axes = [with_whole_size(axis, _training_images(results)) for axis in sweep.axes]
    labels = [row.labels for row in rows]
    return answer(sweep.ask, axes, labels, scores, label, better, looks, compared.overlap, pairs)


def _is_redrawn(trials: Sequence[Trial]) -> bool:
    return any(trial.config.dataset.split == "by_seed" for trial in trials)


def _training_images(results: Results) -> int | None:
    """Returns the number of training images where all are used; ``None`` if no record says it."""
    for trial in results.trials:
        record = results.records.get(trial.trial_id)
        if trial.config.dataset.train_images is None and record is not None and record.provenance is not None:
            if "train" in record.provenance.images:
                return record.provenance.images["train"]
    return None


def _all_have(rows: Sequence[Row], quantity: str) -> bool:
    """Returns whether all rows whose memory was measured have a quantity, and whether there is such a row."""
    measured = [row for row in rows if row.count_ok and not row.untrained and not row.shared_card]
    return bool(measured) and all(quantity in row.cells for row in measured)


def _stand_ins(trial: Trial) -> list[str]:
    parts = {"encoder": getattr(trial.config.model, "encoder", None), "data": trial.config.dataset}
    return [f"{noun} {part.name}" for noun, part in parts.items() if part is not None and part.embedded]


def _settings(sweep: Sweep) -> str:
    """Returns the main settings that are not varied by an axis, in words."""
    base = sweep.base
    shown = {
        "transform.size": f"{in_words(base.transform.size)} px",
        "train.batch_size": f"batch {base.train.batch_size}",
        "train.epochs": f"{base.train.epochs} epoch{'' if base.train.epochs == 1 else 's'}",
        "train.lr": f"lr {base.train.lr:g}",
        "train.loss": base.train.loss,
    }
    varied = tuple(path for axis in (*sweep.axes, *sweep.tune) for path in axis.paths())
    return ", ".join(text for path, text in shown.items() if not path.startswith(varied))
