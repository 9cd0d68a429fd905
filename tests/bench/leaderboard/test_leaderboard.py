"""Records -> leaderboard, tables and figure, on made-up records of every kind."""

import io
from statistics import stdev

import numpy as np
import pandas
import pytest
from synthetic import board_of, record

from bench import report
from bench.config.axes import Axis
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.leaderboard import published
from bench.leaderboard.noise_floor import memory_noise_floor, unresolved
from bench.leaderboard.ranking import not_distinguishable
from bench.leaderboard.results import Results, summarise
from bench.records.external_scores import ExternalRecord
from bench.records.memory import Memory
from bench.records.record import MemoryAtFailure
from bench.report import plots
from bench.report.sections import escape
from bench.report.tables import as_csv, comparisons_csv, markdown
from bench.scoring.metrics import OF_PROTOCOL

GIB = 2**30


@pytest.fixture
def sweep(tiny):
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4, "8": 8})
    return Sweep("mine", "How narrow?", "embedded", tiny, (axis,), (0, 1))


def results_of(sweep, *records, images=None):
    return Results(sweep, expand(sweep), {r.trial_id: r for r in records}, images or {}, {})


def images_of(trials, levels, noise=0.01, count=40):
    """Per-image scores of trials whose mean lies near a level, reproducibly."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.05, count)
    made = {}
    for trial, level in zip(trials, levels):
        values = level + image + rng.normal(0, noise, count)
        scores = {metric: values.tolist() for metric in ("s_measure", "mae")}
        made[trial.trial_id] = {"name": [f"im {i}" for i in range(count)], **scores}
    return made


def external(**changes):
    usual = {
        "name": "Other",
        "protocol": "sod",
        "minmax": True,
        "scores": {m: 0.777 for m in OF_PROTOCOL["sod"]},
        "images": 40,
        "predictions": "/maps/other",
        "masks": "/gt",
        "predictions_fingerprint": "a",
        "masks_fingerprint": "b",
        "scored": "2026-01-02T00:00:00+00:00",
        "commit": None,
        "dirty": None,
        "versions": {},
        "image_scores": {"name": [f"im {i}" for i in range(40)]},
    }
    return ExternalRecord(**{**usual, **changes})


def test_mean_and_deviation_over_seeds(sweep):
    trials = expand(sweep)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, (0.7, 0.8, 0.5, 0.5))))
    first, second, third = board.tables[0].rows
    cell = first.cells["test.s_measure"]
    assert (cell.mean, cell.count) == (pytest.approx(0.75), 2) and cell.deviation == pytest.approx(stdev([0.7, 0.8]))
    assert second.cells["test.s_measure"].deviation == 0
    assert third.cells == {} and third.statuses == ("pending", "pending")


def test_every_outcome_is_a_row(sweep):
    trials = expand(sweep)
    board = board_of(
        sweep,
        record(trials[0]),
        record(trials[1], status="oom", error="CUDA out of memory"),
        record(trials[2], status="error", error="Traceback\n  line\nKeyError: 'x|y'"),
    )
    text = markdown(board)
    lines = [line for line in text.splitlines() if line.startswith(("| 2 ", "| 4 ", "| 8 "))]
    assert "1/2 (1 oom)" in lines[0] and "0/2 (1 error, 1 pending)" in lines[1] and "0/2 (2 pending)" in lines[2]
    assert "Row 2: CUDA out of memory" in text and r"Row 4: KeyError: 'x\|y'" in text


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
    assert board.tables[0].commits == ("0123456789", "0123456789*")


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


@pytest.mark.parametrize("count", [3, 30])
def test_names_that_find_no_room_in_the_figure_are_numbers_with_a_key(sweep, count):
    names = {f"a rather long name, number {r}": r for r in range(1, count + 1)}
    many = sweep._replace(axes=(Axis.over("model.adapter.rank", names),), seeds=(0,))
    trials = expand(many)
    board = board_of(many, *(record(t, 0.5 + i / 100, 1 + i / 10) for i, t in enumerate(trials)))
    figure = plots.memory_accuracy(board, board.tables[0])
    beside = {text.get_text() for text in figure.axes[0].texts}
    if count == 3:
        assert set(names) <= beside and len(figure.legends) == 1
    else:
        assert {str(number) for number in range(1, 31)} <= beside and not set(names) & beside
        key = [text.get_text() for text in figure.legends[0].get_texts()]
        assert key == [f"{number}  {name}" for number, name in enumerate(names, start=1)]


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


def test_rows_that_the_data_do_not_tell_from_the_best_are_marked(sweep):
    five = sweep._replace(seeds=(0, 1, 2, 3, 4))
    trials = expand(five)
    levels = [0.70] * 5 + [0.80] * 5 + [0.801] * 5
    board = board_of(five, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    table = board.tables[0]
    assert not_distinguishable(table, "s_measure") == {1} and not_distinguishable(table, "max_f_measure") == set()
    assert not_distinguishable(table, "mae") == set()  # lower is better: the first is alone
    text = markdown(board)
    first, second, third = (line for line in text.splitlines() if line.startswith(("| 2 |", "| 4 |", "| 8 |")))
    assert "0.800 ≈" in second and "**0.801**" in third and "≈" not in third.split("|")[2]
    assert "not distinguishable from the best: 4." in text and "2 of 3 pairs are resolved" in text
    assert "| 4 − 8 |" in text and "| not resolved |" in text and "8 is better" in text


def test_what_two_seeds_do_not_decide_is_not_resolved(sweep):
    trials = expand(sweep)
    levels = (0.79, 0.81, 0.80, 0.83, 0.78, 0.82)
    board = board_of(sweep, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    text = markdown(board)
    assert "**Not resolved**: on S, 2 seeds and 40 test images do not decide between any two rows" in text
    assert not any(c.resolved for c in board.tables[0].comparisons["s_measure"])


def test_one_seed_tests_nothing(sweep):
    one = sweep._replace(seeds=(0,))
    trials = expand(one)
    levels = (0.5, 0.7, 0.9)
    board = board_of(one, *(record(t, s) for t, s in zip(trials, levels)), images=images_of(trials, levels))
    text = markdown(board)
    assert "seed noise is unknown" in text and "≈" not in text and "better" not in text
    assert all(c.p is None for found in board.tables[0].comparisons.values() for c in found)
    assert comparisons_csv(board) == ""


def test_records_without_scores_per_image_are_not_tested_and_it_is_said(sweep):
    text = markdown(board_of(sweep, *(record(t) for t in expand(sweep))))
    assert "not tested for significance" in text and "≈" not in text


def test_comparisons_are_written_in_full_and_alike(sweep, tmp_path):
    trials = expand(sweep)
    levels = (0.79, 0.81, 0.80, 0.83, 0.78, 0.82)
    texts = []
    for _ in range(2):
        records = [record(t, s) for t, s in zip(trials, levels)]
        report.write(results_of(sweep, *records, images=images_of(trials, levels)), tmp_path)
        texts.append((tmp_path / "comparisons.csv").read_bytes())
    assert texts[0] == texts[1]
    frame = pandas.read_csv(io.BytesIO(texts[0]))
    assert len(frame) == 2 * 3 and set(frame["metric"]) == {"s_measure", "mae"}
    assert list(frame["first"][:3]) == [2, 2, 4] and not frame["resolved"].any()


def test_external_methods_stand_apart_and_say_where_they_are_from(sweep):
    trials = expand(sweep)
    images = images_of(trials, [0.8] * 6)
    records = [record(t) for t in trials]
    text = markdown(board_of(sweep, *records, images=images, external=[external()]))
    table, apart = text.split("## Scored from prediction files, not trained here")
    assert "Other" not in table and "0.777" not in table
    assert "| Other |" in apart and "/maps/other" in apart and "not comparable" not in apart
    elsewhere = external(image_scores={"name": ["x"]})
    assert "not comparable: other images" in markdown(board_of(sweep, *records, images=images, external=[elsewhere]))
    otherwise = external(protocol="mirror", scores={"iou": 0.5})
    text = markdown(board_of(sweep, *records, images=images, external=[otherwise]))
    assert "not comparable: another protocol" in text


@pytest.fixture
def real():
    """The paper's model, and one with another adapter, on DUTS."""
    base = TrialConfig.model_validate({"model": {"name": "sam3_unet"}, "dataset": {"name": "duts"}, "device": "cpu"})
    return Sweep("real", "How?", "full", base, (Axis.over("model.adapter.rank", {"8": 8, "32": 32}),), (0, 1))


