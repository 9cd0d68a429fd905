"""The legend of a leaderboard: the meaning of its marks and signs, in one wording for all outputs."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from bench.leaderboard.leaderboard import Leaderboard
from bench.scoring.metrics import METRICS

Kind = Literal["spread", "best", "second", "tied", "front", "unknown", "sentence"]
SIGNS = {"spread": "±", "tied": "≈", "front": "●", "unknown": "–"}
"""Signs that are the same in all outputs. Each output has its own sign for the best and the second-best mean."""


class Entry(NamedTuple):
    """One part of the legend: the meaning of a sign, or a whole sentence."""

    kind: Kind
    text: str


def legend(board: Leaderboard) -> list[Entry]:
    """Returns the legend of a leaderboard: signs first, then sentences."""
    entries = []
    seeds = len(board.seeds)
    if seeds > 1:
        first = board.search.first_seeds
        count = f"{first} to {seeds}" if first else f"{seeds}"
        shared = ", enlarged on the test split for images that seeds share"
        enlarged = shared if any(table.overlap for table in board.tables) else ""
        entries.append(Entry("spread", f"half of the 95 % interval over {count} seeds{enlarged}"))
    entries += [Entry("best", "best mean"), Entry("second", "second-best mean")]
    tested = any(table.tested(metric) for table in board.tables for metric in table.comparisons)
    if tested:
        own_images = any(table.overlap is not None for table in board.tables)
        test = f"error over seeds{'' if own_images else ' and images'}, corrected for all pairs"
        entries.append(Entry("tied", f"not distinguishable from the best mean ({test})"))
    metric = METRICS[board.tables[0].main_metric].label
    entries += [Entry("front", f"on the Pareto front of {metric} and memory"), Entry("unknown", "not measured")]
    if seeds == 1:
        entries.append(Entry("sentence", "One seed: the seed noise is unknown, and no difference is tested."))
    elif not tested:
        entries.append(Entry("sentence", "Differences are not tested for significance."))
    if any(row.underfit for table in board.tables for row in table.rows):
        meaning = (
            "its mean score on training images is worse than the best mean on test images, by more than the margin"
        )
        entries.append(Entry("sentence", f"Underfit: {meaning}."))
    entries.append(Entry("sentence", f"Data: {board.splits}."))
    scores = "Scores are those of the test split after the last epoch; choose by the validation split (val)."
    entries += [Entry("sentence", scores), Entry("sentence", "Memory is the peak in training.")]
    entries += [Entry("sentence", sentence) for sentence in board.tuning.sentences]
    return entries


def sentences(
    entries: Sequence[Entry], best: str, second: str | None = None, escape: Callable[[str], str] = str
) -> list[str]:
    """Returns the legend in sentences; the first one gives the meanings of all signs.

    best, second: the signs of this output, already escaped; without ``second`` its entry is left out. escape: applied
    to all other texts.
    """
    signs = {kind: escape(sign) for kind, sign in SIGNS.items()} | {"best": best, "second": second}
    meanings, others = [], []
    for kind, text in entries:
        if kind == "sentence":
            others.append(escape(text))
        elif signs[kind] is not None:
            meanings.append(f"{signs[kind]} {escape(text)}")
    return [f"{'; '.join(meanings)}.", *others]


def embedded_note(board: Leaderboard) -> str:
    """Returns the warning that the numbers are those of stand-ins; empty for a real model and real data."""
    if not board.embedded:
        return ""
    return (
        f"Embedded run ({', '.join(board.embedded)}): these stand-ins ship with the suite. The numbers rank settings "
        "of a tiny model; they are not results of SAM3-UNet."
    )
