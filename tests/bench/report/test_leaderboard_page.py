"""The docs explain what tables show, and the citation file is one."""

from pathlib import Path

import yaml
from synthetic import synthetic

from bench.leaderboard.columns import ARROWS, MEMORY_COLUMNS, SHOWN, STATUSES, columns
from bench.memory.cards import CARDS
from bench.scoring.metrics import METRICS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")


def test_every_column_that_a_table_can_show_is_explained():
    titles = [f"{METRICS[m].label} {ARROWS[METRICS[m].better]}" for m in SHOWN]
    titles += [f"{title} ↓" for title in MEMORY_COLUMNS.values()]
    titles += ["fits", "trainable M", "total M", "train img/s ↑", "infer img/s ↑", "latency ms ↓", "ok", "front"]
    titles += ["val S ↑", "val IoU ↑", "val mIoU ↑"]
    assert [title for title in titles if f"`{title}`" not in PAGE] == []


def test_every_state_and_card_is_explained():
    assert [status for status in ("ok", *STATUSES) if f"| `{status}` |" not in PAGE] == []
    assert ", ".join(map(str, CARDS)) + " GB" in PAGE


def test_the_titles_of_real_tables_are_among_them():

    board = synthetic(rows=60, seeds=(0, 1)).board()
    for table in board.tables:
        shown = [column.heading for column in columns(board, table) if column.group != "axis"]
        assert [title for title in shown if f"`{title}`" not in PAGE] == []


def test_the_citation_file_is_valid():
    """What CFF 1.2.0 requires of the file and of its references."""
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0" and content["title"] == "sam3-bench" and content["type"] == "software"
    for item in (content, *content["references"]):
        assert item["title"] and item["authors"]
        assert all("name" in author or author.keys() == {"family-names", "given-names"} for author in item["authors"])
    assert content["message"] and all(item["type"] for item in content["references"])
    assert any("2512.01789" in item.get("url", "") for item in content["references"])