DUTS = {"images": {"train": 10553, "val": 0, "test": 5019}}


def test_published_numbers_stand_beside_a_known_benchmark(real):
    trials = expand(real)
    board = board_of(real, *(record(t, **DUTS) for t in trials))
    text = markdown(board)
    assert "## Published on DUTS-TE, not measured here" in text
    assert "| SAM2-UNet | S | 0.934 | – | – |" in text and "second hand" in text
    assert "SINet" not in text  # published on other test sets


def test_the_gap_is_that_of_the_row_which_builds_the_papers_model(real, monkeypatch):
    made = published.load().model_dump()
    ours = {"method": "SAM3-UNet", "source": "sam3_unet", "scores": {"mae": 0.02}}
    made["results"] = [{**ours, "test_set": "DUTS-TE", "protocol": "sod"}]
    known = published.Published.model_validate(made)
    monkeypatch.setattr(published, "load", lambda: known)
    trials = expand(real)
    values = (0.5, 0.5, 0.024, 0.026)
    (row,) = board_of(real, *(record(t, s, **DUTS) for t, s in zip(trials, values))).beside.published
    assert row.point == ("32",) and row.gaps == {"mae": pytest.approx(0.005)}
    without_it = board_of(real, *(record(t, s, **DUTS) for t, s in zip(trials[:2], values))).beside.published
    assert without_it[0].point is None and without_it[0].gaps == {}


