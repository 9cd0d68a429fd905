"""The planner's command line, search and tables, on models small enough to be quick."""

import csv

import pytest
import yaml
from conftest import REPOSITORY

from bench import plan as planner
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.config.trial import TrialConfig, with_value
from bench.memory import sweep_plan
from bench.memory.card_generations import GENERATIONS
from bench.memory.cards import CARDS, USABLE, fits, with_margin
from bench.memory.predicted_peak import PredictedPeak, Unpredictable, predict_peak
from bench.memory.step_memory import PARTS, StepMemory
from bench.memory.sweep_plan import largest_batch
from bench.plan import card_size, main

GIB = 2**30
SWEEP = """
name: mine
question: How much?
profiles:
  full:
    base:
      model:
        name: sam3_unet
        encoder: {name: sam3_vit_tiny, weights: random, depth: 2, global_blocks: [1]}
        decoder: {width: 8}
      dataset: procedural
      transform: {size: 32}
      train: {batch_size: 2}
    axes:
      model.adapter.rank: [2, 64]
    seeds: [0, 1, 2]
"""


@pytest.fixture(autouse=True)
def _no_card_here(monkeypatch):
    monkeypatch.setattr(planner, "here", lambda: None)


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    return path


def test_a_plan_of_a_sweep(monkeypatch, sweep_file, tmp_path, capsys):
    monkeypatch.setattr(sweep_plan, "largest_batch", lambda config, card, generation: 17)
    assert main([str(sweep_file), "--results", str(tmp_path), "--card", "6"]) == 0
    said = capsys.readouterr().out
    assert "Predicted, not measured" in said and "assumed context of 450 MiB" in said
    folder = tmp_path / "mine-full"
    lines = list(csv.DictReader((folder / "plan.csv").open()))
    assert [line["model.adapter.rank"] for line in lines] == ["2", "64"]  # one row for all seeds
    for line in lines:
        parts = sum(int(line[f"predicted.{part}_bytes"]) for part in planner.PARTS)
        assert parts == int(line["predicted.allocated_bytes"]) > 0
        assert int(line["predicted.device_bytes"]) == int(line["predicted.reserved_bytes"]) + 450 * 2**20
        assert all(line[f"predicted.fits_{card}_gb"] == "True" for card in CARDS)
    assert int(lines[0]["predicted.allocated_bytes"]) < int(lines[1]["predicted.allocated_bytes"])
    measured = ("torch_allocated_bytes", "nvml_device_bytes", "rss_bytes")
    assert not [name for name in lines[0] if name in measured]  # never under a measurement's name
    page = (folder / "plan.md").read_text()
    assert "largest batch on 6 GB" in page and page.count("| 17 |") == 2
    assert (folder / "plan.png").stat().st_size and (folder / "plan.svg").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--card", "big"], "--card big: is no card size. Give its memory in GB"),
        (["--card", "-3"], "is no card size"),
        (["--card", "nan"], "is no card size"),
        (
            ["--generation", "hoper"],
            "--generation hoper: no such generation. Did you mean 'hopper'? Known: turing, ampere",
        ),
        (["model.adapter.rnak=3"], "rnak"),
        (["--profile", "ful"], "no profile 'ful'. Did you mean 'full'?"),
        (["transform.size=33"], "no multiple of its patch size"),
    ],
)
def test_mistakes_are_said_before_anything_is_predicted(sweep_file, tmp_path, capsys, arguments, part):
    assert main([str(sweep_file), *arguments, "--results", str(tmp_path / "r")]) == 2
    said = capsys.readouterr()
    assert part in said.err and "Traceback" not in said.err and said.out == ""


@pytest.mark.parametrize(
    ("profiles", "arguments", "expected"),
    [
        (None, [], "default"),
        (["small"], [], "small"),
        (["small", "full", "large"], [], "full"),
        (["small", "large"], [], "small"),
        (["small", "full", "large"], ["--profile", "large"], "large"),
    ],
)
def test_the_profile_is_full_where_there_is_one_and_else_the_first(
    monkeypatch, tmp_path, capsys, profiles, arguments, expected
):
    monkeypatch.setattr(
        sweep_plan, "predict_peak", lambda *_: PredictedPeak(StepMemory(dict.fromkeys(PARTS, GIB), "x", GIB))
    )
    tree = yaml.safe_load(SWEEP)
    content = tree.pop("profiles")["full"]
    tree |= content if profiles is None else {"profiles": dict.fromkeys(profiles, content)}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert main([str(tmp_path / "own.yaml"), "--results", str(tmp_path), *arguments]) == 0
    assert f"mine ({expected}): predicted peak" in capsys.readouterr().out


