"""Sample predictions with image and mask: best, median and worst ones of a trial, and all rows on the same images."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.results import Results
from bench.report.plots.style import EDGE, GREY, SMALL_SIZE, WIDTH, accuracy, canvas, house_style, row_name, wrap
from bench.scoring.metrics import METRICS
from bench.scoring.sample_predictions import LONG_SIDE, Sample, load_samples

GROUPS = ("best", "median", "worst")
PICTURES = ("image", "mask", "prediction")
MOST_ROWS = 12
MOST_IMAGES = 6
NAME_WIDTH = 1.15  # width of the rows' names, in inches
GROUP_GAP = 0.15  # inches
HEADING = 0.42  # height of the names of groups and pictures, in inches


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
        step = (WIDTH - 2 * EDGE - 2 * GROUP_GAP) / (len(GROUPS) * len(PICTURES))
        side, line_height = step - 0.07, step + 0.12
        place = canvas(board, table, HEADING + lines * line_height, title=title, note=note)
        sheet = place.sheet()
        for g, why in enumerate(GROUPS):
            for p, picture in enumerate(PICTURES):
                left = EDGE + (g * len(PICTURES) + p) * step + g * GROUP_GAP
                if p == 0:
                    sheet.text(left, HEADING / 2 - 0.02, why, fontsize=8.5, weight="bold", va="bottom")
                sheet.text(left, HEADING - 0.04, picture, fontsize=8, va="bottom")
                for line, sample in enumerate(groups[why]):
                    top = HEADING + line * line_height
                    _show(sheet, getattr(sample, picture), left, top, side)
                    if p == len(PICTURES) - 1:
                        _caption(sheet, left + side / 2, top + side, f"{label} {sample.score:.3f}")
    return place.figure


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
        step = (WIDTH - NAME_WIDTH - 3 * EDGE) / MOST_IMAGES
        side = step - 0.08
        tall = min(1.0, max(_height(sample.image) for sample in shown[0][1])) * side
        heights = [tall + 0.08, tall + 0.12, *([tall + 0.2] * len(shown))]
        place = canvas(board, table, sum(heights), title="The same test images for all rows", note=note)
        sheet, top = place.sheet(), 0.0
        names = ("image", "mask", *(row_name(row, board) for row, _ in shown))
        for line, (text, height) in enumerate(zip(names, heights)):
            lines = wrap(text, NAME_WIDTH, 7.5)
            words = "\n".join(lines[:4]) + ("…" if len(lines) > 4 else "")
            sheet.text(EDGE + NAME_WIDTH, top + tall / 2, words, fontsize=7.5, ha="right", va="center")
            for column in range(columns):
                left = NAME_WIDTH + 2 * EDGE + column * step
                sample = shown[max(line - 2, 0)][1][column]
                _show(sheet, getattr(sample, PICTURES[min(line, 2)]), left, top, side, tall)
                if line > 1:
                    _caption(sheet, left + side / 2, top + tall, f"{sample.score:.3f}")
            top += height
    return place.figure


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


def _show(sheet: Axes, picture: bytes, left: float, top: float, width: float, height: float | None = None) -> None:
    """Draws a picture, as large as its shape allows, in the middle of a place in inches; without ``height`` it is square."""
    height = width if height is None else height
    pixels = _pixels(picture)
    if pixels is None:
        middle = (left + width / 2, top + height / 2)
        sheet.text(*middle, "damaged", ha="center", va="center", fontsize=7, color=GREY)
        return
    share = min(width / pixels.shape[1], height / pixels.shape[0])
    w, h = share * pixels.shape[1], share * pixels.shape[0]
    x, y = left + (width - w) / 2, top + (height - h) / 2
    sheet.imshow(pixels, interpolation="antialiased", extent=(x, x + w, y + h, y), aspect="auto")
    sheet.add_patch(Rectangle((x, y), w, h, fill=False, linewidth=0.4, edgecolor=GREY))
    sheet.set(xlim=(0, WIDTH), ylim=(sheet.get_ylim()[0], 0))


def _caption(sheet: Axes, x: float, y: float, text: str) -> None:
    sheet.text(x, y + 0.025, text, fontsize=SMALL_SIZE, ha="center", va="top")
