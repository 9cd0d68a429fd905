"""A comparison of two result sets, old and new: which quantities became worse by more than the measured noise.

Rows are matched by their configuration. **Accuracy**: the main metric and MAE, paired by seed and image
(``bench.leaderboard.inference``); with one common seed over images only. **Memory**: against the deviation over seeds,
pooled over the rows of both sets, and at least the smallest step of the measure. **Speed**: likewise, but only if the
trials had the machine to themselves. All tests together give a false alarm in at most 5 % of comparisons of equal code
(Holm). No percentage is fixed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from bench.config.expand import row_key
from bench.leaderboard.inference.paired import compare_paired
from bench.leaderboard.results import Results
from bench.leaderboard.statistics import LEVEL, holm, t_test
from bench.records.memory import GIB, MEASURES
from bench.records.record import Provenance, TrialRecord
from bench.scoring.metrics import METRICS, main_metric

Verdict = Literal["worse", "better", "not resolved", "equal", "missing", "new", "not compared"]


@dataclass(frozen=True)
class Finding:
    """The comparison of one quantity of one configuration."""

    row: str
    quantity: str
    old: str
    new: str
    verdict: Verdict
    note: str = ""  # 95 % interval of the difference, equivalence, and how both were found
    better: str = ""  # "higher" or "lower"
    difference: float | None = None
    p: float | None = None  # of this test alone
    p_holm: float | None = None  # corrected for all tests


@dataclass(frozen=True)
class Verdicts:
    """All findings, and warnings about quantities that could not be compared."""

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    @property
    def worse(self) -> list[Finding]:
        """The findings that something became worse."""
        return [finding for finding in self.findings if finding.verdict == "worse"]

    @property
    def compared(self) -> bool:
        """Whether any quantity could be compared."""
        return any(finding.verdict not in ("missing", "new", "not compared") for finding in self.findings)


@dataclass(frozen=True)
class _Row:
    """The trials of one configuration in one result set, by seed."""

    label: str
    records: dict[int, TrialRecord]

    def ok(self) -> dict[int, TrialRecord]:
        """Returns the records with status ok, by seed."""
        return {seed: record for seed, record in self.records.items() if record.status == "ok"}

    def provenance(self) -> Provenance | None:
        """Returns the provenance of the first record; of one that is ok, if there is one, since it names the data."""
        for record in (*self.ok().values(), *self.records.values()):
            if record.provenance:
                return record.provenance
        return None


def against(new: Results, old: Results) -> Verdicts:
    """Compares ``new`` with ``old``. The same input gives the same output."""
    rows_old, rows_new = _rows(old), _rows(new)
    findings: list[Finding] = []
    warnings: list[tuple[str, str]] = []  # row and reason
    for key in {**rows_old, **rows_new}:
        before, after = rows_old.get(key), rows_new.get(key)
        if before is None or after is None or not after.records or not before.records:
            findings += _one_sided(before, after)
            continue
        findings += _outcomes(before, after)
        problem = _incomparable(before, after)
        if problem:
            warnings.append((after.label, f"accuracy is NOT compared: {problem}"))
        elif not before.ok().keys() & after.ok().keys():
            warnings.append((after.label, "accuracy is NOT compared: no seed is ok in both"))
        else:
            findings += _accuracy(before, after, old, new)
        if changed := _other_versions(before, after):
            warnings.append((after.label, f"compared, although versions differ: {changed}"))
    for quantity in _quantities():
        findings += _measured(rows_old, rows_new, quantity, warnings)
    return Verdicts(tuple(_corrected(findings)), tuple(_grouped(warnings)))


def _rows(results: Results) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for trial in results.trials:
        row = rows.setdefault(row_key(trial), _Row(", ".join(trial.point), {}))
        if trial.trial_id in results.records:
            row.records[trial.seed] = results.records[trial.trial_id]
    return rows


def _one_sided(before: _Row | None, after: _Row | None) -> Iterator[Finding]:
    if before is not None and before.records:
        reason = "the configuration" if after is None else "no trial has run"
        yield Finding(before.label, "row", _statuses(before), "–", "missing", f"not in the new results: {reason}")
    elif after is not None and after.records:
        yield Finding(after.label, "row", "–", _statuses(after), "new")


def _statuses(row: _Row) -> str:
    found = [record.status for record in row.records.values()]
    return ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(found))


def _outcomes(before: _Row, after: _Row) -> Iterator[Finding]:
    """Yields a finding for each seed whose status changed to or from ok, and one for the seeds that have not run."""
    for seed in sorted(before.records.keys() & after.records.keys()):
        old, new = before.records[seed].status, after.records[seed].status
        if (old == "ok") != (new == "ok"):
            verdict: Verdict = "better" if new == "ok" else "worse"
            if "stopped early" in (old, new):  # a decision of the search, not a failure
                verdict = "not compared"
            yield Finding(after.label, f"outcome, seed {seed}", old, new, verdict)
    if gone := sorted(before.records.keys() - after.records.keys()):
        yield Finding(after.label, f"seeds {', '.join(map(str, gone))}", "run", "–", "missing", "have not run")


def _incomparable(before: _Row, after: _Row) -> str:
    """Returns why the scores of two rows must not be compared; empty if they may."""
    old, new = before.provenance(), after.provenance()
    if old is None or new is None:
        return "a record does not say where it is from"
    if old.dataset_fingerprint != new.dataset_fingerprint:
        return "the data are other data (fingerprint)"
    if old.versions.get("pysodmetrics") != new.versions.get("pysodmetrics"):
        return "the scorers are of different versions (pysodmetrics)"
    changed = [name for name, digest in old.weights.items() if new.weights.get(name, digest) != digest]
    return f"the weights are other files: {', '.join(changed)}" if changed else ""


def _accuracy(before: _Row, after: _Row, old: Results, new: Results) -> Iterator[Finding]:
    """Compares the main metric and MAE, paired by seed and image."""
    seeds = sorted(before.ok().keys() & after.ok().keys())
    main, margin = main_metric(m for seed in seeds for m in after.records[seed].scores or {}), new.sweep.ask.margin
    images_old, images_new = _images(before, old), _images(after, new)
    for metric in dict.fromkeys(name for name in (main, "mae") if name):
        label, better = METRICS[metric].label, METRICS[metric].better
        paired = compare_paired(images_new, images_old, metric)
        if paired is None:
            if any(metric in (after.records[seed].scores or {}) for seed in seeds):
                reason = "no scores of the same images, two or more, on both sides"
                yield Finding(after.label, label, "", "", "not compared", reason)
            continue
        found, texts = paired.comparison, [f"{mean:.4f}" for mean in (paired.old, paired.new)]
        note = f"{found.seeds} seeds, paired"
        if found.seeds == 1:
            note = "one seed: over images only; what another seed would change is unknown"
        close = f", within {margin:g}" if metric == main and found.within(margin) else ""
        note = f"{found.low:+.4f} to {found.high:+.4f}{close}; {note}"
        yield Finding(after.label, label, *texts, "not resolved", note, better, found.difference, found.p)


def _images(row: _Row, results: Results) -> dict[int, Mapping[str, Sequence]]:
    """Returns the scores of the images of a row's trials, by seed."""
    scores = {seed: results.images.get(record.trial_id) for seed, record in row.ok().items()}
    return {seed: columns for seed, columns in scores.items() if columns}


