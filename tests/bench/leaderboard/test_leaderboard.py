"""Tables, figures and files of a leaderboard, on made-up records."""

import io

import pandas
import pytest
from synthetic import board_of, record, results_of

from bench import report
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.report.sections import escape
from bench.report.tables import as_csv, markdown
from bench.scoring.metrics import OF_PROTOCOL

GIB = 2**30


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def test_the_front_holds_what_nothing_beats(sweep):
    trials = expand(sweep._replace(seeds=(0,)))
    places = [(0.80, 2.0), (0.85, 1.0), (0.90, 3.0)]  # the first is beaten by the second
    board = board_of(sweep._replace(seeds=(0,)), *(record(t, s, m) for t, (s, m) in zip(trials, places)))
    assert [row.on_front for row in board.tables[0].rows] == [False, True, True]


def test_different_environments_never_share_a_table(sweep):
    trials = expand(sweep)
    elsewhere = {"device": "NVIDIA H200", "cuda": "13.0"}
    board = board_of(sweep, *(record(t) for t in trials[:4]), *(record(t, **elsewhere) for t in trials[4:]))
    assert [len(table.rows) for table in board.tables] == [2, 1]
    text = markdown(board)
    assert text.count("not comparable with the others") == 2 and "NVIDIA H200" in text
    one_seed_moved = board_of(sweep, record(trials[0]), record(trials[1], dataset_fingerprint="0" * 32))
    assert [table.rows[0].statuses for table in one_seed_moved.tables][-1] == ("ok",)


def test_a_changed_checkout_is_marked(sweep):
    trials = expand(sweep)
    board = board_of(sweep, record(trials[0]), record(trials[1], dirty=True))
    assert board.tables[0].commits == ("0123456789", "0123456789-dirty")


def test_embedded_runs_are_labelled_and_others_are_not(sweep, tiny_with):
    trials = expand(sweep)
    assert "not results of SAM3-UNet" in markdown(board_of(sweep, record(trials[0])))
    model = {"name": "unet", "width": 4}
    real = sweep._replace(
        base=tiny_with({"model": model, "dataset": {"name": "folder", "images": "i", "masks": "m"}}),
        axes=(Axis.over("model.width", {"4": 4, "8": 8}),),
    )
    assert "mbedded run" not in markdown(board_of(real, record(expand(real)[0])))


def test_one_seed_says_that_its_noise_is_unknown(sweep):
    one = sweep._replace(seeds=(0,))
    text = markdown(board_of(one, *(record(t) for t in expand(one))))
    assert "One seed" in text and "±" not in text.split("One seed")[0]


def test_csv_reads_back_with_full_precision_and_empty_for_unknown(sweep):
    trials = expand(sweep)
    board = board_of(sweep, record(trials[0], 1 / 3), record(trials[1], 1 / 3), record(trials[2]))
    frame = pandas.read_csv(io.StringIO(as_csv(board)))
    assert list(frame["model.adapter.rank"]) == [2, 4, 8]
    assert frame["test.s_measure"][0] == 1 / 3 and frame["test.s_measure.deviation"][0] == 0
    assert frame["test.s_measure.deviation"].isna().tolist() == [False, True, True]
    assert frame["training.rss_bytes"][0] == GIB and "training.nvml_device_bytes" not in frame
    assert frame["embedded"][0] == "encoder sam3_vit_tiny; data procedural"


def test_written_files_are_the_same_on_every_rebuild(every_kind, sweep, tmp_path):
    trials = expand(sweep)
    results = results_of(sweep, *(record(t, 0.5 + i / 20, 1 + i / 9) for i, t in enumerate(trials)))
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        contents.append({path.name: path.read_bytes() for path in report.write(results, tmp_path / name)})
    assert contents[0] == contents[1]
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "page.html"} < set(contents[0])
    assert {f"memory_accuracy.{kind}" for kind in ("png", "svg", "pdf")} < set(contents[0])


def test_without_results_there_are_tables_but_no_figure(sweep, tmp_path):
    paths = report.write(results_of(sweep), tmp_path)
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "page.html"} <= {path.name for path in paths}
    assert not any(path.name.startswith("memory_accuracy") for path in paths)


def test_names_cannot_break_the_table(sweep):
    axis = Axis.over("model.adapter.rank", {"<script>|`*_": 2, "[a](b)": 4})
    text = markdown(board_of(sweep._replace(axes=(axis,), question="<b>|why?")))
    assert r"\<script\>\|\`\*\_" in text and "<script>" not in text and "<b>" not in text
    assert escape("a\nb") == "a b"


def test_a_cell_shows_half_of_its_students_interval(sweep):
    trials = expand(sweep)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, (0.79, 0.81, 0.8, 0.8))))
    text = markdown(board)
    assert "0.800 ± 0.127" in text  # 12.706 * sd / sqrt(2)
    frame = pandas.read_csv(io.StringIO(as_csv(board)))
    assert frame["test.s_measure.half_width95"][0] == pytest.approx(12.7062 * 0.01, rel=1e-4)


def test_a_sweep_in_the_mirror_protocol_is_ranked_by_iou(every_kind, sweep, tiny_with, tmp_path):
    mirrors = sweep._replace(base=tiny_with({"protocol": {"name": "mirror"}}))
    trials = expand(mirrors)
    levels = (0.6, 0.6, 0.7, 0.7, 0.5, 0.5)
    records = [record(t, s, metrics=OF_PROTOCOL["mirror"]) for t, s in zip(trials, levels)]
    board = board_of(mirrors, *records)
    assert board.tables[0].main_metric == "iou"
    assert [row.on_front for row in board.tables[0].rows] == [False, True, False]
    text = markdown(board)
    assert "IoU ↑" in text and "BER ↓" in text and "wF" not in text and "val IoU ↑" in text
    kinds = {path.suffix for path in report.write(results_of(mirrors, *records), tmp_path)}
    assert kinds == {".md", ".csv", ".tex", ".html", ".png", ".svg", ".pdf"}
