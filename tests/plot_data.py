"""Made-up results for tests of figures: records with chosen accuracy and memory, memory series and samples."""

import io
import itertools

import numpy as np
import pyarrow
import pyarrow.parquet
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from PIL import Image
from synthetic import provenance

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.leaderboard.results import Results
from bench.records.memory import Memory
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.scoring.metrics import OF_PROTOCOL
from bench.scoring.sample_predictions import Sample

GIB = 2**30


def record(trial, s, gib, measure="rss_bytes", status="ok", **where):
    ok = status == "ok"
    memory = Memory(**{measure: int(gib * GIB)}, rss_baseline_bytes=GIB, nvml_baseline_bytes=GIB)
    curve = [CurvePoint(epoch=e, train_loss=2 / e, val_loss=1 - s / e, lr=0.1) for e in (1, 2, 3)]
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "out of memory",
        config={},
        scores={m: s for m in OF_PROTOCOL["sod"]} if ok else None,
        memory={"training": memory, "evaluation": memory} if ok else None,
        timing=Timing(
            train_seconds=1.0,
            train_images_per_second=10 + 50 * s,
            inference_images_per_second=20.0,
            total_seconds=2.0,
        )
        if ok
        else None,
        parameters={"total": 9, "trainable": 3, "encoder": 0, "adapter": 0, "decoder": 0},
        curve=curve if ok else [],
        provenance=provenance(**where),
    )


def sweep_of(tiny, *axes, seeds=(0, 1), name="mine", question="How narrow may it be?"):
    return Sweep(name, question, "embedded", tiny, axes, seeds)


def results_of(sweep, records, images=None, folder=None):
    trials = expand(sweep)
    folders = {t.trial_id: folder for t in trials} if folder else {}
    return Results(sweep, trials, {r.trial_id: r for r in records}, images or {}, folders)


def spread(trials, measure="rss_bytes", low=1.0, high=20.0):
    """Records of trials all over the plane, close neighbours among them; the same on every call."""
    rng = np.random.default_rng(1)
    return [
        record(t, *place, measure)
        for t, place in zip(trials, zip(rng.uniform(0.6, 0.62, len(trials)), rng.uniform(low, high, len(trials))))
    ]


def write_series(folder, trial_id):
    columns = {
        "phase": ["training"] * 3 + ["evaluation"] * 2,
        "seconds": [0.0, 1.0, 2.0, 0.0, 0.5],
        "rss_bytes": [GIB, 2 * GIB, 2 * GIB, GIB, 3 * GIB // 2],
        "nvml_device_bytes": [GIB, 2 * GIB, 2 * GIB, GIB, 3 * GIB // 2],
        "nvml_process_bytes": [None] * 5,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{trial_id}.memory.parquet")


def picture(kind, colour):
    file = io.BytesIO()
    Image.new("RGB" if kind == "JPEG" else "L", (24, 18), colour).save(file, kind)
    return file.getvalue()


def write_samples(folder, trial_id, score=0.5):
    columns = {name: [] for name in Sample.__dataclass_fields__}
    for i, why in enumerate((["best"], ["median", "shared"], ["worst"], ["shared"])):
        values = (
            f"{i}.png",
            why,
            "s_measure",
            score,
            picture("JPEG", (9, 99, 200)),
            picture("PNG", 255),
            picture("PNG", 9),
        )
        for column, value in zip(columns.values(), values):
            column.append(value)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{trial_id}.samples.parquet")


def four(tiny, accuracies, memories, seeds=(0, 1, 2)):
    """Rows whose trials have these values, [rows][seeds]."""
    sweep = sweep_of(
        tiny, Axis.over("model.adapter.rank", {str(i + 1): i + 1 for i in range(len(accuracies))}), seeds=seeds
    )
    values = [place for a, m in zip(accuracies, memories) for place in zip(a, m)]
    return results_of(sweep, [record(t, *place) for t, place in zip(expand(sweep), values)])


def visible_texts(figure):
    """All texts that a reader sees, with their boxes in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found, hidden = [], set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            beyond = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
            hidden |= {label for tick in beyond for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        axes = text.axes
        if text in hidden or not text.get_text().strip() or not text.get_visible():
            continue
        if axes is not None and not axes.get_visible():
            continue
        box = (
            Text.get_window_extent(text, renderer) if isinstance(text, Annotation) else text.get_window_extent(renderer)
        )
        found.append((text.get_text(), box))
    return found


def assert_readable(figure):
    """No two texts overlap by more than the air in their boxes, and none leaves the figure."""
    texts = visible_texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    out = [t for t, b in texts if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    assert out == []
    clashes = []
    for (a, x), (b, y) in itertools.combinations(texts, 2):
        across = min(x.x1, y.x1) - max(x.x0, y.x0)
        down = min(x.y1, y.y1) - max(x.y0, y.y0)
        if across > 1.5 and down > 1.5:
            clashes.append((a, b, round(across), round(down)))
    assert clashes == []
