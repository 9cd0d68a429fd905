"""Ignored pixels have no influence on masks, losses and scores; classes are read by number or by colour."""

import numpy as np
import pytest
import torch
from drawn_masks import BODY, INSTANCES, REFUSED, RIM, SHAPE, VOC, build, colours, disc, folder_of, palette
from torch.nn import functional as F

from bench.config.settings import LOSSES, ProtocolConfig, TrainConfig, TransformConfig
from bench.datasets import IGNORED, DataError
from bench.datasets.core.transforms import resize_mask
from bench.scoring.classes import score_classes
from bench.scoring.metrics import measure
from bench.training.batch_loss import batch_loss


@pytest.fixture
def voc(tmp_path):
    return folder_of(tmp_path, REFUSED["VOC's rim"][0])


def test_ignored_pixels_travel_with_the_masks(voc):
    data = build(voc, foreground=[1], ignore=[255])
    assert data.train.masks.dtype == np.int16 and (data.train.masks == IGNORED).any()
    truth = data.test.ground_truth(0)
    assert np.array_equal(truth == IGNORED, RIM) and np.array_equal(truth > 128, BODY)


def test_resizing_does_not_soften_an_outline_by_the_pixels_beside_it_that_do_not_count():
    halves = np.zeros((20, 20), np.int16)
    halves[:, 8:] = 255
    halves[:, 8:12] = IGNORED
    small = resize_mask(halves, 10, "bicubic")
    assert set(np.unique(small)) == {IGNORED, 0, 255}
    assert (small[:, 4:6] == IGNORED).all() and (small[:, 6:] == 255).all()


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_does_not_depend_on_pixels_that_do_not_count(name):
    classes = LOSSES.module(name).FOR_CLASSES
    masks = torch.randint(0, 2, (2, 40, 40)) * (1 if classes else 255)
    ignored = torch.zeros(2, 40, 40, dtype=bool)
    ignored[0, 10:30, 5:20] = True
    masks = torch.where(ignored, IGNORED, masks).to(torch.int16)

    class Fixed(torch.nn.Module):
        def forward(self, images):
            return (logits,)

    logits = torch.randn(2, 2 if classes else 1, 40, 40, requires_grad=True)
    settings, transform = TrainConfig(loss=name), TransformConfig(size=40)
    images = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
    loss = batch_loss(Fixed(), images, masks, settings, transform)
    loss.backward()
    assert not logits.grad.masked_select(ignored.unsqueeze(1)).any()
    assert logits.grad.masked_select(~ignored.unsqueeze(1)).all()
    with torch.no_grad():
        logits.masked_fill_(ignored.unsqueeze(1), 77.0)
    assert torch.equal(batch_loss(Fixed(), images, masks, settings, transform), loss)


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if not LOSSES.module(name).FOR_CLASSES])
def test_masks_of_which_all_pixels_count_have_the_same_loss_either_way(name):
    logits, masks = torch.randn(2, 1, 40, 40), (torch.rand(2, 1, 40, 40) > 0.5).float()
    loss = LOSSES.module(name).loss
    torch.testing.assert_close(loss(logits, masks, torch.ones_like(masks)), loss(logits, masks))
    cut = torch.ones_like(masks)
    cut[..., 20:] = 0
    if name == "bce_loss":
        half = F.binary_cross_entropy_with_logits(logits[..., :20], masks[..., :20])
        torch.testing.assert_close(loss(logits, masks, cut), half)


@pytest.mark.parametrize("protocol", ["sod", "mirror"])
def test_scores_do_not_depend_on_pixels_that_do_not_count(protocol):
    rng = np.random.default_rng(0)
    mask = np.where(RIM, IGNORED, BODY * 255).astype(np.int16)
    prediction = rng.integers(0, 256, SHAPE).astype(np.uint8)
    other = np.where(RIM, 255 - prediction, prediction).astype(np.uint8)
    settings = ProtocolConfig(name=protocol)
    for (key, first), second in zip(
        measure(prediction, mask, settings).items(), measure(other, mask, settings).values()
    ):
        assert np.array_equal(first, second), key


def test_scores_of_the_pixels_that_count_are_those_of_the_image_cut_down_to_them():
    """Rows that do not count leave the scores of the other rows, but for the 7 x 7 smoothing of the weighted F."""
    rng = np.random.default_rng(1)
    mask = (disc() * 255).astype(np.uint8)
    prediction = np.where(rng.random(SHAPE) < 0.8, mask, 255 - mask).astype(np.uint8)
    wide = np.vstack([mask, np.full((10, SHAPE[1]), 255)]).astype(np.int16)
    wide[SHAPE[0] :] = IGNORED
    with_more = measure(np.vstack([prediction, prediction[:10]]), wide, ProtocolConfig())
    for key, expected in measure(prediction, mask, ProtocolConfig()).items():
        if key != "weighted_f_measure":
            np.testing.assert_allclose(with_more[key], expected, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("protocol", ["sod", "mirror"])
def test_a_perfect_answer_scores_1_whatever_it_says_where_nothing_counts(protocol):
    mask = np.where(RIM, IGNORED, BODY * 255).astype(np.int16)
    for outside in (0, 77, 255):
        found = measure(np.where(RIM, outside, BODY * 255).astype(np.uint8), mask, ProtocolConfig(name=protocol))
        main = found["iou" if protocol == "mirror" else "s_measure"]
        assert main == pytest.approx(1) and found["mae"] == 0
        assert protocol == "mirror" or found["weighted_f_measure"] == pytest.approx(1)


def test_masks_of_which_all_that_counts_is_object_or_background_have_finite_scores():
    for value in (0, 255):
        mask = np.where(RIM, IGNORED, value).astype(np.int16)
        found = measure(np.full(SHAPE, value, np.uint8), mask, ProtocolConfig(minmax=False))
        assert found["s_measure"] == 1 and all(np.isfinite(v).all() for v in found.values())


def test_classes_leave_pixels_out_too(tmp_path):
    folders = folder_of(tmp_path, lambda: palette(np.where(RIM, 255, INSTANCES), VOC))
    with pytest.raises(
        DataError, match=r"holds 255, but dataset.num_classes=3 allows 0 to 2. To leave pixels out: data"
    ):
        build(folders, num_classes=3)
    truth = build(folders, num_classes=3, ignore=[255]).test.ground_truth(0)
    assert np.array_equal(truth == IGNORED, RIM) and set(np.unique(truth)) == {IGNORED, 0, 1, 2}
    answer = np.where(RIM, 1, truth).astype(np.uint8)
    assert score_classes([("a", answer, truth)], 3).overall["mean_class_iou"] == 1


def test_classes_by_colour(tmp_path):
    folders = folder_of(tmp_path, lambda: colours((INSTANCES == 1) * 255, (INSTANCES == 2) * 255))
    named = {"#000000": 0, "#ff0000": 2, "#00ff00": 1}
    truth = build(folders, num_classes=3, classes=named).test.ground_truth(0)
    assert np.array_equal(truth, np.array([0, 2, 1])[INSTANCES])
    with pytest.raises(DataError, match="holds #00ff00, which dataset.classes and dataset.ignore do not name"):
        build(folders, num_classes=3, classes={"#000000": 0, "#ff0000": 2})
