"""The mirror protocol against HetNet's formulas written out in loops, and its rule where they divide by nothing."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.config.settings import ProtocolConfig
from bench.scoring.metrics import score
from bench.scoring.protocols import mirror

MIRROR = ProtocolConfig(name="mirror")
MAPS = arrays(np.uint8, (6, 7), elements=st.integers(0, 255))


def by_hand(prediction, mask):
    """Catherine-R-He/HetNet 21d9541, misc.py, pixel by pixel; ``None`` where it divides nothing by nothing."""
    low, high = int(prediction.min()), int(prediction.max())
    tp = fp = fn = tn = 0
    error = 0.0
    levels = []
    for p, m in zip(prediction.ravel().tolist(), mask.ravel().tolist()):
        truth, found = m == 255, p >= 127.5
        tp, fp = tp + (truth and found), fp + (found and not truth)
        fn, tn = fn + (truth and not found), tn + (not truth and not found)
        stretched = np.float32(p - low) / np.float32(high - low)
        error += abs(float(stretched) - truth)
        levels.append((int(np.float32(255) * stretched), truth))
    precisions, recalls = [], []
    for threshold in range(256):
        chosen = [truth for level, truth in levels if level > threshold]
        precisions.append((sum(chosen) + 1e-4) / (len(chosen) + 1e-4))
        recalls.append((sum(chosen) + 1e-4) / (tp + fn + 1e-4))
    return {
        "iou": tp / (tp + fp + fn) if tp + fp + fn else None,
        "ber": 1 - (tp / (tp + fn) + tn / (tn + fp)) / 2 if tp + fn and tn + fp else None,
        "accuracy": tp / (tp + fn) if tp + fn else None,
        "mae": error / mask.size,
        "precisions": precisions,
        "recalls": recalls,
    }


@settings(max_examples=examples(60), deadline=None)
@given(MAPS, arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 90, 254, 255])))
def test_equals_the_formulas_wherever_they_are_defined(prediction, mask):
    if prediction.min() == prediction.max():
        prediction = prediction.copy()
        prediction[0, 0] ^= 255
    got = mirror.measure(prediction, mask, minmax=True)
    for name, expected in by_hand(prediction, mask).items():
        if expected is not None:
            assert got[name] == pytest.approx(expected, abs=1e-6), name


def test_f_is_of_mean_precision_and_mean_recall_not_a_mean_of_f():
    rng = np.random.default_rng(1)
    triples = [(str(i), *(rng.integers(0, 2, (2, 8, 8)) * 255).astype(np.uint8)) for i in range(5)]
    images = [by_hand(p, m) for _, p, m in triples]
    precision, recall = (np.mean([image[k] for image in images], axis=0) for k in ("precisions", "recalls"))
    expected = (1.3 * precision * recall / (0.3 * precision + recall)).max()
    assert score(triples, MIRROR).overall["f_of_means"] == pytest.approx(expected)


def test_254_is_background_and_127_is_not_found():
    mask = np.array([[255, 254]], np.uint8)
    assert mirror.measure(np.array([[128, 0]], np.uint8), mask, True)["iou"] == 1
    assert mirror.measure(np.array([[127, 0]], np.uint8), mask, True)["iou"] == 0


def test_nothing_out_of_nothing_is_one():
    """HetNet prints NaN for the whole set as soon as one mask is empty and nothing is found in it."""
    empty, full = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    dot = empty.copy()
    dot[0, 0] = 255
    right = score([("a", empty, empty)], MIRROR).overall
    assert (right["iou"], right["ber"], right["accuracy"], right["mae"]) == (1, 0, 1, 0)
    wrong = score([("a", dot, empty)], MIRROR).overall
    assert wrong["iou"] == 0 and wrong["ber"] == pytest.approx(1 / 32) and wrong["mae"] == pytest.approx(1 / 16)
    assert score([("a", full, full)], MIRROR).overall["mae"] == 0  # one value: not stretched to NaN
    mixed = score([("a", empty, empty), ("b", dot, dot)], MIRROR).overall
    assert all(np.isfinite(value) for value in mixed.values())