def test_no_published_numbers_beside_stand_ins_or_unknown_data(sweep, real, tiny_with):
    stand_in = Sweep("s", "?", "p", tiny_with({"dataset": {"name": "duts"}}), sweep.axes, (0, 1))
    for made, sizes in ((sweep, DUTS), (stand_in, DUTS), (real, {"images": {"test": 100}}), (real, {})):
        text = markdown(board_of(made, *(record(t, **sizes) for t in expand(made))))
        assert "Published" not in text


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


# --- memory: what repeats resolve, and what contradicts itself --------------------------------------------------------


def with_memory(trials, values):
    """Records whose training memory, in MiB, is given for each trial in order."""
    return {t.trial_id: record(t, memory=v / 1024) for t, v in zip(trials, values)}


def test_differences_below_the_noise_of_repeats_are_not_resolved(sweep):
    trials = expand(sweep)  # three ranks, two seeds each
    board = summarise(Results(sweep, trials, with_memory(trials, [100, 104, 103, 107, 300, 304])))
    table = board.tables[0]
    spread = stdev([100, 104])  # the same for all rows; a difference of two means of two has that standard error
    assert memory_noise_floor(table) / 2**20 == pytest.approx(2 * spread, rel=1e-6)
    assert [(a.labels, b.labels) for a, b in unresolved(table, memory_noise_floor(table))] == [(("2",), ("4",))]
    assert "are not resolved by the repeats: 2 and 4." in markdown(board)


def test_repeats_that_agree_to_the_byte_leave_the_measures_own_step(sweep):
    trials = expand(sweep)
    table = summarise(Results(sweep, trials, with_memory(trials, [100, 100, 200, 200, 300, 300]))).tables[0]
    assert memory_noise_floor(table) == 4096 and unresolved(table, 4096) == []


def test_one_seed_has_no_noise_floor(sweep):
    single = sweep._replace(seeds=(0,))
    board = summarise(Results(single, expand(single), with_memory(expand(single), [100, 200, 300])))
    assert memory_noise_floor(board.tables[0]) is None and "not resolved" not in markdown(board)


def test_figures_that_contradict_themselves_mark_the_row(sweep):
    trials = expand(sweep)
    records = {t.trial_id: record(t) for t in trials}
    memory = Memory(nvml_device_bytes=GIB, torch_reserved_bytes=2 * GIB, foreign_processes=["job7 (PID 7, 5 MiB)"])
    first = trials[0].trial_id
    records[first] = records[first].model_copy(update={"memory": {"training": memory}})
    lines = markdown(summarise(Results(sweep, trials, records))).splitlines()
    assert [line for line in lines if line.startswith("| 2 ") and "2/2 †" in line]
    assert any("contradicts itself: nvml" in line for line in lines) and any(
        "not alone on the card" in line for line in lines
    )


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["training", "evaluation"], "after epoch 3: memory is the peak of the last part"),
        (["evaluation"], "after epoch 3: memory in training is not known: none was left"),
    ],
)
def test_a_row_that_was_cut_short_says_whose_memory_it_shows(sweep, phases, expected):
    trials = expand(sweep)[:1]
    whole = record(trials[0])
    memory = {phase: whole.memory[phase] for phase in phases}
    board = board_of(
        sweep._replace(seeds=(0,)), whole.model_copy(update={"memory": memory, "resumed_from_epochs": [3]})
    )
    row = board.tables[0].rows[0]
    assert any(expected in note for note in row.notes)
    assert ("training.rss_bytes" in row.cells) == ("training" in phases)


def test_a_row_out_of_memory_says_what_was_known_then(sweep):
    def said(**known):
        oom = record(expand(sweep)[0], status="oom", error="CUDA out of memory. Tried to allocate 2.00 GiB.")
        oom = oom.model_copy(update={"memory_at_failure": MemoryAtFailure(**known)})
        return markdown(board_of(sweep, oom))

    known = {"torch_reserved_bytes": 7 * GIB, "predicted_allocated_bytes": int(8.5 * GIB), "budget_bytes": None}
    numbers = "(reserved then 7.00 GiB; predicted peak allocated 8.50 GiB)"
    assert f"Tried to allocate 2.00 GiB. {numbers}" in said(**known)
    assert "Tried to allocate 2.00 GiB.\n" in said(**dict.fromkeys(known))


def test_over_budget_is_a_row_of_its_own_kind(sweep):
    trials = expand(sweep)
    records = {t.trial_id: record(t, status="over budget", error="not run: predicted") for t in trials[:2]}
    text = markdown(summarise(Results(sweep, trials, records)))
    assert "0/2 (2 over budget)" in text and "not run: predicted" in text
