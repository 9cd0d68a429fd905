"""Sample predictions: their selection, their content, and their small size."""

import io
import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.datasets import Split
from bench.scoring.sample_predictions import (
    EACH,
    LONG_SIDE,
    SHARED,
    choose,
    load_samples,
    palette,
    take,
    thumbnail_size,
)
from bench.trial import run_trial

KEPT_BYTES = 300_000


def opened(content):
    return Image.open(io.BytesIO(content))


def split_of(count, shape=(300, 200), classes=1, seed=0):
    """A split of coloured noise whose masks are rectangles, or stripes of classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    truth = np.zeros((count, *shape), np.uint8)
    for i in range(count):
        truth[i, : shape[0] // 2, : 10 + 5 * i] = 255 if classes == 1 else i % classes
    masks = np.zeros((count, 64, 64), np.uint8)
    names = tuple(f"image {i:03d}" for i in range(count))
    return Split(images, masks, np.arange(count), names, lambda i: truth[i])


def answering(split, answer):
    """Stands in for a model, and remembers what it was asked."""
    asked = []

    def predict(few):
        for i, name in enumerate(few.names):
            asked.append(name)
            yield name, answer(few.ground_truth(i)), few.ground_truth(i)

    return predict, asked


def test_best_median_and_worst_are_those_of_the_scores():
    values = [0.5, 0.9, 0.1, 0.8, 0.2, 0.4, 0.6]  # in order: 1 3 6 0 5 4 2
    found = choose([f"n{i}" for i in range(7)], values, "higher")
    by_reason = {r: {i for i, why in found.items() if r in why} for r in ("best", "median", "worst")}
    assert by_reason == {"best": {1, 3}, "median": {6, 0}, "worst": {4, 2}}
    turned = choose([f"n{i}" for i in range(7)], values, "lower")
    assert {i for i, why in turned.items() if "best" in why} == {4, 2}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.randoms())
def test_the_shared_images_depend_on_names_alone(values, random):
    names = [f"photo {i}" for i in range(len(values))]
    again = list(values)
    random.shuffle(again)
    shared = [{i for i, why in choose(names, v, "higher").items() if "shared" in why} for v in (values, again)]
    assert shared[0] == shared[1] and len(shared[0]) == min(SHARED, len(values))
    assert len(choose(names, values, "higher")) <= 3 * EACH + SHARED


def test_what_is_no_number_is_neither_best_nor_worst():
    found = choose(["a", "b", "c"], [float("nan"), 0.2, 0.7], "higher")
    assert found[0] == ("shared",) and "worst" in found[1] and "best" in found[2]


def test_only_the_chosen_images_are_predicted_again():
    split = split_of(200)
    predict, asked = answering(split, lambda mask: 255 - mask)
    scores = {"name": list(split.names), "s_measure": list(np.linspace(0, 1, 200))}
    columns = take(split, scores, predict)
    assert asked == columns["name"] == sorted(asked) and len(asked) <= 3 * EACH + SHARED
    assert {"image 199", "image 198", "image 099", "image 100", "image 000", "image 001"} <= set(asked)
    for name, score, mask, prediction in zip(*(columns[c] for c in ("name", "score", "mask", "prediction"))):
        assert score == scores["s_measure"][split.names.index(name)]
        assert opened(mask).size == opened(prediction).size == (107, 160) and opened(mask).mode == "L"
        drawn = np.asarray(opened(mask)).astype(int)
        assert np.abs(255 - drawn - np.asarray(opened(prediction))).max() <= 1
        assert (drawn[:79, :5] == 255).all() and not drawn[81:].any()


def test_a_part_of_a_split_shows_its_own_images():
    whole = split_of(30)
    part = replace(whole, indices=np.arange(10, 30, 2), names=whole.names[10:30:2])
    predict, _ = answering(part, lambda mask: mask)
    columns = take(part, {"name": list(part.names), "iou": list(np.linspace(0, 1, 10))}, predict)
    for name, image, mask, prediction in zip(*(columns[c] for c in ("name", "image", "mask", "prediction"))):
        number = int(name.split()[1])
        wanted = np.asarray(Image.fromarray(whole.images[number]).resize((107, 160), Image.Resampling.LANCZOS))
        assert np.abs(np.asarray(opened(image)).astype(int) - wanted).mean() < 40  # JPEG of noise
        assert mask == prediction


def test_float_maps_become_grey():
    split = split_of(3)
    predict, _ = answering(split, lambda mask: np.full(mask.shape, 0.5, np.float32))
    columns = take(split, {"name": list(split.names), "s_measure": [0.1, 0.2, 0.3]}, predict)
    assert {int(v) for p in columns["prediction"] for v in np.unique(np.asarray(opened(p)))} == {128}


def test_classes_keep_their_numbers_and_get_colours():
    split = split_of(4, classes=4)
    predict, _ = answering(split, lambda mask: mask)
    columns = take(split, {"name": list(split.names), "mean_class_iou": [0.1, 0.2, 0.3, 0.4]}, predict, num_classes=4)
    pictures = [opened(p) for p in columns["prediction"]]
    assert all(p.mode == "P" for p in pictures)
    assert {int(v) for p in pictures for v in np.unique(np.asarray(p))} == {0, 1, 2, 3}
    assert pictures[1].convert("RGB").getpixel((0, 0)) == (128, 0, 0)


def test_the_palette_is_that_of_pascal_voc():
    colours = np.array(list(palette(22))).reshape(-1, 3).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]] and colours[15] == [192, 128, 128]
    assert len({tuple(c) for c in np.array(list(palette(256))).reshape(-1, 3).tolist()}) == 256


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_thumbnails_are_small_and_never_empty(height, width):
    wide, high = thumbnail_size((height, width))
    assert 1 <= wide <= min(LONG_SIDE, width) and 1 <= high <= min(LONG_SIDE, height)


def test_samples_of_large_noisy_images_stay_small():
    split = split_of(200, shape=(700, 700))
    rng = np.random.default_rng(0)
    predict, _ = answering(split, lambda mask: rng.integers(0, 256, mask.shape, dtype=np.uint8))
    columns = take(split, {"name": list(split.names), "s_measure": list(np.linspace(0, 1, 200))}, predict)
    assert sum(len(b) for c in ("image", "mask", "prediction") for b in columns[c]) < KEPT_BYTES * 1.5  # of noise


def test_a_trial_keeps_samples_beside_its_record(tiny, tmp_path):
    record = run_trial(tiny)
    record.save(tmp_path)
    samples = load_samples(tmp_path, tiny.trial_id)
    assert [s.name for s in samples] == record.image_scores["name"]
    assert [s.score for s in samples] == record.image_scores["s_measure"]
    assert all(s.metric == "s_measure" and "shared" in s.why and opened(s.image).size == (32, 32) for s in samples)
    assert "samples" not in json.loads((tmp_path / f"{tiny.trial_id}.json").read_text())
    assert (tmp_path / f"{tiny.trial_id}.samples.parquet").stat().st_size < KEPT_BYTES
    assert load_samples(tmp_path, "no such trial") == []


def test_unquantised_maps_are_kept_too(tiny_with, tmp_path):
    record = run_trial(tiny_with({"protocol.quantise": "none"}))
    assert record.status == "ok" and opened(record.samples["prediction"][0]).mode == "L"
