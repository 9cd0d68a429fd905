"""Scores of classes against plain arithmetic on sets of pixels."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scoring.classes import score_classes
from bench.scoring.metrics import CLASS_METRICS, MAIN_METRICS, METRICS


def triples(seed, count=3, classes=4, size=(6, 9)):
    rng = np.random.default_rng(seed)
    draw = lambda: rng.integers(0, rng.integers(1, classes + 1), size).astype(np.uint8)  # noqa: E731
    return [(f"im {i}", draw(), draw()) for i in range(count)]


@settings(max_examples=examples(50), deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6))
def test_equals_counting_pixels_in_sets(seed, classes):
    made = triples(seed, classes=classes)
    got = score_classes(made, classes).overall
    pixels = [(i, y, x) for i, (_, p, _) in enumerate(made) for y, x in np.ndindex(p.shape)]
    ious, dices = {}, {}
    for c in range(classes):
        predicted = {q for q in pixels if made[q[0]][1][q[1:]] == c}
        true = {q for q in pixels if made[q[0]][2][q[1:]] == c}
        if predicted | true:
            ious[c] = len(predicted & true) / len(predicted | true)
            dices[c] = 2 * len(predicted & true) / (len(predicted) + len(true))
    expected = {f"class_iou_{c}": v for c, v in ious.items()} | {f"class_dice_{c}": v for c, v in dices.items()}
    expected["mean_class_iou"] = np.mean(list(ious.values()))
    expected["mean_class_dice"] = np.mean(list(dices.values()))
    expected["pixel_accuracy"] = np.mean([made[i][1][y, x] == made[i][2][y, x] for i, y, x in pixels])
    assert got == pytest.approx(expected)


def test_images_are_scored_each_by_itself():
    made = triples(3)
    images = score_classes(made, 4).images
    assert images["name"] == ["im 0", "im 1", "im 2"] and set(images) == {"name", *CLASS_METRICS}
    for i, triple in enumerate(made):
        alone = score_classes([triple], 4).overall
        assert all(images[m][i] == pytest.approx(alone[m]) for m in CLASS_METRICS)


def test_perfect_is_one_and_a_class_that_occurs_nowhere_counts_nowhere():
    mask = np.array([[0, 2], [2, 0]], np.uint8)
    overall = score_classes([("a", mask, mask)], 5).overall
    assert all(value == 1 for value in overall.values())
    assert {m for m in overall if m.startswith("class_iou")} == {"class_iou_0", "class_iou_2"}


def test_metrics_are_described_and_the_main_ones_exist():
    assert all(METRICS[m].better == "higher" and not METRICS[m].mean_of_images for m in CLASS_METRICS)
    assert "mean_class_iou" in MAIN_METRICS


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        score_classes([], 3)
