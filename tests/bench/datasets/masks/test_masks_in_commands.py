"""Trials, ``bench.score`` and ``bench.data`` read masks alike: a perfect answer scores 1 for every kind of mask."""

import json
from pathlib import Path

import pytest
from drawn_masks import READ, REFUSED, RIM, disc, folder_of, grey

from bench import data, score
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.scheduling.preflight import prepare_data

SWEEP = """
name: mine
question: Are they read?
base:
  model: {name: unet, width: 4}
  dataset: {name: folder, images: images, masks: masks}
  transform: {size: 16}
  train: {epochs: 1, batch_size: 3}
  device: cpu
axes: {train.epochs: [1]}
seeds: [0]
"""


@pytest.mark.parametrize("kind", [*READ, *REFUSED])
def test_trials_scores_and_checks_agree(tmp_path, monkeypatch, capsys, kind):
    """A perfect answer scores 1 in ``bench.score`` where a trial and ``bench.data`` take the masks; else all refuse."""
    draw, _, settings = REFUSED[kind] if kind in REFUSED else (READ[kind], "", {})
    monkeypatch.chdir(tmp_path)
    _, masks = folder_of(tmp_path, draw, suffix=".tif" if kind == "floats" else ".png")
    Path("maps").mkdir()
    right = (RIM if kind == "rim of a palette without body" else disc()) * 255
    for path in masks.iterdir():
        grey(right).save(Path("maps", f"{path.stem}.png"))
    Path("sweep.yaml").write_text(SWEEP)

    def outcomes(settings):
        """Whether a trial's data, ``bench.data check`` and ``bench.score`` take the masks, and the score."""
        overrides = [f"dataset.{field}={json.dumps(value)}" for field, value in settings.items()]
        flags = [text for field, value in settings.items() for text in (f"--{field}", json.dumps(value))]
        try:
            prepare_data(expand(load_sweep(Path("sweep.yaml"), None, overrides)))
            trial = True
        except Exception as error:
            assert "nothing says which of them is the object" in str(error)
            trial = False
        checked = data.main(["check", ".", *flags]) == 0
        scored = score.main(["--pred", "maps", "--gt", "masks", "--name", "m", "--jobs", "1", *flags]) == 0
        found = json.loads(Path("results/external/m.json").read_text())["scores"] if scored else None
        return trial, checked, scored, found and found["s_measure"]

    if kind in REFUSED:
        assert outcomes({}) == (False, False, False, None)
    *taken, value = outcomes(settings)
    assert taken == [True, True, True]
    assert value == pytest.approx(1, abs=1e-9)


def test_levels_that_are_almost_white_are_noted_for_the_mirror_protocol(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path, READ["254 and 2"])
    Path("sweep.yaml").write_text(SWEEP)
    trials = {
        name: expand(load_sweep(Path("sweep.yaml"), None, [f"protocol.name={name}"])) for name in ("mirror", "sod")
    }
    (note,) = [line for line in prepare_data(trials["mirror"]) if "mirror" in line]
    assert note.startswith("2 masks of test hold levels from 129 to 254, background for the mirror protocol: pair 00")
    assert not any("mirror" in line for line in prepare_data(trials["sod"]))
    score.main(["--pred", "masks", "--gt", "masks", "--protocol", "mirror", "--name", "m", "--jobs", "1"])
    assert (
        "8 masks hold levels from 129 to 254, which are background for the mirror protocol" in capsys.readouterr().out
    )
