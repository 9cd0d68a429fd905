"""Two result sets, old and new: what became worse by more than the measured noise. A gate for changes of code.

Rows are matched by their configuration. **Accuracy**: the main metric and MAE, paired by seed and image
(``bench.leaderboard.statistics``); with one seed in common over images only. **Memory**: the deviation over seeds, pooled over the
rows of both sets, and no less than the measure's own step. **Speed**: likewise, and only where trials had the machine
to themselves. All tests together err in at most 5 % of comparisons of equal code (Holm). No percentage is fixed.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from bench.config.expand import Trial
from bench.leaderboard.results import Results
from bench.leaderboard.statistics import LEVEL, compare, compare_on_images, holm, pooled_p
from bench.records.memory import GIB, MEASURES
from bench.records.record import TrialRecord
from bench.scoring.metrics import METRICS, main_metric

Verdict = Literal["worse", "better", "not resolved", "equal", "missing", "new", "not compared"]
SPEEDS = ("train_images_per_second", "inference_images_per_second")


@dataclass(frozen=True)
class Finding:
    """One quantity of one configuration in both sets. ``p`` is of this alone, ``p_holm`` among all tests."""

    row: str
    quantity: str
    old: str
    new: str
    verdict: Verdict
    note: str = ""
    better: str = ""  # "higher" or "lower"
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """All findings, and what could not be compared at all."""

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    @property
    def worse(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == "worse"]

    @property
    def compared(self) -> bool:
        """Whether anything could be held against anything."""
        return any(f.verdict not in ("missing", "new", "not compared") for f in self.findings)


@dataclass(frozen=True)
class _Row:
    """The trials of one configuration in one set, by seed."""

    label: str
    trials: dict[int, Trial]
    records: dict[int, TrialRecord]

    def ok(self) -> dict[int, TrialRecord]:
        return {seed: record for seed, record in self.records.items() if record.status == "ok"}


def against(new: Results, old: Results) -> Verdicts:
    """Holds ``new`` against ``old``. The same input gives the same output."""
    rows_old, rows_new = _rows(old), _rows(new)
    findings: list[Finding] = []
    warnings: list[tuple[str, str]] = []  # row and reason
    for key in {**rows_old, **rows_new}:
        was, now = rows_old.get(key), rows_new.get(key)
        if was is None or now is None or not now.records or not was.records:
            findings += _one_sided(was, now)
            continue
        fails = list(_outcomes(was, now))
        findings += fails
        problem = _incomparable(was, now)
        if problem:
            warnings.append((now.label, f"accuracy is NOT compared: {problem}"))
        elif not was.ok().keys() & now.ok().keys():
            warnings.append((now.label, "accuracy is NOT compared: no seed is ok in both"))
        else:
            findings += _accuracy(now, was, new, old)
        if changed := _other_versions(was, now):
            warnings.append((now.label, f"compared, although versions differ: {changed}"))
    for title, quantity, step, better in _measures():
        findings += _measured(rows_new, rows_old, title, quantity, step, better, warnings)
    return Verdicts(tuple(_corrected(findings)), tuple(_grouped(warnings)))


def _rows(results: Results) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for trial in results.trials:
        key = json.dumps(trial.config.model_dump(mode="json", exclude={"seed"}), sort_keys=True)
        row = rows.setdefault(key, _Row(", ".join(trial.point), {}, {}))
        row.trials[trial.seed] = trial
        if trial.trial_id in results.records:
            row.records[trial.seed] = results.records[trial.trial_id]
    return rows


def _one_sided(was: _Row | None, now: _Row | None) -> Iterator[Finding]:
    if was is not None and was.records:
        what = "the configuration" if now is None else "no trial has run"
        yield Finding(was.label, "row", _statuses(was), "–", "missing", f"not in the new results: {what}")
    elif now is not None and now.records:
        yield Finding(now.label, "row", "–", _statuses(now), "new")


def _statuses(row: _Row) -> str:
    found = [record.status for record in row.records.values()]
    return ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(found))


def _outcomes(was: _Row, now: _Row) -> Iterator[Finding]:
    """Seeds that were ok and no longer are, or the reverse; seeds that have not run are said."""
    for seed in sorted(was.records.keys() & now.records.keys()):
        before, after = was.records[seed].status, now.records[seed].status
        if (before == "ok") != (after == "ok"):
            verdict: Verdict = "better" if after == "ok" else "worse"
            if "stopped early" in (before, after):  # the search's choice, not a failure
                verdict = "not compared"
            yield Finding(now.label, f"outcome, seed {seed}", before, after, verdict)
    if gone := sorted(was.records.keys() - now.records.keys()):
        yield Finding(now.label, f"seeds {', '.join(map(str, gone))}", "run", "–", "missing", "have not run")


def _incomparable(was: _Row, now: _Row) -> str:
    """Why scores of two rows are not of the same thing; empty if they are."""
    a, b = _source(was), _source(now)
    if a is None or b is None:
        return "a record does not say where it is from"
    if a.dataset_fingerprint != b.dataset_fingerprint:
        return "the data are other data (fingerprint)"
    if a.versions.get("pysodmetrics") != b.versions.get("pysodmetrics"):
        return "the scorers are of different versions (pysodmetrics)"
    changed = [name for name, digest in a.weights.items() if b.weights.get(name, digest) != digest]
    return f"the weights are other files: {', '.join(changed)}" if changed else ""


def _source(row: _Row) -> Any:
    """Provenance of the row's first record, rather of one that is ok: only that has seen the data for sure."""
    records = [*row.ok().values(), *row.records.values()]
    return next((record.provenance for record in records if record.provenance), None)


