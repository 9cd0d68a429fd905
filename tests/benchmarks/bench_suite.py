"""How fast the suite's own parts are: ``pytest tests/benchmarks -o python_files='bench_*.py'``.

Not part of the test run. Things that have an alternative are grouped beside it, so that the table shows their ratio.
"""

import numpy as np
import pytest
import torch
from pairs import write_pairs
from PIL import Image
from torch.nn import functional as F

from bench.config.axes import Axis
from bench.config.expand import expand, sizes
from bench.config.settings import TransformConfig
from bench.config.sweep import Sweep
from bench.config.trial import DATASETS, TrialConfig
from bench.datasets.core.transforms import flip, resize_image, resize_mask, to_input, to_target
from bench.scoring.metrics import score
from bench.training import losses
from bench.training.losses.structure_loss import loss as structure_loss
from models import MODELS

CPU = torch.device("cpu")
MODEL = {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": {"width": 32}, "adapter": {"rank": 16}}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def batch():
    return torch.randn(8, 3, 96, 96), (torch.rand(8, 1, 96, 96) > 0.5).float()


@pytest.mark.benchmark(group="model, tiny, batch 8 at 96 px")
def bench_training_step(benchmark, batch):
    model = MODELS.build(MODELS.parse(MODEL), 96, True).train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def step():
        optimiser.zero_grad()
        structure_loss(model(batch[0])[0], batch[1]).backward()
        optimiser.step()

    benchmark(step)


@pytest.mark.benchmark(group="model, tiny, batch 8 at 96 px")
def bench_forward(benchmark, batch):
    model = MODELS.build(MODELS.parse(MODEL), 96, True).eval()
    with torch.no_grad():
        benchmark(model, batch[0])


@pytest.mark.benchmark(group="structure loss, 8 masks of 96 px")
@pytest.mark.parametrize("passes", ["two passes", "one square pass as upstream"])
def bench_neighbourhood(benchmark, batch, monkeypatch, passes):
    if passes.startswith("one"):
        monkeypatch.setattr(losses, "_neighbourhood_mean", lambda m: F.avg_pool2d(m, 31, stride=1, padding=15))
    benchmark(structure_loss, torch.randn_like(batch[1]), batch[1])


@pytest.mark.benchmark(group="a batch of 12 at 336 px from 24 files of 400 x 300")
@pytest.mark.parametrize("source", ["cache", "files as upstream"])
def bench_loading(benchmark, tmp_path, source):
    images, masks = write_pairs(tmp_path, 24, size=(400, 300))
    transform = TransformConfig()
    config = DATASETS.parse({"name": "folder", "images": str(images), "masks": str(masks), "val": 0.0, "test": 0.1})
    split = DATASETS.build(config, transform).train
    draws = torch.Generator().manual_seed(0)

    def from_cache():
        return split.batch(np.arange(12), CPU)

    def from_files():
        pairs = []
        for name in split.names[:12]:
            image, mask = (
                Image.open(images / f"{name}.jpg").convert("RGB"),
                Image.open(masks / f"{name}.png").convert("L"),
            )
            pairs.append((resize_image(image, 336), resize_mask(np.asarray(mask), 336, "bicubic")))
        return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs))

    def load(read):
        pixels, targets = flip(*read(), transform, draws)
        return to_input(pixels, "imagenet"), to_target(targets)

    benchmark(load, from_cache if source == "cache" else from_files)


@pytest.mark.benchmark(group="scoring, 10 pairs")
@pytest.mark.parametrize("side", [96, 336])
def bench_scoring(benchmark, side):
    rng = np.random.default_rng(0)
    masks = np.zeros((10, side, side), np.uint8)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = 255
    predictions = rng.integers(0, 256, masks.shape, dtype=np.uint8)
    benchmark(score, [(str(i), p, m) for i, (p, m) in enumerate(zip(predictions, masks))])


@pytest.mark.benchmark(group="a sweep of 300 trials")
def bench_expansion(benchmark):
    base = TrialConfig.model_validate({"model": MODEL, "dataset": "procedural", "device": "cpu"})
    ranks = Axis.over("model.adapter.rank", {str(r): r for r in range(1, 11)})
    widths = Axis.over("model.decoder.width", {str(8 * w): 8 * w for w in range(1, 11)})
    trials = benchmark(expand, Sweep("s", "?", "default", base, (ranks, widths), (0, 1, 2)))
    assert len(trials) == 300


@pytest.mark.benchmark(group="preflight")
@pytest.mark.parametrize("encoder", ["sam3_vit_tiny", "sam3_vit"])
def bench_skeleton(benchmark, encoder):
    base = TrialConfig.model_validate({"model": {**MODEL, "encoder": encoder}, "dataset": "procedural"})
    trials = expand(Sweep("s", "?", "default", base, (Axis.over("model.adapter.rank", {"8": 8}),), (0,)))
    benchmark(sizes, trials)
