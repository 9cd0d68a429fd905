"""Made-up results of a sweep with everything that can happen to a trial: for tests of tables, figures and the page.

Nothing is trained and nothing is random: the same arguments give the same results.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from bench.config.axes import Axis
from bench.config.expand import Trial, expand
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.leaderboard.results import Results, summarise
from bench.records import sweep_json
from bench.records.memory import Memory
from bench.records.record import CurvePoint, MemoryAtFailure, Provenance, Timing, TrialRecord
from bench.records.tables import write_table
from bench.scoring.metrics import OF_PROTOCOL
from models.core.registry import Missing

GIB = 2**30
IMAGES = 40
FAILURES = ("oom", "over budget", "error", "diverged", "stopped early")
STATES = (*FAILURES, "pending", "missing", "few quantities", "elsewhere")
"""What happens to a trial besides going well: row ``7 * n + 3`` has the ``n``-th of them, at one seed or at all."""
HOSTILE = """<img src=x onerror="window.hacked=1"></script><script>window.hacked=2</script>' " & \u2028 | _ * $x$ \\"""
"""A text that breaks whatever forgets to escape it."""
LONG = "adapter in every second block of the encoder, narrower towards its end, with the norm's weights tuned as well"


def provenance(**changes):
    usual = {
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "host_cpu": "chip",
        "threads": 1,
        "trials_at_once": 2,
        "platform": "Linux",
        "device": "cpu",
        "driver": None,
        "cuda": None,
        "deterministic": True,
        "versions": {"torch": "2.9", "pysodmetrics": "1.6.2"},
        "dataset_fingerprint": "f" * 32,
        "images": {"train": 8, "val": 2, "test": 3},
    }
    return Provenance(**{**usual, **changes})


def synthetic(
    rows: int = 60, seeds: tuple[int, ...] = (0, 1, 2, 3, 4), hostile: bool = False, folder: Path | None = None
) -> Results:
    """``rows`` x ``seeds`` trials of two axes. With a folder, some have a memory series and samples there.

    Every seventh row has a long name. ``hostile`` puts ``HOSTILE`` wherever a user or a file can put a text.
    """
    sweep = _sweep(rows, seeds, hostile)
    trials = expand(sweep)
    records, images, absent = {}, {}, {}
    names = [f"image {i:03d}{HOSTILE if hostile and i == 0 else ''}" for i in range(IMAGES)]
    for number, trial in enumerate(trials):
        row, seed = divmod(number, len(seeds))
        state = _state(row, seed)
        if state == "missing":
            absent[trial.trial_id] = [Missing("weights", "model.encoder.weights", "no file sam3.pt", "download it")]
        if state in ("missing", "pending"):
            continue
        scores = _scores(row, seed)
        records[trial.trial_id] = _record(trial, row, seed, state, scores.mean(), hostile)
        if records[trial.trial_id].scores:
            images[trial.trial_id] = {"name": names, "s_measure": scores.tolist(), "mae": (1 - scores).tolist()}
            if folder is not None and row < 8:
                _write_files(folder, trial.trial_id, names, scores)
    folders = {trial_id: folder or Path("nowhere") for trial_id in records}
    return Results(sweep, trials, records, images, folders, absent)


