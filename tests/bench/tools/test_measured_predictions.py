"""Predictions against the measurements that are committed in results/measured."""

from pathlib import Path

import pytest

from bench.memory.cards import MARGIN
from bench.tools.memory_record import accuracy, load, side_by_side

ROOT = Path(__file__).parents[3]
H100 = load(ROOT / "results" / "measured" / "h100")
SUITE = [row for row in H100.rows if row.code == "suite"]
MEDIAN, WORST = 0.02, 0.05
CHOSEN = (
    "precision=bfloat16",
    "precision=bfloat16, checkpointing=False",
    "paper's setting",
    "tuned_blocks=last:4",
)
"""Each fails without one of: float32 maps under autocast, unsplit blocks, the order of a run's first step."""


@pytest.mark.parametrize("label", CHOSEN)
def test_predictions_of_a_few_configurations(label):
    row = next(row for row in SUITE if row.label == label).predicted_again(H100.generation)
    assert abs(row.error_of("allocated")) < 0.003
    assert abs(row.error_of("reserved")) < 0.005 and abs(row.error_of("device")) < 0.005


@pytest.mark.slow
def test_predictions_of_all_configurations():
    """Within 2 % in the median and 5 % in the worst case. The U-Net alone, whose convolutions take workspaces within
    one operator, is further off in reserved memory."""
    rows = [row.predicted_again(H100.generation) for row in SUITE]
    assert len(rows) == len(H100.rows) - 2
    for measure in ("allocated", "reserved", "device"):
        errors = sorted(abs(row.error_of(measure)) for row in rows)
        plain = [abs(row.error_of(measure)) for row in rows if row.label != "model=unet, batch_size=4"]
        assert errors[len(errors) // 2] <= MEDIAN and max(plain) <= WORST
    assert max(abs(row.off) for row in rows) < 0.003
    beyond = max(row.measured("device") / row.predicted_device_bytes for row in rows)
    assert 1.05 < beyond <= 1 + MARGIN  # no row that fits with the margin runs out


def test_the_papers_claim_in_the_docs_is_the_record_s():
    page = " ".join((ROOT / "docs" / "memory.md").read_text().split())
    row = next(row for row in SUITE if row.label == "paper's setting" and not row.setting)
    allocated, reserved, device = (row.measured(name) for name in ("allocated", "reserved", "device"))
    gib = [f"{value / 2**30:.2f}" for value in (allocated, reserved, device)]
    assert f"| measured | {' | '.join(gib)} |" in page
    assert f"{gib[0]} GiB allocated, {gib[1]} GiB reserved, and {gib[2]} GiB by nvidia-smi" in page
    assert f"{gib[2]} GiB are {device / 1e9:.2f} GB of 10^9 bytes" in page
    assert allocated < 6e9 < device < 6 * 2**30  # "under 6 GB": by nvidia-smi only if GB means GiB


def test_several_cards_stand_side_by_side():
    other = H100.model_copy(update={"rows": H100.rows[:1]})
    table = side_by_side([H100, other])
    assert table[0].count("NVIDIA H100") == 6 and table[0].count("|") == table[2].count("|")
    assert any("placement=none" in line and line.count("3.577") == 2 for line in table)
    assert any("upstream's own code" in line and line.endswith("| – | – | – |") for line in table)
    assert len(accuracy(SUITE)) == 3


def test_the_speeds_in_the_docs_are_the_record_s():
    record = load(ROOT / "results" / "measured" / "h200")
    lines = (ROOT / "docs" / "performance.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| training step | images/s |"))
    upstream = record.rows[0]
    for line, row in zip(lines[start + 2 :], record.rows, strict=False):
        ratio = upstream.step_seconds_median / row.step_seconds_median
        at_most = "at most " if row.setting else ""
        cells = f"{row.images_per_second:.1f} | {ratio:.2f} | {at_most}{row.measured('allocated') / 2**30:.2f} |"
        assert line.endswith(f"| {cells}"), row.label
    fastest = [f"{upstream.step_seconds_min / row.step_seconds_min:.2f}" for row in record.rows[1:]]
    page = " ".join("\n".join(lines).split())
    assert f"gives ratios of {', '.join(fastest[:-1])} and {fastest[-1]}" in page
