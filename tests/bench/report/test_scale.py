"""A report of 1,000 records: its time and the size of its page."""

import time

import pytest
import synthetic

from bench.leaderboard import results
from bench.report import page, write

SECONDS = 15.0
BYTES = 8_000_000


@pytest.mark.slow
def test_a_thousand_records_are_reported_in_time_and_their_page_can_be_sent(tmp_path, monkeypatch, every_kind):
    """200 rows with 5 seeds and 400 images, from reading to the last figure; processor time, since others may work."""
    monkeypatch.setattr(synthetic, "IMAGES", 400)
    folder = synthetic.save(synthetic.synthetic(200, (0, 1, 2, 3, 4), folder=tmp_path), tmp_path)
    write(results.load(folder)[0], folder)  # imports, and caches of fonts
    begun = time.process_time()
    found, notes = results.load(folder)
    write(found, folder)
    seconds = time.process_time() - begun
    assert not notes and len(found.trials) == 1000
    assert (folder / "figures" / "memory_accuracy.pdf").exists()
    assert seconds < 2 * SECONDS
    assert (folder / page.NAME).stat().st_size < BYTES
