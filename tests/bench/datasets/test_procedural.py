import numpy as np
import pytest
import torch

from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets.procedural import SMALLEST_MASK, paint
from bench.datasets.scenes import tasks
from bench.datasets.scenes.surfaces import MATERIALS

SMALL = {"name": "procedural", "train": 6, "val": 3, "test": 4, "side": 48}


def config(**changes):
    return DATASETS.parse({**SMALL, **changes})


@pytest.mark.parametrize("task", ["salient", "mirror"])
def test_scenes_are_a_pure_function_of_seed_split_and_index(task):
    for split, index in ((0, 0), (1, 2), (2, 3)):
        first, second = paint(config(task=task), split, index), paint(config(task=task), split, index)
        assert all(np.array_equal(a, b) for a, b in zip(first, second))
    different = [paint(config(task=task, seed=s), split, i)[0] for s in (0, 1) for split in (0, 1, 2) for i in (0, 1)]
    assert len({image.tobytes() for image in different}) == len(different)


@pytest.mark.parametrize("task", ["salient", "mirror"])
def test_masks_are_binary_and_show_something_but_not_everything(task):
    for index in range(40):
        image, mask = paint(config(task=task), 0, index)
        assert image.shape == (48, 48, 3) and image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert SMALLEST_MASK <= (mask > 0).mean() < 0.7


def test_materials_are_labelled_ordered_and_outlined():
    image, targets = tasks.materials(np.random.default_rng(0), 48)
    assert image.shape == targets.shape == (48, 48, 3)
    assert targets[..., 0].max() < len(MATERIALS)
    assert set(np.unique(targets[..., 2])) == {0, 255}
    front = targets[..., 1] == 255
    assert front.any() and len(np.unique(targets[..., 0][front])) == 1  # the object in front is of one material


GOLDEN = {"salient": (1007695, 72165), "mirror": (1011570, 52785)}  # sums of the first scenes' image and mask


def test_scenes_stay_what_they_were():
    """Records name a fingerprint; scenes that change need a new ``VERSION`` (and new golden sums here)."""
    sums = {
        task: [int(array.astype(np.int64).sum()) for array in paint(config(task=task), 0, 0)]
        for task in ("salient", "mirror")
    }
    for task, (image, mask) in GOLDEN.items():
        # rounding differs a little between builds of numpy and scipy
        assert sums[task][0] == pytest.approx(image, rel=2e-3)
        assert sums[task][1] == pytest.approx(mask, rel=2e-2)
    assert tasks.VERSION == 1


def test_splits_have_their_sizes_and_share_nothing():
    data = DATASETS.build(config(), TransformConfig(size=48))
    assert [len(s) for s in (data.train, data.val, data.test)] == [6, 3, 4]
    images = [data.train.images[i].tobytes() for s in (data.train, data.val, data.test) for i in s.indices]
    assert len(set(images)) == 13
    assert len({*data.train.names, *data.val.names, *data.test.names}) == 13


def test_ground_truth_has_the_painted_size_whatever_the_models_is():
    for size in (48, 32):
        data = DATASETS.build(config(), TransformConfig(size=size))
        assert data.train.batch(np.arange(2), torch.device("cpu"))[0].shape == (2, size, size, 3)
        for i in range(4):
            assert np.array_equal(data.test.ground_truth(i), paint(config(), 2, i)[1])


def test_fingerprint_follows_what_is_seen_and_nothing_else():
    def fingerprint(size=48, **changes):
        return DATASETS.build(config(**changes), TransformConfig(size=size)).fingerprint

    assert fingerprint() == fingerprint(size=32)
    assert len({fingerprint(), fingerprint(task="mirror"), fingerprint(seed=1), fingerprint(train=7)}) == 4


def test_a_cache_that_cannot_be_written_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Exception, match="set SAM3_BENCH_CACHE to a folder with room"):
        DATASETS.build(config(), TransformConfig(size=16))
