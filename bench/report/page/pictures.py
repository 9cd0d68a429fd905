"""Sample predictions of all trials, as many as the page has room for; each picture is stored once."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.leaderboard.results import Results
from bench.report.page.trials import number
from bench.scoring.sample_predictions import Sample, load_samples

ORDER = ("shared", "worst", "best", "median")
"""Order in which samples are added: the shared ones first, because only they can be compared between trials."""


def samples(results: Results, room: int) -> dict[str, Any]:
    """Returns samples by trial, their pictures, each once, and the number of samples that exceeded ``room`` bytes."""
    found = {}
    for trial in results.trials:
        if trial.trial_id in results.folders:
            found[trial.trial_id] = load_samples(results.folders[trial.trial_id], trial.trial_id)
    pictures: dict[bytes, int] = {}
    shown: dict[str, list[dict[str, Any]]] = {trial_id: [] for trial_id, samples in found.items() if samples}
    left_out = 0
    for trial_id, sample in _by_importance(found):
        parts = (sample.image, sample.mask, sample.prediction)
        new = {part for part in parts if part not in pictures}
        cost = sum(len(part) * 4 // 3 + 8 for part in new) + 6 * len(sample.name) + 150
        if cost > room:
            left_out += 1
            continue
        room -= cost
        numbers = [pictures.setdefault(part, len(pictures)) for part in parts]
        shown[trial_id].append(
            {"name": sample.name, "why": list(sample.why), "score": number(sample.score), "pictures": numbers}
        )
    return {
        "samples": shown,
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "samplesLeftOut": left_out,
    }


def _by_importance(found: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, Sample]]:
    """Yields every sample once: of all trials the first shared one, then the second, and so on; then other reasons."""
    seen = set()
    for reason in ORDER:
        of_reason = {trial_id: [s for s in samples if reason in s.why] for trial_id, samples in found.items()}
        for place in range(max(map(len, of_reason.values()), default=0)):
            for trial_id, samples in of_reason.items():
                if place < len(samples) and (trial_id, samples[place].name) not in seen:
                    seen.add((trial_id, samples[place].name))
                    yield trial_id, samples[place]
