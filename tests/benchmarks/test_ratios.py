"""The command that compares benchmarks, on a report that is made up."""

import json

import pytest
import ratios

LOADING = ratios.PAIRS[0]


@pytest.fixture
def report(tmp_path, monkeypatch):
    """``report(ours, beside)`` is a report of two medians in seconds; files of the repository are copies."""
    monkeypatch.setattr(ratios, "COMMITTED", tmp_path / "ratios.json")
    monkeypatch.setattr(ratios, "PAGE", tmp_path / "page.md")
    ratios.COMMITTED.write_text(json.dumps({LOADING.what: 4.0, "another": 2.0}))
    ratios.PAGE.write_text(f"before\n{ratios.BEGIN}\nold\n{ratios.END}\nafter\n")

    def write(ours: float, beside: float) -> str:
        medians = {LOADING.ours: ours, LOADING.beside: beside, "bench_alone": 1.0}
        entries = [{"name": name, "stats": {"median": median}} for name, median in medians.items()]
        machine = {"cpu": {"brand_raw": "A CPU", "count": 2}}
        (tmp_path / "report.json").write_text(
            json.dumps({"benchmarks": entries, "machine_info": machine, "datetime": "2026-11-26T12:00:00"})
        )
        return str(tmp_path / "report.json")

    return write


@pytest.mark.parametrize(("ours", "code"), [(0.01, 0), (0.0124, 0), (0.0126, 1)])
def test_a_ratio_may_fall_by_a_quarter(report, capsys, ours, code):
    assert ratios.main(["--json", report(ours, 0.04)]) == code
    said = capsys.readouterr()
    assert LOADING.what in said.out and ("worse" in said.err) == bool(code)


def test_written_ratios_replace_those_of_the_same_pairs_alone(report):
    assert ratios.main(["--json", report(0.01, 0.05), "--write"]) == 0
    assert json.loads(ratios.COMMITTED.read_text()) == {LOADING.what: 5.0, "another": 2.0}
    page = ratios.PAGE.read_text()
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert f"| {LOADING.what} | **5** |" in page and "A CPU, 2 cores, 2026-11-26" in page


def test_the_committed_ratios_are_those_of_pairs_and_those_of_the_page():
    committed = json.loads(ratios.COMMITTED.read_text())
    assert committed.keys() <= {pair.what for pair in ratios.PAIRS}
    page = ratios.PAGE.read_text()
    for what, ratio in committed.items():
        assert f"| {what} | **{ratio:g}** |" in page
