"""The page before and without plotly: its scripts run under node, and every plot is a picture at once."""

import base64
import gzip
import importlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic import HOSTILE, synthetic
from test_page import ELEMENT, with_levels

from bench.config.ask import AskConfig
from bench.report import page
from bench.report.tables import as_csv

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
HARNESS = Path(__file__).parents[2] / "page_in_node.js"


@pytest.fixture
def shown(tmp_path):
    """``shown(results, address)`` is the page's main element as a tree."""

    def run(results, address=""):
        elements = ELEMENT.findall(page.html(results, results.board()))
        (tmp_path / "data.json").write_text(elements[0][1], encoding="utf-8")
        (tmp_path / "page.js").write_text(elements[-1][1], encoding="utf-8")
        command = [NODE, HARNESS, tmp_path / "page.js", tmp_path / "data.json", address]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert not done.stderr
        return ElementTree.fromstring(done.stdout)

    return run


def by_class(tree, name):
    return [element for element in tree.iter() if name in element.get("class", "").split()]


def words(element):
    return "".join(element.itertext())


def test_the_first_screen_has_the_answer_a_figure_and_a_table_of_five_columns(shown):
    results = with_levels([0.7, 0.8, 0.75])
    answer = next(element for element in shown(results).iter("section") if element.get("id") == "answer")
    lead, first = list(answer)[:2]
    assert "Resolved." in words(lead) and first.get("class") == "first"
    figure, table = list(first)
    circles = list(figure.iter("circle"))
    assert len(circles) == 3 + 3 * 5 + 2  # means, seeds, and the legend
    assert len(list(table.iter("th"))) == 5 + 3  # titles, and the names of the rows
    names = [words(row[0]) for row in table.find(".//tbody")]
    assert names == ["rank 2", "rank 3", "rank 1"]  # the best first


def test_rows_of_a_trend_stand_in_the_order_of_its_axis(shown):
    results = with_levels([0.7, 0.8, 0.75])
    results = replace(results, sweep=results.sweep._replace(ask=AskConfig(name="trend")))
    first = by_class(shown(results), "first")[0]
    assert [words(row[0]) for row in first.find(".//tbody")] == ["rank 1", "rank 2", "rank 3"]
    places = [float(circle.get("cx")) for circle in first.iter("circle")][:3]
    assert places[2] - places[1] == pytest.approx((places[1] - places[0]) * 0.585, rel=0.01)  # log2(3 / 2)


def test_every_plot_is_a_picture_at_once(shown, tmp_path):
    results = synthetic(60, (0, 1, 2, 3, 4), hostile=True, folder=tmp_path)
    tree = shown(results)
    plots = by_class(tree, "plot")
    assert len(plots) == 3  # two environments, and the explorer
    for plot in plots:
        assert len(list(plot.iter("svg"))) == 1 and list(plot.iter("circle"))
    front = list(plots[0].iter("circle"))
    rows = [row for row in results.board().tables[0].rows if "test.s_measure" in row.cells]
    assert len(front) == len(rows) + 2  # and the legend
    trial = by_class(shown(results, f"#trial/{results.trials[0].trial_id}"), "plot")
    assert len(trial) == 2 and all(list(plot.iter("path")) for plot in trial)


def test_texts_of_users_stay_texts(shown, tmp_path):
    tree = shown(synthetic(4, (0, 1, 2), hostile=True, folder=tmp_path))
    assert not list(tree.iter("img")) and not list(tree.iter("script"))
    labels = [words(text) for text in by_class(tree, "first")[0].iter("text")]
    assert any(text.startswith(HOSTILE[:8]) for text in labels)


def test_intervals_beyond_the_frame_end_in_arrows(shown):
    results = with_levels([0.7, 0.8], seeds=(0, 1), noise=0.05)
    first = by_class(shown(results), "first")[0]
    ends = [
        float(x)
        for path in first.iter("path")
        for x in path.get("d").replace("L", " ").replace("M", " ").split()
        for x in [x.split(",")[0]]
    ]
    assert min(ends) >= 38 and max(ends) <= 620 - 16


def test_a_large_file_is_packed_and_one_that_is_too_large_is_named(monkeypatch):
    module = importlib.import_module("bench.report.page.content")
    results = synthetic(4, (0, 1, 2))
    monkeypatch.setattr(module, "PLAIN_CHARACTERS", 3000)
    data = module.content(results, results.board())
    packed = base64.b64decode(data["files"]["leaderboard.csv"]["packed"])
    assert gzip.decompress(packed).decode() == as_csv(results.board()) and data["filesLeftOut"] == []
    monkeypatch.setattr(module, "PACKED_BYTES", 100)
    data = module.content(results, results.board())
    assert "leaderboard.csv" in data["filesLeftOut"] and json.dumps(data["files"])