def _sweep(rows: int, seeds: tuple[int, ...], hostile: bool) -> Sweep:
    base = TrialConfig.model_validate(
        {
            "model": {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": {"width": 8}, "adapter": {"rank": 2}},
            "dataset": {"name": "procedural", "train": 8, "val": 2, "test": IMAGES, "side": 32},
            "transform": {"size": 32},
            "train": {"epochs": 4, "batch_size": 4},
            "device": "cpu",
        }
    )
    first = -(-rows // 2)
    labels = {f"{LONG} ({rank})" if rank % 7 == 0 else str(rank): rank for rank in range(1, first + 1)}
    if hostile:
        labels = {HOSTILE if rank == 1 else label: rank for label, rank in labels.items()}
    axes = (Axis.over("model.adapter.rank", labels), Axis.over("model.decoder.width", {"8": 8, "16": 16}))
    question = f"How narrow may the adapter be?{' ' + HOSTILE if hostile else ''}"
    return Sweep("synthetic", question, "embedded", base, axes if rows > 1 else axes[:1], seeds)


def _state(row: int, seed: int) -> str:
    """Of a trial; ``seed`` is its number among the row's. Some rows fail at one seed, some at all."""
    n, rest = divmod(row, 7)
    if rest != 3 or n >= len(STATES):
        return "ok"
    state = STATES[n]
    return state if seed == 0 or state not in ("oom", "diverged") else "ok"


def _scores(row: int, seed: int) -> np.ndarray:
    """S of every image [IMAGES]: rows differ, seeds a little, images most."""
    rng = np.random.default_rng([row, seed])
    hardness = np.random.default_rng(0).normal(0, 0.06, IMAGES)
    level = 0.62 + 0.2 * (1 - np.exp(-row / 15)) + rng.normal(0, 0.008)
    return np.clip(level + hardness + rng.normal(0, 0.02, IMAGES), 0, 1)


def _record(trial: Trial, row: int, seed: int, state: str, level: float, hostile: bool) -> TrialRecord:
    went_well = state not in FAILURES
    key = HOSTILE if hostile else "mask"
    text = {
        "oom": "CUDA out of memory. Tried to allocate 2.00 GiB",
        "over budget": "not run: predicted to allocate 12.00 GiB, more than 1.2 x memory.budget_gib 8",
        "error": f"Traceback (most recent call last):\n  File x.py, line 3\nKeyError: {key!r}",
        "diverged": "the loss is not finite in epoch 2",
        "stopped early": "stopped by its validation loss after epoch 2",
    }.get(state, "")
    status = state if not went_well else "ok"
    metrics = OF_PROTOCOL["sod"][:3] + ("mae",) if state == "few quantities" else OF_PROTOCOL["sod"]
    scores = {m: 1 - level if m == "mae" else level - 0.01 * i for i, m in enumerate(metrics)}
    peak = round((1 + row * 0.05 + 0.004 * seed) * GIB)
    memory = Memory(rss_bytes=peak)
    elsewhere = {"device": "NVIDIA H200", "cuda": "13.0"} if state == "elsewhere" else {}
    source = provenance(
        host_cpu=HOSTILE if hostile else "chip",
        platform="Linux x86_64",
        images={"train": 8, "val": 2, "test": IMAGES},
        **elsewhere,
    )
    curve = [
        CurvePoint(epoch=e, train_loss=1.2 / e + 0.01 * row, val_loss=1.3 / e + 0.01 * row, lr=1e-3 / e)
        for e in range(1, 5)
    ]
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error=text,
        config=trial.config.model_dump(mode="json"),
        scores=scores if went_well else None,
        test_sets={"test": scores} if went_well else {},
        val_scores={m: s - 0.02 for m, s in scores.items()} if went_well else None,
        memory={"training": memory, "evaluation": Memory(rss_bytes=GIB)} if went_well else None,
        memory_at_failure=MemoryAtFailure(
            torch_reserved_bytes=None, predicted_allocated_bytes=12 * GIB, budget_bytes=8 * GIB
        )
        if state in ("oom", "over budget")
        else None,
        timing=Timing(
            train_seconds=60.0 + row,
            train_images_per_second=50.0 - 0.3 * row,
            inference_images_per_second=120.0 - 0.5 * row,
            total_seconds=80.0 + row,
        )
        if went_well and state != "few quantities"
        else None,
        parameters={"total": 480_000 + 9000 * row, "trainable": 18_000 + 9000 * row, "encoder": 460_000}
        if state != "few quantities"
        else None,
        curve=curve[: 4 if went_well else 2 if state in ("diverged", "stopped early") else 0],
        provenance=source,
    )


def _write_files(folder: Path, trial_id: str, names: list[str], scores: np.ndarray) -> None:
    """A memory series, and samples of the first six images."""
    time = np.linspace(0, 30, 60)
    series = {"phase": ["training"] * 60, "seconds": time.tolist(), "rss_bytes": [int(GIB + 1e7 * t) for t in time]}
    write_table({**series, "nvml_device_bytes": [None] * 60}, folder / f"{trial_id}.memory.parquet")
    columns: dict[str, list] = {
        "name": names[:6],
        "why": [["best"], ["worst"], ["median"], ["shared"], ["shared"], ["best", "shared"]],
        "metric": ["s_measure"] * 6,
        "score": scores[:6].tolist(),
        "image": [_picture("RGB", i, "JPEG") for i in range(6)],
        "mask": [_picture("L", i, "PNG") for i in range(6)],
        "prediction": [_picture("L", i + round(100 * scores[0]), "PNG") for i in range(6)],
    }
    write_table(columns, folder / f"{trial_id}.samples.parquet")


def _picture(mode: str, number: int, kind: str) -> bytes:
    image = Image.new(mode, (48, 32), 40 if mode == "L" else (40, 60, 80))
    left = number % 24
    image.paste(220 if mode == "L" else (220, 200, 120), (left, 6, left + 16, 26))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def record(trial, s=0.8, memory=1.0, status="ok", error="", metrics=OF_PROTOCOL["sod"], **where):
    ok = status == "ok"
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error=error,
        config={},
        scores={m: s for m in metrics} if ok else None,
        val_scores={m: s - 0.1 for m in metrics} if ok else None,
        memory={"training": Memory(rss_bytes=int(memory * GIB)), "evaluation": Memory(rss_bytes=GIB)} if ok else None,
        timing=Timing(
            train_seconds=1.0,
            train_images_per_second=10.0,
            inference_images_per_second=20.0,
            total_seconds=2.0,
        )
        if ok
        else None,
        parameters={"total": 1_000_000, "trainable": 250_000, "encoder": 0, "adapter": 0, "decoder": 0},
        provenance=provenance(**where),
    )


def board_of(sweep, *records, **more):
    return summarise(Results(sweep, expand(sweep), {r.trial_id: r for r in records}, **more))


def save(results: Results, folder: Path) -> Path:
    """Writes made-up results into a folder as a run does."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep_json.of(results.sweep, results.trials, results.absent).save(folder)
    for trial_id, record in results.records.items():
        record.model_copy(update={"image_scores": results.images.get(trial_id)}).save(folder)
    return folder


def images_of(trials, levels, noise=0.01, count=40):
    """Per-image scores of trials whose mean lies near a level, reproducibly."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.05, count)
    made = {}
    for trial, level in zip(trials, levels):
        values = level + image + rng.normal(0, noise, count)
        scores = {metric: values.tolist() for metric in ("s_measure", "mae")}
        made[trial.trial_id] = {"name": [f"im {i}" for i in range(count)], **scores}
    return made


def contents(folder: Path) -> dict[str, bytes]:
    """Contents of all files in a folder by their path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def results_of(sweep, *records, images=None):
    """The results of a sweep with these records."""
    return Results(sweep, expand(sweep), {r.trial_id: r for r in records}, images or {}, {})