def test_card_sizes():
    assert [card_size(text) for text in ("8", "8GB", "8 gb", "10.5")] == [8, 8, 8, 10.5]
    with pytest.raises(ConfigError):
        card_size("0")


def made_up(monkeypatch, fixed, each):
    """A model whose total is a straight line in the batch, but for steps as the allocator makes them."""
    tried = []

    def predict_line(config, generation):
        batch = config.train.batch_size
        tried.append(batch)
        return type("Made", (), {"device": int(fixed + each * batch + min(each / 3, 20 * 2**20) * (batch % 3))})

    monkeypatch.setattr(sweep_plan, "predict_peak", predict_line)
    return tried


@pytest.mark.parametrize(("fixed", "each"), [(1.0, 0.3), (2.0, 0.07), (0.5, 0.01), (7.0, 3.0), (0.1, 7.0)])
@pytest.mark.parametrize("start", [1, 12, 500])
def test_the_largest_batch_fits_and_the_next_does_not(monkeypatch, fixed, each, start):
    tried = made_up(monkeypatch, fixed * GIB, each * GIB)
    config = TrialConfig.model_validate(
        {"model": "unet", "dataset": "procedural", "train": {"batch_size": start}, "device": "cpu"}
    )
    batch = largest_batch(config, 8)

    def total(b):
        return fixed * GIB + each * GIB * b + min(each * GIB / 3, 20 * 2**20) * (b % 3)

    assert batch == 0 or with_margin(total(batch)) <= 8 * USABLE * GIB
    assert with_margin(total(batch + 1)) > 8 * USABLE * GIB
    assert len(tried) == len(set(tried)) <= 20


def test_the_size_of_a_card_may_be_a_fraction_in_a_title(sweep_file):
    sweep = load_sweep(sweep_file, "full")
    titles = [column.header for column in planner._terminal(sweep, [], 10.5).columns]
    assert titles[0] == "rank" and titles[-1] == "largest batch on 10.5 GB"


@pytest.mark.parametrize(("each", "expected"), [(0.5, 14), (1.7, 4), (1.9, 0)])
def test_the_largest_batch_has_an_image_for_each_micro_batch(monkeypatch, each, expected):
    tried = made_up(monkeypatch, 0.1 * GIB, each * GIB)
    train = {"batch_size": 12, "accumulate": 4}
    config = TrialConfig.model_validate({"model": "unet", "dataset": "procedural", "train": train, "device": "cpu"})
    assert largest_batch(config, 8) == expected and min(tried) >= 4


