"""py_sod_metrics as we drive it, against independent arithmetic and against upstream's way of calling it."""

import itertools
import subprocess
import sys
import warnings

import numpy as np
import py_sod_metrics
import pytest
from pydantic import ValidationError

from bench.config.settings import PROTOCOLS, ProtocolConfig
from bench.scoring import protocols
from bench.scoring.metric_types import NotFinite
from bench.scoring.metrics import CLASS_METRICS, MAIN_METRICS, METRICS, OF_PROTOCOL, SHOWN, collect, measure, score

SOD = OF_PROTOCOL["sod"]


def pairs(count=4, size=(20, 26), seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        mask = np.zeros(size, np.uint8)
        y, x = rng.integers(1, 8, size=2)
        mask[y : y + 9, x : x + 10] = 255
        noise = rng.integers(0, 120, size)
        made.append((f"im {i}", np.clip(mask * 0.6 + noise, 0, 255).astype(np.uint8), mask))
    return made


@pytest.mark.parametrize("protocol", OF_PROTOCOL)
def test_every_metric_is_scored_and_described(protocol):
    scores = score(pairs(), ProtocolConfig(name=protocol))
    assert tuple(scores.overall) == OF_PROTOCOL[protocol] == tuple(scores.images)[1:]
    assert all(len(values) == 4 for values in scores.images.values())
    assert set(METRICS) == {metric for metrics in (*OF_PROTOCOL.values(), CLASS_METRICS) for metric in metrics}
    assert all(m.better in ("higher", "lower") and m.source and m.label for m in METRICS.values())


def test_metrics_keep_their_order_in_tables_and_records():
    """Scores of records, columns of leaderboard.csv and colours of figures follow this order."""
    classes = ("mean_class_iou", "mean_class_dice", "pixel_accuracy")
    assert tuple(METRICS) == (
        *("s_measure", "weighted_f_measure", "max_f_measure", "mean_f_measure", "adaptive_f_measure"),
        *("max_e_measure", "mean_e_measure", "mae", "mean_iou", "mean_dice"),
        *("iou", "f_of_means", "ber", "accuracy"),
        *classes,
    )
    assert list(OF_PROTOCOL) == ["sod", "mirror"] and CLASS_METRICS == classes
    assert OF_PROTOCOL["mirror"] == ("iou", "f_of_means", "mae", "ber", "accuracy")
    assert MAIN_METRICS == ("s_measure", "iou", "mean_class_iou")
    assert SHOWN == (
        *("s_measure", "weighted_f_measure", "max_f_measure", "mean_e_measure"),
        *("iou", "f_of_means", "mae", "mean_iou", "ber", "accuracy"),
        *classes,
    )
    for shared in (*OF_PROTOCOL.values(), CLASS_METRICS):
        assert [m for m in SHOWN if m in shared] == [m for m in shared if m in SHOWN]


def test_protocols_describe_a_metric_that_they_share_alike():
    for name in PROTOCOLS.names():
        for metric, described in PROTOCOLS.module(name).METRICS.items():
            assert METRICS[metric] is described


def test_a_protocol_is_one_file(tmp_path, monkeypatch):
    """A file in the folder is accepted by a configuration, scores, and describes its metrics."""
    (tmp_path / "dark.py").write_text(DARK)
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(tmp_path)])
    monkeypatch.setattr(PROTOCOLS, "_names", [*PROTOCOLS.names(), "dark"])
    scores = score(pairs(), ProtocolConfig(name="dark"))
    assert scores.overall == {"darkness": pytest.approx(np.mean([1 - p.mean() / 255 for _, p, _ in pairs()]))}
    assert list(scores.images) == ["name", "darkness"]
    with pytest.raises(ValidationError, match="unknown protocol 'drk'. Did you mean 'dark'"):
        ProtocolConfig(name="drk")


def test_commands_that_score_nothing_do_not_import_py_sod_metrics():
    code = "import sys, bench.run, bench.scoring.metrics; sys.exit('py_sod_metrics.sod_metrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


DARK = """
from bench.scoring.metric_types import Metric

METRICS = {"darkness": Metric("dark", "higher", "this test")}
OBJECT_ABOVE = 128


def measure(prediction, mask, minmax):
    return {"darkness": 1 - prediction.mean() / 255}


def of_images(measured):
    return measured


def of_set(measured):
    return {}
"""


