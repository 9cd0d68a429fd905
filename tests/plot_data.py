"""Made-up results for tests of figures: records with chosen accuracy and memory, memory series and samples."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
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