def _accuracy(now: _Row, was: _Row, new: Results, old: Results) -> Iterator[Finding]:
    """Paired by seed and image, on the main metric and MAE."""
    seeds = sorted(was.ok().keys() & now.ok().keys())
    pairs = {
        s: (new.images.get(now.records[s].trial_id), old.images.get(was.records[s].trial_id)) for s in seeds
    }  # fmt: skip
    known = {s: pair for s, pair in pairs.items() if None not in pair and pair[0]["name"] == pair[1]["name"]}
    main = main_metric(m for s in seeds for m in now.records[s].scores or {})
    for metric in dict.fromkeys(m for m in (main, "mae") if m):
        of_both = {s: (n[metric], o[metric]) for s, (n, o) in known.items() if metric in n and metric in o}
        label, better = METRICS[metric].label, METRICS[metric].better
        if not of_both:
            if seeds and any(metric in (now.records[s].scores or {}) for s in seeds):
                yield Finding(now.label, label, "", "", "not compared", "no scores of the same images on both sides")
            continue
        arrays = {s: tuple(np.asarray(v, dtype=float) for v in pair) for s, pair in of_both.items()}
        first = [{s: pair[0] for s, pair in arrays.items()}, {s: pair[1] for s, pair in arrays.items()}]
        if len(arrays) > 1:
            (found,) = compare(first)
            note = f"{len(arrays)} seeds, paired"
        else:
            found = compare_on_images(*next(iter(arrays.values())))
            note = "one seed: over images only; what another seed would change is unknown"
        old_mean, new_mean = (fmean(float(np.mean(pair[i])) for pair in arrays.values()) for i in (1, 0))
        numbers = (f"{old_mean:.4f}", f"{new_mean:.4f}")
        yield Finding(now.label, label, *numbers, "not resolved", note, better, found.difference, found.p)


def _measures() -> Iterator[tuple[str, str, float, str]]:
    for measure in MEASURES:
        if measure.has_column:
            yield measure.short, measure.name, measure.step_bytes, "lower"
    for speed in SPEEDS:
        yield speed.removesuffix("_images_per_second") + " img/s", speed, 0.0, "higher"


