"""The encoder blocks that have an adapter or are tuned, and the accuracy of each placement."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bench.config.trial import TrialConfig
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.noise_floor import score_span
from bench.leaderboard.results import Results
from bench.leaderboard.rows import records_of
from bench.report.plots.spans import Span, is_cut, limits, mark_cuts, spread_in_words
from bench.report.plots.style import (
    BLACK,
    BLUE,
    ORANGE,
    SEED,
    accuracy,
    accuracy_label,
    canvas,
    fields,
    house_style,
    legend_height,
    row_name,
    shorten,
)
from models.core.placement import resolve
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

ROW_HEIGHT = 0.23  # inches
LONGEST_LABEL = 2.2
BESIDE = 0.22  # rows between the dots of seeds and the interval, which would cover them
UNTOUCHED = {"facecolor": "0.94", "edgecolor": "none"}
WORDS = {"adapted": "adapter", "tuned": "block tuned"}
PATHS = ("model.adapter.placement", "model.tuned_blocks")


class Blocks(NamedTuple):
    """The blocks of an encoder that are adapted or tuned; block 0 is next to the image."""

    depth: int
    adapted: tuple[int, ...]
    tuned: tuple[int, ...]


def placement(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws a line for each row and a column for each encoder block, and the accuracy at the right.

    Adapters are filled and tuned blocks hatched. ``None`` unless the sweep varies the placement of adapters or the
    tuned blocks.
    """
    configs = {trial.trial_id: trial.config for trial in results.trials}
    depths: dict[str, int | None] = {}
    every = [(row, _blocks(configs.get(row.trial_ids[0]), depths)) for row in table.rows]
    found = [(row, blocks) for row, blocks in every if blocks is not None]
    if len({blocks[1:] for _, blocks in found}) < 2:
        return None
    if not any(path in axis.paths() for axis in results.sweep.axes for path in PATHS):
        return None
    with house_style():
        height = 0.6 + ROW_HEIGHT * len(found)
        seeds = [_of_seeds(results, row, table.main_metric) for row, _ in found]
        cells = [cell for row, _ in found if (cell := accuracy(row, table)) is not None]
        span = limits(cells, [score for scores in seeds for score in scores], score_span(table)) if cells else (0, 1)
        note = spread_in_words(board, "bars", is_cut(cells, span))
        place = canvas(board, table, height, title=_title(board), note=note, below=legend_height(1, 7.5))
        left, right = place.figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        looks = {
            "adapted": {"facecolor": BLUE, "edgecolor": BLACK, "linewidth": 0.5},
            "tuned": {"facecolor": ORANGE, "edgecolor": BLACK, "linewidth": 0.5, "hatch": "////"},
        }
        shown = [kind for kind in looks if any(getattr(blocks, kind) for _, blocks in found)]
        tall = 0.8 / max(1, len(shown))  # an adapter and a tuned block may stand at the same place
        for y, (_, blocks) in enumerate(found):
            for x in range(blocks.depth):
                left.add_patch(Rectangle((x + 0.06, y - 0.4), 0.88, 0.8, **UNTOUCHED))
            for part, kind in enumerate(shown):
                for x in getattr(blocks, kind):
                    left.add_patch(Rectangle((x + 0.06, y - 0.4 + part * tall), 0.88, tall, **looks[kind]))
        depth = max(blocks.depth for _, blocks in found)
        left.set(xlim=(0, depth), ylim=(len(found) - 0.45, -0.55), xlabel="encoder block, from image to decoder")
        step = max(1, depth // 8)
        left.set_xticks([x + 0.5 for x in range(0, depth, step)], [str(x) for x in range(0, depth, step)], fontsize=8)
        names = [shorten(row_name(row, board), LONGEST_LABEL, 8) for row, _ in found]
        left.set_yticks(range(len(found)), names, fontsize=8)
        left.tick_params(length=0)
        left.grid(visible=False)
        for spine in left.spines.values():
            spine.set_visible(False)
        _accuracies(right, [row for row, _ in found], seeds, table, span)
        handles = [Patch(label=WORDS[kind], **looks[kind]) for kind in shown]
        handles.append(Patch(label="frozen, without adapter", **UNTOUCHED))
        place.legend(handles, ncols=3, fontsize=7.5, handlelength=1.4)
    return place.figure


def _title(board: Leaderboard) -> str:
    return f"Which blocks of the encoder learn. Rows: {', '.join(fields(board))}"


def _of_seeds(results: Results, row: Row, metric: str) -> list[float]:
    """Returns the scores of the trials of a row."""
    records = records_of(row, results.records)
    return [record.scores[metric] for record in records if record.scores and metric in record.scores]


def _accuracies(axes: Axes, rows: Sequence[Row], seeds: Sequence[list[float]], table: Table, span: Span) -> None:
    """Draws the accuracy of each row and of its seeds, or the status of its trials."""
    axes.set_xlim(span)
    for y, (row, scores) in enumerate(zip(rows, seeds)):
        cell = accuracy(row, table)
        if cell is not None:
            look = {"color": BLACK, "markersize": 5, "markerfacecolor": "white", "elinewidth": 1.1, "capsize": 2}
            axes.errorbar(cell.mean, y, xerr=cell.half_width, fmt="o", zorder=3, **look)
            axes.plot(scores, [y + BESIDE] * len(scores), ".", color=BLACK, **SEED)
            mark_cuts(axes, [cell], [y], [BLACK], "x")
        else:
            text = ", ".join(dict.fromkeys(row.statuses))
            axes.text(0.5, y, text, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=7.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{accuracy_label(table)}, test split")
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", left=False, labelleft=False)


def _blocks(config: TrialConfig | None, depths: dict[str, int | None]) -> Blocks | None:
    """Returns the adapted and tuned blocks; ``None`` for a model without blocks, or one that cannot be built here."""
    model = config and config.model
    if not hasattr(model, "adapter") or not hasattr(model, "tuned_blocks"):
        return None
    key = model.encoder.model_dump_json()
    if key not in depths:
        depths[key] = _depth(config)
    depth = depths[key]
    if depth is None:
        return None
    return Blocks(depth, resolve(model.adapter.placement, depth), resolve(model.tuned_blocks, depth))


def _depth(config: TrialConfig) -> int | None:
    """Returns the number of the encoder's blocks, from the configuration or else from the model on fake tensors."""
    if hasattr(config.model.encoder, "depth"):
        return config.model.encoder.depth
    if any(item.kind == "package" for item in config.model.missing()):
        return None
    try:
        return len(skeleton(config.model, config.transform.size).encoder.blocks)
    except (InvalidModel, AttributeError):
        return None