def test_equals_upstreams_eval_py():
    """WZH0120/SAM3-UNet fdb21da, eval.py: the same objects stepped and read as there."""
    gray = {"with_adaptive": True, "with_dynamic": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old_f = py_sod_metrics.Fmeasure()
    wfm, sm, em, mae = (
        py_sod_metrics.WeightedFmeasure(),
        py_sod_metrics.Smeasure(),
        py_sod_metrics.Emeasure(),
        py_sod_metrics.MAE(),
    )
    v2 = py_sod_metrics.FmeasureV2(
        {
            "fm": py_sod_metrics.FmeasureHandler(**gray, beta=0.3),
            "iou": py_sod_metrics.IOUHandler(**gray),
            "dice": py_sod_metrics.DICEHandler(**gray),
        }
    )
    for _, prediction, mask in pairs():
        for metric in (old_f, wfm, sm, em, mae, v2):
            metric.step(pred=prediction, gt=mask)
    read = v2.get_results()
    curve = em.get_results()["em"]["curve"]
    expected = {
        "mean_dice": read["dice"]["dynamic"].mean(),
        "mean_iou": read["iou"]["dynamic"].mean(),
        "s_measure": sm.get_results()["sm"],
        "weighted_f_measure": wfm.get_results()["wfm"],
        "adaptive_f_measure": old_f.get_results()["fm"]["adp"],
        "mean_f_measure": read["fm"]["dynamic"].mean(),
        "max_f_measure": read["fm"]["dynamic"].max(),
        "mean_e_measure": curve.mean(),
        "max_e_measure": curve.max(),
        "mae": mae.get_results()["mae"],
    }
    assert score(pairs()).overall == pytest.approx(expected, abs=1e-12)


def test_against_plain_arithmetic():
    """MAE, IoU, Dice and F of one image, computed from their definitions."""
    ((_, prediction, mask),) = made = pairs(1)
    stretched = prediction / 255
    stretched = (stretched - stretched.min()) / (stretched.max() - stretched.min())
    truth = mask > 128
    ious, dices, fs = [], [], []
    for threshold in range(256):
        chosen = (stretched * 255).astype(np.uint8) >= threshold
        both = (chosen & truth).sum()
        ious.append(both / (chosen | truth).sum())
        dices.append(2 * both / (chosen.sum() + truth.sum()))
        precision, recall = both / max(chosen.sum(), 1), both / truth.sum()
        fs.append(1.3 * precision * recall / (0.3 * precision + recall) if both else 0)
    got = score(made).overall
    assert got["mae"] == pytest.approx(np.abs(stretched - truth).mean())
    assert got["mean_iou"] == pytest.approx(np.mean(ious))
    assert got["mean_dice"] == pytest.approx(np.mean(dices))
    assert got["max_f_measure"] == pytest.approx(max(fs))
    assert got["mean_f_measure"] == pytest.approx(np.mean(fs))


def test_perfect_and_inverted_predictions():
    masks = [(name, mask, mask) for name, _, mask in pairs()]
    perfect = score(masks).overall
    assert perfect["mae"] == 0 and perfect["s_measure"] == pytest.approx(1, abs=1e-6)
    inverted = score([(name, 255 - mask, mask) for name, mask, _ in masks]).overall
    for name in SOD:
        metric = METRICS[name]
        better = perfect[name] > inverted[name] if metric.better == "higher" else perfect[name] < inverted[name]
        assert better, name


def test_maxima_are_of_the_mean_curve_not_means_of_maxima():
    scores = score(pairs(6))
    assert scores.overall["max_f_measure"] <= np.mean(scores.images["max_f_measure"]) + 1e-12
    assert scores.overall["mae"] == pytest.approx(np.mean(scores.images["mae"]))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        score([])


@pytest.mark.parametrize("protocol", OF_PROTOCOL)
def test_metrics_that_are_means_of_images_are_marked_so(protocol):
    """Only those may be resampled by image."""
    rng = np.random.default_rng(0)
    noisy = [(name, rng.integers(0, 256, p.shape, dtype=np.uint8) // 2 + p // 3, m) for name, p, m in pairs(6)]
    scores = score(noisy, ProtocolConfig(name=protocol))
    for metric in OF_PROTOCOL[protocol]:
        same = scores.overall[metric] == pytest.approx(np.mean(scores.images[metric]), abs=1e-12)
        assert same == METRICS[metric].mean_of_images, metric


def test_without_minmax_a_faint_map_stays_faint():
    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 255
    faint = np.full((10, 10), 20, np.uint8)
    faint[0, 0] = 0
    stretched, plain = (score([("a", faint, mask)], ProtocolConfig(minmax=m)).overall["mae"] for m in (True, False))
    assert stretched == pytest.approx(51 / 100) and plain == pytest.approx(np.abs(faint / 255 - mask / 255).mean())


@pytest.mark.parametrize("protocol", OF_PROTOCOL)
def test_unquantised_maps_are_scored_nearly_alike(protocol):
    config = ProtocolConfig(name=protocol, quantise="none")
    exact = score([(name, (p / 255).astype(np.float32), m) for name, p, m in pairs()], config).overall
    assert exact == pytest.approx(score(pairs(), ProtocolConfig(name=protocol)).overall, abs=2e-3)


# --- masks at the edge ------------------------------------------------------------------------------------------------


def structure_measure(prediction, truth):
    """S by Fan et al., ICCV 2017, in plain loops; quarters without pixels are left out. Both [H, W], 0..1 and bool."""
    area = truth.size
    if truth.all() or not truth.any():
        return prediction.mean() if truth.all() else 1 - prediction.mean()

    def object_part(values):
        deviation = values.std(ddof=1) if len(values) > 1 else 0
        return 2 * values.mean() / (values.mean() ** 2 + 1 + deviation)

    share = truth.mean()
    of_object = share * object_part(prediction[truth]) + (1 - share) * object_part(1 - prediction[~truth])
    rows, columns = np.nonzero(truth)
    row, column = int(np.round(rows.mean())) + 1, int(np.round(columns.mean())) + 1
    of_region = 0.0
    for part in (np.s_[:row, :column], np.s_[:row, column:], np.s_[row:, :column], np.s_[row:, column:]):
        x, y = prediction[part].ravel(), truth[part].ravel().astype(float)
        if not len(x):
            continue
        less_one = len(x) - 1 + np.spacing(1)
        both = ((x - x.mean()) * (y - y.mean())).sum() / less_one
        spread = ((x - x.mean()) ** 2).sum() / less_one + ((y - y.mean()) ** 2).sum() / less_one
        upper, lower = 4 * x.mean() * y.mean() * both, (x.mean() ** 2 + y.mean() ** 2) * spread
        of_region += len(x) / area * (upper / (lower + np.spacing(1)) if upper else float(lower == 0))
    return max(0.0, 0.5 * of_object + 0.5 * of_region)


EDGES = {
    "last row": np.s_[-1, 2:5],
    "last column": np.s_[2:5, -1],
    "last corner": np.s_[-1, -1],
    "first corner": np.s_[0, 0],
    "middle": np.s_[2:4, 3:6],
}


@pytest.mark.parametrize("place", EDGES)
@pytest.mark.parametrize("shape", [(7, 9), (7, 1), (1, 9), (2, 1)])
def test_s_of_objects_at_any_edge_is_the_papers_formula(place, shape):
    truth = np.zeros((7, 9), bool)
    truth[EDGES[place]] = True
    truth = truth[-shape[0] :, -shape[1] :]
    mask = np.where(truth, 255, 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    for prediction in (mask, 255 - mask, rng.integers(0, 256, shape).astype(np.uint8)):
        found = measure(prediction, mask, ProtocolConfig(minmax=False))["s_measure"]
        assert found == pytest.approx(structure_measure(prediction / 255, truth), abs=1e-9)


def every_mask(shape):
    """All masks of a shape of up to six pixels, some of a larger one."""
    count = shape[0] * shape[1]
    rng = np.random.default_rng(0)
    bits = itertools.product([0, 255], repeat=count) if count <= 6 else rng.choice([0, 255], (60, count))
    return [np.array(one, np.uint8).reshape(shape) for one in bits]


@pytest.mark.parametrize("protocol", OF_PROTOCOL)
@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (3, 1), (2, 2), (2, 3), (3, 4)])
def test_every_score_of_every_small_mask_is_finite_and_in_range(protocol, shape):
    rng = np.random.default_rng(1)
    most = shape[0] * shape[1] / (shape[0] * shape[1] - 1)  # of E, whose sum is divided by the pixels less one
    for mask, minmax in itertools.product(every_mask(shape), (True, False)):
        noise = rng.integers(0, 256, shape).astype(np.uint8)
        for prediction in (mask, 255 - mask, np.zeros_like(mask), np.full_like(mask, 255), noise):
            for name, value in measure(prediction, mask, ProtocolConfig(name=protocol, minmax=minmax)).items():
                assert np.isfinite(value).all(), (name, mask, prediction)
                assert np.min(value) >= -1e-9 and np.max(value) <= (most if name == "e_curve" else 1) + 1e-9


def test_a_score_that_is_no_number_names_the_image_and_the_metric():
    sound = measure(np.eye(4, dtype=np.uint8) * 255, np.eye(4, dtype=np.uint8) * 255, ProtocolConfig())
    broken = {**sound, "e_curve": np.full(256, np.inf)}
    with pytest.raises(NotFinite, match="b: e_curve of this image is not a finite number"):
        collect(["a", "b"], [sound, broken], ProtocolConfig())
