"""Every sweep file that ships: it loads, its models can be built, it says what to expect, at every profile."""

import sys
from pathlib import Path

import pytest
import warm
import yaml

from bench.config.expand import expand, sizes
from bench.config.sweep import load_sweep

FILES = sorted((Path(__file__).resolve().parent.parent / "ablations").glob("*.yaml"))
PROFILES = [(path, profile) for path in FILES for profile in yaml.safe_load(path.read_text())["profiles"]]
IDS = [f"{path.stem}-{profile}" for path, profile in PROFILES]


def test_the_promised_sweeps_are_there():
    names = {path.stem for path in FILES}
    assert names >= {"adapter_rank", "adapter_placement", "decoder_width", "tuned_blocks", "baselines", "decoder"}


@pytest.mark.parametrize(("path", "profile"), PROFILES, ids=IDS)
def test_loads_expands_and_can_be_built(path, profile):
    sweep = load_sweep(path, profile)
    trials = expand(sweep)
    assert sweep.name == path.stem and len(trials) >= 2
    trained = {trial.trial_id for trial in trials if trial.config.model.name != "sam3_zero_shot"}
    assert all((count["trainable"] > 0) == (i in trained) for i, count in sizes(trials).items() if count)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_opens_with_command_time_and_what_was_seen(path):
    head = [line for line in path.read_text().split("name:")[0].splitlines() if line.startswith("#")]
    text = "\n".join(head)
    assert f"python -m bench.run ablations/{path.name}" in text
    assert "# Expect:" in text and "# Seen:" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_embedded_is_the_default_and_needs_nothing(path):
    sweep = load_sweep(path)
    assert sweep.profile == "embedded" and sweep.base.device == "cpu"
    assert not [item for trial in expand(sweep) for item in trial.config.missing()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_full_is_upstreams_recipe_with_three_seeds(path):
    sweep = load_sweep(path, "full")
    base = sweep.base
    assert (base.transform.size, base.train.batch_size, base.train.epochs, base.train.lr) == (336, 12, 20, 2e-4)
    assert base.dataset.name == "duts" and len(sweep.seeds) == 3 and base.device == "cuda"


def test_a_full_run_without_weights_data_and_gpu_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "bench.run", str(FILES[0]), "--profile", "full"]
    done = warm.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for part in (
        "weights/sam3.pt does not exist",
        "hf download facebook/sam3",
        "python -m bench.data fetch DUTS-TR --to data",
    ):
        assert part in done.stderr
    assert not (tmp_path / "results").exists()