@dataclass(frozen=True)
class _Quantity:
    """A measure of memory or a speed."""

    name: str
    title: str
    step: float  # differences up to it are none
    unit: float
    digits: int
    is_speed: bool


def _quantities() -> Iterator[_Quantity]:
    for measure in MEASURES:
        if measure.has_column:
            yield _Quantity(measure.name, f"{measure.short} GiB", measure.step_bytes, GIB, 4, is_speed=False)
    for phase in ("train", "inference"):
        yield _Quantity(f"{phase}_images_per_second", f"{phase} img/s", 0.0, 1.0, 1, is_speed=True)


def _measured(
    old: dict[str, _Row], new: dict[str, _Row], quantity: _Quantity, warnings: list[tuple[str, str]]
) -> list[Finding]:
    """Compares one quantity over all rows that both sets measured on equal machines; adds to ``warnings``."""
    matched: list[tuple[_Row, list[float], list[float]]] = []
    for key in (key for key in new if key in old):
        before, after = _values(old[key], quantity), _values(new[key], quantity)
        if not before or not after:
            continue
        if problem := _other_machine(old[key], new[key], quantity.is_speed):
            warnings.append(
                (new[key].label, f"{'speed' if quantity.is_speed else 'memory'} is NOT compared: {problem}")
            )
            continue
        matched.append((new[key], before, after))
    repeated = [side for _, *sides in matched for side in sides if len(side) > 1]
    freedom = sum(len(side) - 1 for side in repeated)
    pooled = _pooled(repeated, quantity.is_speed) if freedom else None
    better, found = "higher" if quantity.is_speed else "lower", []
    for row, before, after in matched:
        difference = fmean(after) - fmean(before)
        texts = [f"{fmean(side) / quantity.unit:.{quantity.digits}f}" for side in (before, after)]
        verdict: Verdict = "equal" if difference == 0 else "not resolved"
        note, p = "one seed: the noise is unknown", None
        if pooled is not None:
            scale = pooled * fmean([*before, *after]) if quantity.is_speed else pooled
            p, half = t_test(difference, scale, freedom, 1 / len(before) + 1 / len(after))
            low, high = ((difference + side) / quantity.unit for side in (-half, half))
            note = f"{low:+.{quantity.digits}f} to {high:+.{quantity.digits}f}; spread over seeds of {len(repeated)} groups"
            p = 1.0 if abs(difference) <= quantity.step else p
        found.append(Finding(row.label, quantity.title, *texts, verdict, note, better, difference, p))
    return found