ABLATIONS = sorted((REPOSITORY / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_ablation_has_a_plan_at_full_size(monkeypatch, tmp_path, path, capsys):
    """All but the prediction itself, which would take seconds for each row; ``tests/test_ablations.py`` builds them."""
    monkeypatch.setattr(planner, "sizes", lambda trials, progress: {})
    step = StepMemory(dict.fromkeys(PARTS, GIB), "forward", 7 * GIB - GIB // 4)
    monkeypatch.setattr(sweep_plan, "predict_peak", lambda config, generation: PredictedPeak(step))
    assert main([str(path), "--results", str(tmp_path), "--card", "8"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "8 and up" in said.out
    sweep = load_sweep(path, "full")
    points = list(dict.fromkeys(trial.point for trial in expand(sweep)))
    rows = list(csv.DictReader((tmp_path / f"{path.stem}-full" / "plan.csv").open()))
    assert [tuple(row[axis.name] for axis in sweep.axes) for row in rows] == points
    assert (tmp_path / f"{path.stem}-full" / "plan.png").stat().st_size


def kinds_of_models():
    """One embedded configuration for each combination of parts that an ablation names."""
    kinds = {}
    for path in ABLATIONS:
        for trial in expand(load_sweep(path, "embedded")):
            model = trial.config.model
            parts = [getattr(getattr(model, part, None), "name", "") for part in ("encoder", "adapter", "decoder")]
            kinds.setdefault(" ".join(filter(None, [model.name, *parts])), trial.config)
    return kinds


def test_every_kind_of_model_in_the_ablations_can_be_predicted():
    kinds = kinds_of_models()
    assert len(kinds) > 15
    unpredictable = []
    for name, config in kinds.items():
        try:
            assert (
                0 < predict_peak(with_value(config, {"transform.size": 64, "train.batch_size": 2})).allocated < GIB
            ), name
        except Unpredictable as error:
            unpredictable.append(f"{name}: {error}")
    assert unpredictable == []


def test_the_largest_batch_of_a_real_model(sweep_file):
    base = load_sweep(sweep_file, "full").base
    needed = with_margin(predict_peak(base).device)
    card = (needed + 3 * 2**20) / USABLE / GIB  # a card that is just larger than batch 2 needs
    batch = largest_batch(base, card)
    assert batch >= 2
    for size, expected in ((batch, True), (batch + 1, False)):
        config = base.model_copy(update={"train": base.train.model_copy(update={"batch_size": size})})
        assert fits(with_margin(predict_peak(config).device), card) is expected


def test_curves_leave_out_what_a_model_lacks(monkeypatch, sweep_file):
    monkeypatch.setattr(sweep_plan, "predict_peak", lambda config, generation: config.trial_id)
    base = load_sweep(sweep_file, "full").base
    found = sweep_plan.curves(
        base.model_copy(
            update={
                "model": TrialConfig.model_validate({"model": "unet", "dataset": "procedural", "device": "cpu"}).model
            }
        )
    )
    assert set(found) == {"transform.size", "train.batch_size"}
    assert set(sweep_plan.curves(base)) == set(sweep_plan.CURVES)
    of_batches = sweep_plan.curves(with_value(base, {"train.accumulate": 2}))["train.batch_size"]
    assert [label for label, _ in of_batches] == ["4", "8", "12", "16", "24"]  # one image cannot be split


@pytest.mark.parametrize(
    ("here", "given", "name", "why"),
    [
        (None, [], "ampere", "no card is here and --generation names none"),
        ("hopper", [], "hopper", "that of the card here"),
        ("hopper", ["--generation", "ampere"], "ampere", "given by --generation"),
    ],
)
def test_it_says_which_generation_of_cards_it_counts_with(
    monkeypatch, sweep_file, tmp_path, capsys, here, given, name, why
):
    monkeypatch.setattr(planner, "here", lambda: here and GENERATIONS[here])
    asked = []
    step = StepMemory(dict.fromkeys(PARTS, GIB), "forward", 7 * GIB, handles=1)

    def predicted(config, generation):
        asked.append(generation.name)
        return PredictedPeak(step, generation)

    monkeypatch.setattr(sweep_plan, "predict_peak", predicted)
    assert main([str(sweep_file), "--results", str(tmp_path), "--card", "80", *given]) == 0
    said, page = capsys.readouterr().out, (tmp_path / "mine-full" / "plan.md").read_text()
    assert f"The generation of the card is {name}: {why}" in said and set(asked) == {name}
    expected = {
        "ampere": ("an assumed context of 450 MiB.", "workspaces of 8.12 MiB"),
        "hopper": (
            "a context of 766 MiB (638 if no matrices are multiplied), measured on an H100",
            "workspaces of 32 MiB",
        ),
    }
    assert all(text in said and text in page for text in (f"of the generation {name}", *expected[name]))
    (line, _) = csv.DictReader((tmp_path / "mine-full" / "plan.csv").open())
    context = 450 * 2**20 if name == "ampere" else 668_532_736 + 64 * 2**20
    assert int(line["predicted.device_bytes"]) - int(line["predicted.reserved_bytes"]) == context


def test_a_point_that_cannot_be_predicted_is_a_row_that_says_so(tmp_path, capsys):
    """Zero-shot prediction trains nothing; the other rows of its sweep are still there."""
    shot, small = "{model: {name: sam3_zero_shot, prompt: leaf}}", "{model: {name: unet, width: 4}}"
    base = "base: {model: unet, dataset: procedural, transform: {size: 32}}"
    path = tmp_path / "mixed.yaml"
    head = f"name: mixed\nquestion: '?'\nprofiles:\n  full:\n    {base}\n    seeds: [0]\n    variants:\n"
    path.write_text(f"{head}      zero-shot [x]: {shot}\n      U-Net: {small}\n")
    assert main([str(path), "--results", str(tmp_path), "--card", "8"]) == 0
    said = capsys.readouterr()
    assert "not predicted, nothing in it trains" in said.out and said.err == ""
    first, second = csv.DictReader((tmp_path / "mixed-full" / "plan.csv").open())
    assert "nothing in it trains" in first["predicted.not_because"] and second["predicted.not_because"] == ""
    assert first["predicted.allocated_bytes"] == first["predicted.largest_batch"] == first["predicted.fits_8_gb"] == ""
    assert int(second["predicted.allocated_bytes"]) > 0 and second["predicted.fits_8_gb"] == "True"
    path.write_text(f"{head}      zero-shot: {shot}\n")
    assert main([str(path), "--results", str(tmp_path)]) == 1
    assert "nothing in it trains" in (tmp_path / "mixed-full" / "plan.md").read_text()


def test_a_plan_replaces_nothing_that_is_no_file(sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planner, "plan", lambda *what: pytest.fail("it has begun"))
    (tmp_path / "mine-full" / "plan.md").mkdir(parents=True)
    assert main([str(sweep_file), "--results", str(tmp_path)]) == 2
    assert "plan.md: is a folder, which no file may replace" in capsys.readouterr().err
