"""The gate against older results: what is worse beyond the noise, and what is not compared."""

import time
from dataclasses import replace

import numpy as np
import pytest
from synthetic import contents, save, synthetic

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.leaderboard.against import against
from bench.report.__main__ import main


@pytest.fixture
def few():
    return synthetic(rows=6, seeds=(0, 1, 2))


def shifted(made, by, spread=0.0):
    """The same records with other scores of their images; ``spread`` alternates over images."""
    images = {}
    for trial_id, columns in made.images.items():
        turn = np.where(np.arange(len(columns["name"])) % 2, spread, -spread)
        scores = np.asarray(columns["s_measure"]) + by + turn
        images[trial_id] = {"name": columns["name"], "s_measure": scores.tolist(), "mae": (1 - scores).tolist()}
    return replace(made, images=images)


def test_identical_results_pass(few):
    verdicts = against(few, few)
    assert verdicts.worse == [] and verdicts.compared
    assert {f.verdict for f in verdicts.findings} <= {"equal"}


def test_a_drop_beyond_the_noise_is_worse_and_a_rise_is_better(few):
    assert {f.quantity for f in against(shifted(few, -0.1), few).worse} == {"S", "MAE"}
    risen = against(shifted(few, 0.1), few)
    assert risen.worse == [] and any(f.verdict == "better" for f in risen.findings)


def test_a_change_within_the_noise_is_not_resolved(few):
    found = against(shifted(few, -0.001, spread=0.05), few)
    assert found.worse == [] and any(f.verdict == "not resolved" for f in found.findings)


def test_what_is_not_resolved_has_its_interval_and_its_equivalence(few):
    findings = against(shifted(few, -0.001, spread=0.05), few).findings
    scores = [f for f in findings if f.quantity == "S"]
    assert scores and all(f.note.endswith(" seeds, paired") for f in scores)
    assert not any("within" in f.note for f in scores)  # the intervals are as wide as the spread over images
    for finding in scores:
        low, high = map(float, finding.note.partition(";")[0].split(" to "))
        assert low < -0.001 < high
    close = [f for f in against(shifted(few, -0.0001, spread=0.0001), few).findings if f.quantity == "S"]
    assert close and all(", within 0.01; " in f.note for f in close)
    assert not any("within" in f.note for f in findings if f.quantity == "MAE")  # the margin is that of the main metric


def test_two_hundred_rows_are_compared_in_seconds():
    made = synthetic(rows=200, seeds=(0, 1))
    started = time.process_time()
    assert against(made, made).compared
    assert time.process_time() - started < 10


def test_equal_code_with_other_chance_hardly_ever_fails():
    """Twenty pairs of result sets that differ by noise of seeds and images alone."""
    made = synthetic(rows=3, seeds=(0, 1, 2))
    rng = np.random.default_rng(0)

    def noisy():
        images = {}
        for trial_id, columns in made.images.items():
            scores = 0.7 + rng.normal(0, 0.01) + rng.normal(0, 0.05, len(columns["name"]))
            images[trial_id] = {"name": columns["name"], "s_measure": scores.tolist(), "mae": (1 - scores).tolist()}
        return replace(made, images=images)

    assert sum(bool(against(noisy(), noisy()).worse) for _ in range(20)) <= 3


def test_one_seed_is_compared_over_images_and_says_so():
    one = synthetic(rows=2, seeds=(0,))
    findings = against(shifted(one, -0.1), one).findings
    worse = [f for f in findings if f.verdict == "worse"]
    assert worse and all("one seed" in f.note for f in worse)


def test_a_row_that_fails_now_is_worse_one_that_is_gone_is_said_and_a_new_one_too(few):
    first = few.trials[0].trial_id
    failed = few.records[first].model_copy(update={"status": "oom", "error": "CUDA out of memory", "scores": None})
    (finding,) = against(replace(few, records={**few.records, first: failed}), few).worse
    assert (finding.old, finding.new) == ("ok", "oom")
    gone = {trial.trial_id for trial in few.trials if trial.config.model.adapter.rank == 2}
    fewer = replace(few, records={i: r for i, r in few.records.items() if i not in gone})
    assert [f.verdict for f in against(fewer, few).findings].count("missing") == 2
    assert [f.verdict for f in against(few, fewer).findings].count("new") == 2
    assert against(fewer, few).worse == []


def test_memory_is_held_against_the_spread_of_repeats(few):
    def heavier(by):
        records = {}
        for i, record in few.records.items():
            memory = record.memory and {
                phase: m.model_copy(update={"rss_bytes": m.rss_bytes + by}) for phase, m in record.memory.items()
            }
            records[i] = record.model_copy(update={"memory": memory})
        return replace(few, records=records)

    assert any("RSS" in f.quantity for f in against(heavier(2**30), few).worse)
    assert against(heavier(2**20), few).worse == []  # seeds are 4 MiB apart
    assert against(heavier(-(2**30)), few).worse == []


def test_other_data_are_not_compared_and_other_machines_neither(few, tmp_path, capsys):
    def elsewhere(**changes):
        made = {
            i: r.model_copy(update={"provenance": r.provenance.model_copy(update=changes)})
            for i, r in few.records.items()
        }
        return replace(few, records=made)

    verdicts = against(shifted(elsewhere(dataset_fingerprint="0" * 32), -0.3), few)
    assert verdicts.worse == [] and any("other data" in text for text in verdicts.warnings)
    verdicts = against(elsewhere(host_cpu="another chip"), few)
    assert any("memory is NOT compared" in text and "another chip" in text for text in verdicts.warnings)
    assert any("speed is NOT compared" in text for text in against(few, few).warnings)  # two trials at once


def test_the_gate_is_an_exit_code(few, tmp_path, capsys):
    old, new = save(few, tmp_path / "old"), save(shifted(few, -0.1), tmp_path / "new")
    before = contents(new)
    assert main([str(new), "--against", str(old)]) == 1
    said = capsys.readouterr()
    assert "WORSE: 1, 8: S:" in said.err and "worse" in said.out and contents(new) == before
    assert main([str(old), "--bundle", str(tmp_path / "old.zip"), "--quiet"]) == 0
    assert main([str(old), "--against", str(tmp_path / "old.zip"), "--quiet"]) == 0
    sweep = few.sweep._replace(axes=(Axis.over("model.adapter.rank", {"99": 99}),))
    nothing_alike = replace(few, sweep=sweep, trials=expand(sweep), records={}, images={})
    assert main([str(save(nothing_alike, tmp_path / "other")), "--against", str(old)]) == 2
    assert main([str(old), "--against", str(tmp_path / "nowhere")]) == 2