def _values(row: _Row, quantity: _Quantity) -> list[float]:
    """Returns the values of the seeds that were measured."""
    found = []
    for _, record in sorted(row.ok().items()):
        source = record.timing if quantity.is_speed else (record.memory or {}).get("training")
        value = getattr(source, quantity.name) if source else None
        if value is not None:
            found.append(float(value))
    return found


def _pooled(groups: Sequence[Sequence[float]], relative: bool) -> float:
    """Returns the pooled deviation within groups; ``relative``: to their means, since that of a speed grows with it."""
    squares = [(stdev(g) / (fmean(g) if relative else 1)) ** 2 * (len(g) - 1) for g in groups]
    return (sum(squares) / sum(len(g) - 1 for g in groups)) ** 0.5


def _other_machine(before: _Row, after: _Row, is_speed: bool) -> str:
    """Returns why memory or speed of two rows must not be compared; empty if they may."""
    a, b = before.provenance(), after.provenance()
    if a is None or b is None:
        return "a record does not say where it is from"
    names = [(s.device, s.platform.split(",")[0], s.host_cpu if s.device == "cpu" or is_speed else "") for s in (a, b)]
    if names[0] != names[1]:
        return f"{' '.join(filter(None, names[0]))} against {' '.join(filter(None, names[1]))}"
    if a.threads != b.threads:
        return f"{a.threads} threads against {b.threads}"
    if is_speed and (a.trials_at_once, b.trials_at_once) != (1, 1):
        return f"trials shared the machine ({a.trials_at_once} and {b.trials_at_once} at once)"
    return ""


def _corrected(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Gives the tested findings their verdicts, by p values that are corrected for all tests."""
    corrected = iter(holm([finding.p for finding in findings if finding.p is not None]))
    for finding in findings:
        if finding.p is None:
            yield finding
            continue
        p = next(corrected)
        verdict: Verdict = "equal" if finding.difference == 0 else "not resolved"
        if p < 1 - LEVEL and finding.difference:
            verdict = "better" if (finding.difference > 0) == (finding.better == "higher") else "worse"
        yield replace(finding, verdict=verdict, p_holm=p)


def _other_versions(before: _Row, after: _Row) -> str:
    a, b = before.provenance(), after.provenance()
    if a is None or b is None:
        return ""
    old = {"torch": a.versions.get("torch"), "cuda": a.cuda, "driver": a.driver}
    new = {"torch": b.versions.get("torch"), "cuda": b.cuda, "driver": b.driver}
    return ", ".join(f"{name} {old[name]} and {new[name]}" for name in old if old[name] != new[name])


def _grouped(warnings: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yields each reason once, with its rows."""
    rows: dict[str, list[str]] = defaultdict(list)
    for row, reason in warnings:
        rows[reason].append(row)
    for reason, names in rows.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"{reason} (rows: {'; '.join(names[:4])}{more})"
