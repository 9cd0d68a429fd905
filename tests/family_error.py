"""Simulated sweeps: how often an answer claims a difference where there is none, and how often it finds one.

``python tests/family_error.py`` prints the tables of docs/metrics.md; it takes some minutes.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from bench.leaderboard.inference.questions import compare_all, compare_with
from bench.leaderboard.inference.trend import trend

POWER = {"by_seed": 0.005, "by_image": 0.03, "noise": 0.03}
"""Standard deviations of row x seed, row x image, and row x seed x image, in units of S."""
WORLDS = {
    "no difference": POWER,
    "one row 5 times as restless": {**POWER, "restless": 5},
    "one training in ten collapses by 0.1": {**POWER, "collapses": 0.1},
    "one training in ten fails": {**POWER, "fails": 0.1},
    "one in ten fails, one row 5 times as restless": {**POWER, "fails": 0.1, "restless": 5},
    "luck of Student(3)": {**POWER, "heavy": True},
    "luck shared to 80 %": {**POWER, "shared": 0.8},
    "seeds decide": {"by_seed": 0.02, "by_image": 0.0, "noise": 0.02},
    "images decide": {"by_seed": 0.0, "by_image": 0.05, "noise": 0.05},
    "seeds and noise": {"by_seed": 0.01, "by_image": 0.02, "noise": 0.05},
    "one row 5 times as restless, fewer other errors": {
        "by_seed": 0.01,
        "by_image": 0.01,
        "noise": 0.02,
        "restless": 5,
    },
}


def simulate(
    rng: np.random.Generator,
    rows: int,
    seeds: int,
    images: int,
    *,
    by_seed: float,
    by_image: float,
    noise: float,
    restless: float = 1.0,
    collapses: float = 0.0,
    heavy: bool = False,
    shared: float = 0.0,
    fails: float = 0.0,
    gains: Sequence[float] = (0.0,),
) -> np.ndarray:
    """Makes scores [row, seed, image]. The first row is ``restless`` times as restless; one training in ten collapses.

    shared: share of the variance over seeds that all rows have in common; fails: share of trials without scores; gains:
    true differences of the first rows.
    """
    luck = rng.standard_t(3, (rows, seeds)) / np.sqrt(3) if heavy else rng.normal(size=(rows, seeds))
    luck = np.sqrt(1 - shared) * luck + np.sqrt(shared) * rng.normal(size=seeds)
    luck = by_seed * luck
    luck[0] *= restless
    luck -= collapses * (rng.random((rows, seeds)) < 0.1)
    level = np.zeros(rows)
    level[: len(gains)] = gains
    taste = rng.normal(0, by_image, (rows, 1, images))
    difficulty = rng.normal(0.7, 0.15, images)
    inner = rng.normal(0, noise, (rows, seeds, images)) if noise else 0.0
    table = difficulty + level[:, None, None] + luck[:, :, None] + taste + inner
    if fails:
        table[rng.random((rows, seeds)) < fails] = np.nan
    return table


def any_pair(table: np.ndarray) -> bool:
    return any(c.resolved for c in compare_all(table))


def any_against_the_first(table: np.ndarray) -> bool:
    return any(c.resolved for c in compare_with(table, 0))


def any_against_the_last(table: np.ndarray) -> bool:
    return any(c.resolved for c in compare_with(table, len(table) - 1))


def a_trend(table: np.ndarray) -> bool:
    found = trend(table, np.arange(len(table)))
    return found is not None and found.resolved


QUESTIONS: dict[str, Callable[[np.ndarray], bool]] = {
    "pairs": any_pair,
    "against the restless row": any_against_the_first,
    "against another row": any_against_the_last,
    "trend": a_trend,
}


def rates(rows: int, seeds: int, images: int, sweeps: int, world: dict, gains: Sequence[float] = (0.0,)) -> list[float]:
    """Returns the share of simulated sweeps in which each of the questions is answered by a difference."""
    rng = np.random.default_rng([rows, seeds, images])
    claims = []
    for _ in range(sweeps):
        table = simulate(rng, rows, seeds, images, **world, gains=gains)
        claims.append([asked(table) for asked in QUESTIONS.values()])
    return np.mean(claims, axis=0).tolist()


def print_tables(sweeps: int) -> None:
    counts = (2, 3, 5, 10)
    names = " / ".join(QUESTIONS)
    for rows in (4, 10):
        print(f"\n| {rows} rows: {names} | {' | '.join(f'{n} seeds' for n in counts)} |")
        print("| --- | " + " | ".join("--:" for _ in counts) + " |")
        for name, world in WORLDS.items():
            cells = []
            for seeds in counts:
                cells.append(" / ".join(f"{rate:.3f}"[1:] for rate in rates(rows, seeds, 100, sweeps, world)))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    rising = np.linspace(0, 0.02, 4).tolist()
    for title, images, gains in (
        ("+0.01 in the first of 4 rows, 100 images", 100, [0.01]),
        ("+0.01 in the first of 4 rows, 1,000 images", 1000, [0.01]),
        ("+0.05 in the first of 4 rows, 100 images", 100, [0.05]),
        ("4 rows that rise by 0.02, 100 images", 100, rising),
    ):
        cells = []
        for seeds in counts:
            found = rates(4, seeds, images, sweeps // 2, POWER, gains)
            cells.append(" / ".join(f"{rate:.2f}" for rate in found))
        print(f"| found: {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    print_tables(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
