"""The busy share of a card: the time in its steps by the time of the loop, with batches read ahead and without.

``pytest tests/benchmarks/bench_prefetch.py -o python_files='bench_*.py' -s``. The pairs are files in a folder, read
through the suite's cache; a sleep takes the place of a step on the card, for which the processor has nothing to do. In
evaluation the masks are also read at their original sizes.
"""

import time

import numpy as np
import pytest
import torch
from pairs import write_scenes

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets.core.prefetch import AHEAD, batches

COUNT, SIDE, BATCH, EPOCHS = 48, 400, 12, 4
CPU = torch.device("cpu")
STEP_SECONDS = 0.09
"""Duration of the kernels of a training step at batch 12 and 336 px on an H100."""


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    images, masks = write_scenes(tmp_path_factory.mktemp("pairs"), COUNT, SIDE)
    folders = {"images": str(images), "masks": str(masks)}
    shares = {"val": 0.0, "test": 0.01, "single_value_masks": "allow"}
    return DATASETS.build(DATASETS.parse({"name": "folder", **folders, **shares}), TransformConfig()).train


def busy_share(split, ahead, with_truths):
    order = np.split(np.arange(len(split)), range(BATCH, len(split), BATCH)) * EPOCHS
    started = time.perf_counter()
    for _, _, truths in batches(split, order, CPU, with_truths=with_truths, ahead=ahead):
        list(truths)
        time.sleep(STEP_SECONDS)
    return len(order) * STEP_SECONDS / (time.perf_counter() - started)


@pytest.mark.benchmark(group="the busy share of a card")
@pytest.mark.parametrize("phase", ["training", "evaluation"])
@pytest.mark.parametrize("ahead", [0, AHEAD])
def bench_busy_share(benchmark, split, phase, ahead):
    shares = []
    benchmark.pedantic(
        lambda: shares.append(busy_share(split, ahead, phase == "evaluation")), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["busy_share"] = round(float(np.median(shares)), 3)
    print(f"{phase}, {ahead} batches ahead: the card computes {np.median(shares):.1%} of the time")
