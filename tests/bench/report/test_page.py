"""The page as a file: the same bytes every time, nothing that can break out, small, readable, and honest in words."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from itertools import product

import numpy as np
import pytest
from synthetic import HOSTILE, IMAGES, synthetic

from bench.config.row_names import row_name
from bench.records.tables import write_table
from bench.report import page
from bench.report.page import answer
from bench.report.page.content import content
from bench.report.page.pictures import samples

POLICY = re.compile(r'Content-Security-Policy" content="([^"]*)"')
ELEMENT = re.compile(r"<script([^>]*)>(.*?)</script>", re.DOTALL)


def data_of(text):
    return json.loads(next(body for attributes, body in ELEMENT.findall(text) if 'id="data"' in attributes))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Four rows with three seeds each, with everything a folder can hold."""
    return synthetic(4, (0, 1, 2), hostile=True, folder=tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def text(few):
    return page.html(few, few.board())


def test_the_same_results_give_the_same_bytes(few, text):
    shuffled = replace(
        few,
        records=dict(sorted(few.records.items(), reverse=True)),
        images=dict(sorted(few.images.items(), reverse=True)),
        folders=dict(sorted(few.folders.items(), reverse=True)),
    )
    assert page.html(few, few.board()) == text == page.html(shuffled, shuffled.board())


def test_no_text_of_a_user_is_markup(text):
    """Four script elements, whatever stands in labels, errors and names; and the data come back as they were."""
    assert [attributes for attributes, _ in ELEMENT.findall(text)] == [
        ' type="application/json" id="data"',
        ' type="text/plain" id="plotly"',
        "",
    ]
    assert "<img" not in text and "window.hacked" in text  # the page itself has no picture, the data have the attempt
    data = data_of(text)
    assert HOSTILE in data["question"] and HOSTILE in data["axes"][0]["labels"]
    assert any(HOSTILE in name for name in data["imageNames"][0])


def test_the_policy_allows_the_two_scripts_and_nothing_else(text):
    policy = dict(part.strip().split(" ", 1) for part in POLICY.search(text)[1].split(";"))
    allowed = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    scripts = policy.pop("script-src").split()
    assert policy == allowed
    packed, own = (body for attributes, body in ELEMENT.findall(text) if "data" not in attributes)
    plotly = gzip.decompress(base64.b64decode(packed))
    digests = [base64.b64encode(hashlib.sha256(t).digest()).decode() for t in (own.encode(), plotly)]
    assert scripts == [f"'sha256-{d}'" for d in digests]


def test_nothing_is_fetched_from_elsewhere(text):
    markup = ELEMENT.sub("", text)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", markup) and "@import" not in markup and "url(" not in markup
    own = ELEMENT.findall(text)[-1][1]
    assert "http" not in own and "innerHTML" not in own and "eval(" not in own and "document.write" not in own


def test_every_row_trial_and_number_is_there(few, text):
    data, board = data_of(text), few.board()
    assert list(data["trials"]) == [t.trial_id for t in few.trials]
    assert [len(t["rows"]) for t in data["tables"]] == [len(t.rows) for t in board.tables]
    keys = [c["key"] for c in data["columns"]]
    assert set(keys) == {key for table in board.tables for row in table.rows for key in row.cells}
    for table, shown in zip(board.tables, data["tables"]):
        for row, line in zip(table.rows, shown["rows"]):
            assert line["labels"] == list(row.labels) and line["front"] == row.on_front
            for key, cell in zip(keys, line["cells"]):
                assert (cell is None) == (key not in row.cells)
                assert cell is None or cell[0] == pytest.approx(row.cells[key].mean, rel=1e-6)
    trial = few.trials[0]
    found = data["trials"][trial.trial_id]
    levels = np.frombuffer(base64.b64decode(found["images"]), "<u2") / 65534
    assert np.abs(levels - few.images[trial.trial_id]["s_measure"]).max() < 1e-5
    assert len(found["curve"]) == 4 and found["memory"]["phases"]["training"][0] == [0.0, 1024.0]
    assert data["files"]["leaderboard.csv"].startswith("sweep,profile,embedded")


def test_what_differs_from_the_base_is_said(few, text):
    data = data_of(text)
    for trial in few.trials:
        changed = {path: after for path, _, after in data["trials"][trial.trial_id]["changes"]}
        config, base = trial.config, few.sweep.base
        expected = {}
        if config.model.adapter.rank != base.model.adapter.rank:
            expected["model.adapter.rank"] = str(config.model.adapter.rank)
        if config.model.decoder.width != base.model.decoder.width:
            expected["model.decoder.width"] = str(config.model.decoder.width)
        if trial.seed != base.seed:
            expected["seed"] = str(trial.seed)
        assert changed == expected


def test_a_hundred_trials_with_samples_stay_below_the_limit(tmp_path):
    """Samples as large as they may be: what does not fit is left out and counted, the shared images last."""
    results = synthetic(20, (0, 1, 2, 3, 4))
    rng = np.random.default_rng(0)
    for number, trial_id in enumerate(results.records):
        noise = [rng.bytes(7000) for _ in range(12)]
        columns = {
            "name": [f"image {i:03d}" for i in range(12)],
            "why": [["shared"]] * 6 + [["best"]] * 2 + [["median"]] * 2 + [["worst"]] * 2,
            "metric": ["s_measure"] * 12,
            "score": [0.5] * 12,
            "image": [b"\xff\xd8\xff" + bytes([i]) * 5000 for i in range(12)],
            "mask": [b"\x89PNG" + bytes([i]) * 900 for i in range(12)],
            "prediction": noise,
        }
        write_table(columns, tmp_path / f"{trial_id}.samples.parquet")
    results = replace(results, folders={i: tmp_path for i in results.records})
    text = page.html(results, results.board())
    assert len(results.trials) == 100 and 7_000_000 < len(text.encode()) < 8_000_000
    data = data_of(text)
    kept = [sample for shown in data["samples"].values() for sample in shown]
    assert data["samplesLeftOut"] == 12 * len(results.records) - len(kept) > 0
    assert len({s["pictures"][0] for s in kept}) <= 12  # images of all trials once each
    counts = [sum("shared" in s["why"] for s in shown) for shown in data["samples"].values()]
    assert max(counts) - min(counts) <= 1


def test_old_records_have_no_samples(few, tmp_path):
    nowhere = replace(few, folders={i: tmp_path for i in few.folders})
    assert samples(nowhere, 10**6) == {"samples": {}, "pictures": [], "samplesLeftOut": 0}
    assert content(nowhere, nowhere.board())["trials"][few.trials[0].trial_id]["memory"] is None


def test_scores_of_many_images_are_left_out_and_counted(few):
    names = [f"n{i}" for i in range(200_000)]
    scores = {"name": names, "s_measure": [0.5] * len(names)}
    images = {t.trial_id: scores for t in few.trials if t.trial_id in few.images}
    board = replace(few, images={}).board()
    data = content(replace(few, images=images), board)
    with_images = [t for t in data["trials"].values() if "images" in t]
    assert len(with_images) == 3 and data["imagesLeftOut"] == len(images) - 3


def test_nothing_is_known_yet():
    """A sweep without a single record: the page says that it runs."""
    results = replace(synthetic(4, (0, 1)), records={}, images={}, folders={}, absent={})
    data = data_of(page.html(results, results.board()))
    assert (data["done"], data["pending"], data["total"]) == (0, 8, 8) and data["columns"] == []
    assert data["tables"][0]["verdict"] == ["No answer yet.", "No row has a score."]


# --- the answer in words ----------------------------------------------------------------------------------------------


def answer_of(results):
    board = results.board()
    return answer.verdict(board.tables[0], board.axes)


def with_levels(levels, seeds=(0, 1, 2, 3, 4), noise=0.002):
    """Rows at these levels of S, the same hardness of every image, some noise of seeds."""
    results = synthetic(2 * len(levels), seeds)
    results = replace(results, sweep=results.sweep._replace(axes=results.sweep.axes[:1]), absent={})
    trials = [t for t in results.trials if t.point[1] == "8"]
    rng = np.random.default_rng(3)
    images, records = {}, {}
    hard = rng.normal(0, 0.05, IMAGES)
    for number, trial in enumerate(trials):
        values = levels[number // len(seeds)] + hard + rng.normal(0, noise) + rng.normal(0, 0.001, IMAGES)
        images[trial.trial_id] = {"name": [str(i) for i in range(IMAGES)], "s_measure": values.tolist()}
        record = next(iter(results.records.values()))
        scores = {"s_measure": float(values.mean())}
        records[trial.trial_id] = record.model_copy(update={"trial_id": trial.trial_id, "scores": scores})
    trials = [replace(t, point=t.point[:1]) for t in trials]
    return replace(results, trials=trials, records=records, images=images, folders={})


def test_a_clear_winner_is_named():
    words, text = answer_of(with_levels([0.5, 0.6, 0.9]))
    assert words == "Resolved." and "3 has the best S, 0.8989, and is better than all 2 other rows" in text


def test_a_tie_with_the_best_is_said():
    words, text = answer_of(with_levels([0.5, 0.9, 0.9005]))
    assert words == "Partly resolved." and "is better than 1 of 2 other rows (rank 1)" in text and "within 0.01" in text


def test_noise_is_not_an_answer():
    words, text = answer_of(with_levels([0.70, 0.70, 0.70], noise=0.03))
    assert words == "Not resolved." and "not resolved from any other row" in text and "95 % interval" in text


def test_all_or_only_some_rows_are_equivalent():
    table = with_levels([0.70, 0.7001, 0.7002]).board().tables[0]
    assert answer.verdict(table, ("rank",))[0] == "Equivalent."
    pairs = list(table.answer.comparisons)
    best = max(table.rows, key=lambda row: row.cells["test.s_measure"].mean)
    of_best = [i for i, pair in enumerate(pairs) if table.rows.index(best) in (pair.first, pair.second)]
    pairs[of_best[0]] = replace(pairs[of_best[0]], low=-0.02, high=0.02)  # wider than the margin
    partly = replace(table, answer=replace(table.answer, comparisons=tuple(pairs)))
    assert answer.verdict(partly, ("rank",))[0] == "Partly equivalent."


def test_one_seed_decides_nothing():
    words, text = answer_of(with_levels([0.5, 0.9], seeds=(0,)))
    assert words == "Not tested." and "no two rows have two seeds in common" in text


def test_rows_are_named_by_their_axes():
    names = row_name(["64", "none", "LoRA"], ["model.adapter.rank", "model.adapter.name", "variant"])
    assert names == "rank 64, adapter none, LoRA"
    assert row_name(["eager", "true"], ["train.compile", "train.tf32"]) == "eager, tf32 true"


# --- colours ----------------------------------------------------------------------------------------------------------

TEXTS = [
    *product(("ink", "muted", "accent"), ("paper", "raised")),
    *product(("ink", "muted"), ("best",)),
    *product(("bad", "good"), ("paper", "raised")),
    ("on-accent", "accent"),
    ("warn-ink", "warn-paper"),
]


def palettes():
    """Colours by name: light, dark by the system's choice, dark by the reader's."""
    css = (files("bench.report.page") / "page.css").read_text()
    blocks = [re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block) for block in re.findall(r"\{([^{}]*)\}", css)]
    return [dict(block) for block in blocks if block]


def contrast(a, b):
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_texts_meets_wcag_aa():
    light, system, chosen = palettes()
    assert system == chosen and light.keys() == system.keys()
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    low = {(a, b): contrast(p[a], p[b]) for p in (light, chosen) for a, b in TEXTS if contrast(p[a], p[b]) < 4.5}
    assert low == {}


def test_contrast_of_marks_and_borders_meets_wcag_aa():
    light, _, chosen = palettes()
    script = (files("bench.report.page") / "plots.js").read_text()
    marks = re.findall(r'"(#[0-9a-f]{6})"', re.search(r"PALETTE = \[(.*?)\]", script)[1])
    assert len(marks) == len(set(marks)) == 8
    low = {(m, p["paper"]) for p in (light, chosen) for m in (*marks, p["muted"]) if contrast(m, p["paper"]) < 3}
    assert low == set()