def _measured(
    new: dict[str, _Row],
    old: dict[str, _Row],
    title: str,
    quantity: str,
    step: float,
    better: str,
    warnings: list[tuple[str, str]],
) -> list[Finding]:
    """One measure of memory or speed over all rows that both sets have, on like machines."""
    is_speed = quantity in SPEEDS
    kind = "speed" if is_speed else "memory"
    unit, digits = (1.0, 1) if is_speed else (GIB, 4)
    matched: list[tuple[_Row, list[float], list[float]]] = []
    spreads: list[list[float]] = []
    for key in (key for key in new if key in old):
        values = [_values(side[key], quantity) for side in (old, new)]
        if not all(values):
            continue
        if problem := _other_machine(old[key], new[key], is_speed):
            warnings.append((new[key].label, f"{kind} is NOT compared: {problem}"))
            continue
        matched.append((new[key], *values))
        spreads += [side for side in values if len(side) > 1]
    freedom = sum(len(side) - 1 for side in spreads)
    pooled = _pooled(spreads, is_speed) if freedom else None  # faster rows scatter more, in images per second
    found = []
    for row, before, after in matched:
        difference = fmean(after) - fmean(before)
        texts = (f"{fmean(before) / unit:.{digits}f}", f"{fmean(after) / unit:.{digits}f}")
        name = title if is_speed else f"{title} GiB"
        if pooled is None:
            verdict: Verdict = "equal" if difference == 0 else "not resolved"
            found.append(
                Finding(row.label, name, *texts, verdict, "one seed: the noise is unknown", better, difference)
            )
            continue
        scale = pooled * (fmean([*before, *after]) if is_speed else 1)
        p = 1.0 if abs(difference) <= step else pooled_p(difference, scale, freedom, (len(before), len(after)))
        note = f"spread over seeds, pooled over {len(spreads)} groups"
        found.append(Finding(row.label, name, *texts, "not resolved", note, better, difference, p))
    return found


def _values(row: _Row, quantity: str) -> list[float]:
    found = []
    for _, record in sorted(row.ok().items()):
        source = record.timing if quantity in SPEEDS else (record.memory or {}).get("training")
        value = getattr(source, quantity) if source else None
        if value is not None:
            found.append(float(value))
    return found


def _pooled(groups: Sequence[Sequence[float]], relative: bool) -> float:
    """Pooled standard deviation within groups, relative to each group's mean or in the values' own unit."""
    squares = [(stdev(g) / (fmean(g) if relative else 1)) ** 2 * (len(g) - 1) for g in groups]
    return (sum(squares) / sum(len(g) - 1 for g in groups)) ** 0.5


def _other_machine(was: _Row, now: _Row, is_speed: bool) -> str:
    a, b = _source(was), _source(now)
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
    """Verdicts by p-values corrected for all that was tested."""
    tested = [finding for finding in findings if finding.p is not None]
    corrected = iter(holm([finding.p for finding in tested])) if tested else iter(())
    for finding in findings:
        if finding.p is None:
            yield finding
            continue
        p = next(corrected)
        verdict: Verdict = "equal" if finding.difference == 0 else "not resolved"
        if p < 1 - LEVEL and finding.difference:
            verdict = "better" if (finding.difference > 0) == (finding.better == "higher") else "worse"
        yield replace(finding, verdict=verdict, p_holm=p)


def _other_versions(was: _Row, now: _Row) -> str:
    a, b = _source(was), _source(now)
    if a is None or b is None:
        return ""
    pairs = [
        ("torch", a.versions.get("torch"), b.versions.get("torch")),
        ("cuda", a.cuda, b.cuda),
        ("driver", a.driver, b.driver),
    ]
    return ", ".join(f"{name} {x} and {y}" for name, x, y in pairs if x != y)


def _grouped(warnings: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Each reason once, with the rows that it holds for."""
    rows: dict[str, list[str]] = defaultdict(list)
    for row, reason in warnings:
        rows[reason].append(row)
    for reason, names in rows.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"{reason} (rows: {'; '.join(names[:4])}{more})"
