"""Images per second and core: the suite's cache against upstream's loader as it is described, on the same files.

``pytest tests/benchmarks/bench_loading.py -o python_files='bench_*.py'``; with ``SAM3_BENCH_PAIRS=ROOT`` on the pairs in
ROOT/images and ROOT/masks instead of painted ones. Everything runs in one process with one thread. Making the cache is
paid once; upstream's loader pays its price in every epoch.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import write_scenes
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, ToTensor
from torchvision.transforms import functional as F

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets.core.pairing import pairs_of
from bench.datasets.core.transforms import NORMALISATIONS, flip, to_input, to_target

COUNT, SIDE, BATCH = 48, 400, 12
CPU = torch.device("cpu")
TRANSFORM = TransformConfig()
to_tensor = ToTensor()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of images and masks: painted scenes of 400 px, or those of $SAM3_BENCH_PAIRS."""
    if "SAM3_BENCH_PAIRS" in os.environ:
        root = Path(os.environ["SAM3_BENCH_PAIRS"])
        return root / "images", root / "masks"
    return write_scenes(tmp_path_factory.mktemp("pairs"), COUNT, SIDE)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("bench.datasets.core.cache.cores", lambda: 1)


def config(images, masks):
    shares = {"val": 0.0, "test": 0.01, "single_value_masks": "allow"}
    return DATASETS.parse({"name": "folder", "images": str(images), "masks": str(masks), **shares})


class AsUpstream(Dataset):
    """Decodes, resizes, flips and normalises one pair with PIL and torchvision whenever it is asked for."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        image, mask = Image.open(self.pairs[i].image).convert("RGB"), Image.open(self.pairs[i].mask).convert("L")
        image = F.resize(image, [TRANSFORM.size] * 2, InterpolationMode.BILINEAR)
        mask = F.resize(mask, [TRANSFORM.size] * 2, InterpolationMode.BICUBIC)
        for turn in (F.hflip, F.vflip):
            if torch.rand(1) < 0.5:
                image, mask = turn(image), turn(mask)
        return F.normalize(to_tensor(image), *NORMALISATIONS["imagenet"]), to_tensor(mask)


def epoch_from_cache(split, draws):
    for chosen in torch.randperm(len(split), generator=draws).split(BATCH):
        images, masks = flip(*split.batch(chosen.numpy(), CPU), TRANSFORM, draws)
        yield to_input(images, "imagenet"), to_target(masks)


def run(batches):
    """Goes through an epoch; the number of images."""
    return sum(len(images) for images, _ in batches)


def report(benchmark, count):
    if benchmark.stats is None:  # --benchmark-disable
        return
    benchmark.extra_info["images_per_second_per_core"] = round(count / benchmark.stats.stats.median, 1)


@pytest.mark.benchmark(group="an epoch of pairs at 336 px, one core")
def bench_upstreams_loader(benchmark, files):
    loader = DataLoader(AsUpstream(pairs_of(*files, [])), BATCH, shuffle=True, num_workers=0)
    report(benchmark, benchmark.pedantic(lambda: run(loader), rounds=3, warmup_rounds=1))


@pytest.mark.benchmark(group="an epoch of pairs at 336 px, one core")
def bench_the_cache(benchmark, files):
    split, draws = DATASETS.build(config(*files), TRANSFORM).train, torch.Generator().manual_seed(0)
    report(benchmark, benchmark.pedantic(lambda: run(epoch_from_cache(split, draws)), rounds=5, warmup_rounds=1))


@pytest.mark.benchmark(group="an epoch of pairs at 336 px, one core")
def bench_the_cache_for_a_gpu(benchmark, files):
    """What is left for the CPU where flips and normalisation run on the GPU: gathering bytes."""
    split, draws = DATASETS.build(config(*files), TRANSFORM).train, torch.Generator().manual_seed(0)

    def gather():
        order = torch.randperm(len(split), generator=draws).split(BATCH)
        return sum(len(split.batch(chosen.numpy(), CPU)[0]) for chosen in order)

    report(benchmark, benchmark.pedantic(gather, rounds=5, warmup_rounds=1))


@pytest.mark.benchmark(group="an epoch of pairs at 336 px, one core")
def bench_making_the_cache(benchmark, files, tmp_path, monkeypatch):
    caches = (str(tmp_path / str(i)) for i in range(10))

    def fresh():
        monkeypatch.setenv("SAM3_BENCH_CACHE", next(caches))

    def make():
        return len(DATASETS.build(config(*files), TRANSFORM).train)

    report(benchmark, benchmark.pedantic(make, setup=fresh, rounds=3))


@pytest.mark.benchmark(group="opening a cache: checksums of 48 pairs, and the stamps of their files")
def bench_opening_the_cache(benchmark, files):
    DATASETS.build(config(*files), TRANSFORM)
    benchmark(DATASETS.build, config(*files), TRANSFORM)


def bench_both_give_the_same_pixels(files):
    """What is compared is the same work: without flips the two loaders' tensors are equal."""
    pairs = pairs_of(*files, [])[:4]
    still = TransformConfig(hflip=0, vflip=0)
    split = DATASETS.build(config(*files), still).train
    for name, pair in zip(split.names, pairs):
        assert name == pair.stem
    images, masks = split.batch(np.arange(4), CPU)
    for i, pair in enumerate(pairs):
        image, mask = Image.open(pair.image).convert("RGB"), Image.open(pair.mask).convert("L")
        image = to_tensor(F.resize(image, [336, 336], InterpolationMode.BILINEAR))
        expected = F.normalize(image, *NORMALISATIONS["imagenet"])
        assert torch.allclose(to_input(images, "imagenet")[i], expected, atol=1e-6)
        assert torch.equal(to_target(masks)[i], to_tensor(F.resize(mask, [336, 336], InterpolationMode.BICUBIC)))
