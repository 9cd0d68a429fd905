"""Sample predictions with image and mask: best, median and worst ones of a trial, and all rows on the same images."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.results import Results
from bench.report.plots.style import GREY, SMALL_SIZE, WIDTH, accuracy, canvas, house_style, row_name, wrap
from bench.scoring.metrics import METRICS
from bench.scoring.sample_predictions import LONG_SIDE, Sample, load_samples

GROUPS = ("best", "median", "worst")
PICTURES = ("image", "mask", "prediction")
MOST_ROWS = 12
MOST_IMAGES = 6
NAME_WIDTH = 1.15  # width of the rows' names, in inches


def best_samples(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws ``trial_samples`` of the row with the best mean, for its first seed with samples. ``None`` without any."""
    rows = sorted((row for row in table.rows if accuracy(row, table)), key=lambda row: -accuracy(row, table).mean)
    for row in rows:
        for trial_id in row.trial_ids:
            if figure := trial_samples(results, board, trial_id):
                return figure
    return None


def trial_samples(results: Results, board: Leaderboard, trial_id: str) -> Figure | None:
    """Draws image, mask and prediction of a trial's best, median and worst test images.

    ``None`` if the trial has no samples.
    """
    table, row = next(((t, r) for t in board.tables for r in t.rows if trial_id in r.trial_ids), (None, None))
    samples = _samples(results, trial_id)
    groups = {why: [s for s in samples if why in s.why] for why in GROUPS}
    if row is None or not any(groups.values()):
        return None
    lines = max(map(len, groups.values()))
    name = f"{row_name(row, board)}, seed {row.seeds[row.trial_ids.index(trial_id)]}"
    label = METRICS[samples[0].metric].label
    with house_style():
        title = f"Test images that {name} did best, middling and worst on"
        note = f"trial {trial_id}; numbers: {label} of the image, this seed"
        figure = canvas(board, table, 0.35 + 0.96 * lines, title=title, note=note).figure
        panels = figure.subplots(lines, len(GROUPS) * len(PICTURES), squeeze=False, gridspec_kw={"wspace": 0.03})
        for axes in panels.flat:
            _bare(axes)
        for g, why in enumerate(GROUPS):
            for p, picture in enumerate(PICTURES):
                column = g * len(PICTURES) + p
                heading = f"{why}\n{picture}" if p == 0 else picture
                panels[0, column].set_title(heading, fontsize=8, loc="left" if p == 0 else "center")
                for line, sample in enumerate(groups[why]):
                    _show(panels[line, column], getattr(sample, picture))
                    if p == len(PICTURES) - 1:
                        panels[line, column].set_xlabel(f"{label} {sample.score:.3f}", fontsize=7, labelpad=2)
    return figure


def sample_comparison(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws the same test images for every row: image, mask, and the predictions of its first seed with samples.

    The images are chosen by their names, not by results. Of more than 12 rows the first 12 are drawn, and the small
    print gives both numbers. ``None`` unless two rows have samples of the same images.
    """
    found: list[tuple[Row, list[Sample]]] = []
    for row in table.rows:
        samples = _shared(results, row)
        if samples and (not found or _names(samples) == _names(found[0][1])):
            found.append((row, samples))
    if len(found) < 2:
        return None
    shown = found[:MOST_ROWS]
    columns = len(shown[0][1])
    label = METRICS[shown[0][1][0].metric].label
    note = f"images chosen by name, not by result; numbers: {label} of the image; the first seed of each row"
    if len(shown) < len(found):
        note += f"; the first {len(shown)} of {len(found)} rows"
    with house_style():
        side = (WIDTH - NAME_WIDTH - 0.2) / MOST_IMAGES
        tallest = max(_height(sample.image) for sample in shown[0][1])
        height = (2 + len(shown)) * (side * min(tallest, 1.0) + 0.16)
        figure = canvas(board, table, height, title="The same test images for all rows", note=note).figure
        panels = figure.subplots(2 + len(shown), columns, squeeze=False)
        for axes in panels.flat:
            _bare(axes)
        for column, sample in enumerate(shown[0][1]):
            _show(panels[0, column], sample.image)
            _show(panels[1, column], sample.mask)
            for line, (_, samples) in enumerate(shown, start=2):
                _show(panels[line, column], samples[column].prediction)
                panels[line, column].set_xlabel(f"{samples[column].score:.3f}", fontsize=SMALL_SIZE, labelpad=1)
        for axes, text in zip(panels[:, 0], ("image", "mask", *(row_name(row, board) for row, _ in shown))):
            lines = wrap(text, NAME_WIDTH, 7.5)
            look = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 7.5}
            more = "…" if len(lines) > 4 else ""
            axes.set_ylabel("\n".join(lines[:4]) + more, **look)
    return figure


def _samples(results: Results, trial_id: str) -> list[Sample]:
    folder = results.folders.get(trial_id)
    return load_samples(folder, trial_id) if folder else []


def _shared(results: Results, row: Row) -> list[Sample]:
    """Returns the samples of images that all trials share, of the row's first trial that has some, by name."""
    for trial_id in row.trial_ids:
        shared = sorted((s for s in _samples(results, trial_id) if "shared" in s.why), key=lambda s: s.name)
        if shared:
            return shared[:MOST_IMAGES]
    return []


def _names(samples: list[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def _pixels(picture: bytes) -> np.ndarray | None:
    """Returns a thumbnail as uint8 [H, W, 3]; ``None`` if it is damaged or too large for a thumbnail."""
    try:
        with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG")) as image:
            return np.asarray(image.convert("RGB")) if max(image.size) <= LONG_SIDE else None
    except (OSError, ValueError, SyntaxError):  # PIL's errors for damaged files
        return None


def _height(picture: bytes) -> float:
    """Returns the height of a picture in units of its width."""
    pixels = _pixels(picture)
    return 1.0 if pixels is None else pixels.shape[0] / pixels.shape[1]


def _show(axes: Axes, picture: bytes) -> None:
    pixels = _pixels(picture)
    if pixels is None:
        axes.text(0.5, 0.5, "damaged", transform=axes.transAxes, ha="center", va="center", fontsize=7, color=GREY)
    else:
        axes.imshow(pixels, interpolation="antialiased")
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, edgecolor=GREY)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
