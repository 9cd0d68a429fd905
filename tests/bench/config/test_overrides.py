"""Overrides: key=value texts that change a profile."""

import itertools

import pytest
from small_sweep import GOOD, errors, loader  # noqa: F401

from bench.config.axes import Axis


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.adapter.rnk=8", "model.adapter.rnk: unknown key. Did you mean 'rank'? Allowed: placement, name, rank"),
        ("model.adapter.rank=0", "model.adapter.rank: should be greater than 0 (got 0)"),
        ("model.adapter.rank=[8, many]", "model.adapter.rank: should be a valid integer (got 'many')"),
        ("model.adapter.rank=true", "should be a valid integer (got True)"),
        ("model.adapter.rank=8.5", "should be a valid integer"),
        ("model.decoder.width=100", "should be a multiple of 8, e.g. 96, 104 (got 100)"),
        ("model.adapter.placement=lst:2", "is no placement. Allowed: all, none, first:N"),
        ("model.name=sam3_unt", "unknown model 'sam3_unt'. Did you mean 'sam3_unet'?"),
        ("train.lr=fast", "train.lr: should be a valid number (got 'fast')"),
        ("train.lr=-1", "train.lr: should be greater than 0"),
        (
            "train.loss=structur_loss",
            "Did you mean 'structure_loss'? Available: bce_loss, cross_entropy, structure_loss, weighted_structure_loss",
        ),
        ("trian.lr=1", "trian: unknown key. Did you mean 'train'?"),
        ("device=gpu", "device: should be 'cuda' or 'cpu' (got 'gpu')"),
        ("seeds=[]", "seeds: a list of whole numbers"),
        ("seeds=[1, 1]", "names one twice"),
        ("seed=3", "base.seed: seeds are listed under 'seeds'"),
        ("model.adapter.rank=[]", "has no values"),
        ("model.adapter.rank=[8, 8]", "has a value twice"),
        ("rank", "'rank' is no override"),
        ("a=[", "is no YAML value"),
        ("dataset.images=a", "dataset.masks: is missing"),
        ("dataset.masks=a", "dataset.images: is missing"),
        ("train=3", "train"),
    ],
)
def test_bad_override(sweep, override, expected):
    text = errors(sweep, GOOD, override)
    assert expected in text, text
    assert "Traceback" not in text


def test_the_path_of_an_axis_replaces_its_values(sweep):
    assert sweep(GOOD, "model.adapter.rank=16").axes[0] == Axis.over("model.adapter.rank", {"16": 16})
    assert sweep(GOOD, "seeds=5").seeds == (5,)


def test_paths_alone_make_a_folder_dataset(sweep):
    dataset = sweep(GOOD, "dataset.images=a", "dataset.masks=b", "dataset.val=0.2").base.dataset
    assert (dataset.name, dataset.images, dataset.masks, dataset.val) == ("folder", "a", "b", 0.2)


def test_another_name_starts_its_mapping_afresh(sweep):
    text = GOOD.replace("{name: procedural}", "{name: procedural, task: mirror}")
    assert sweep(text, "dataset.name=duts").base.dataset.name == "duts"
    assert sweep(text, "dataset.task=salient").base.dataset.task == "salient"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=null", "name: letters, digits"),
        ("name=../elsewhere", "name: letters, digits"),
        ("seeds=99999999999999999999", "beyond what torch takes"),
        ("train.lr=.inf", "base.train.lr: should be a finite number"),
    ],
)
def test_overrides_that_would_only_fail_later(sweep, override, expected):
    assert expected in errors(sweep, GOOD, override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["train.batch_size=2", "train={epochs: 1}"],
            "'train.batch_size=2' and 'train={epochs: 1}' set the same field",
        ),
        (["model=unet", "model.width=4"], "'model.width=4' and 'model=unet' set the same field. Give one mapping, or"),
        (["model.name=unet", "model={name: unet}"], "'model.name=unet' and 'model={name: unet}' set the same field"),
        (["model.encoder.dim=8", "model={name: unet}"], "'model.encoder.dim=8' and 'model={name: unet}' set the same"),
        (["train.epochs=1", "train.epochs=2"], "'train.epochs=1' and 'train.epochs=2' set the same field. Give one"),
        (["train.epochs=1", "train.epochs=1"], "set the same field"),
        (["seeds=0", "seeds=[1]"], "'seeds=0' and 'seeds=[1]' set the same field"),
        (["model.adapter.rank=2", "model.adapter.rank=[4]"], "'model.adapter.rank=2' and 'model.adapter.rank=[4]' set"),
        (["search=random", "search.name=grid"], "'search=random' and 'search.name=grid' set the same field"),
        (["search={name: random, points: 3}", "search.points=2"], "set the same field"),
        (["search.early_stopping={factor: 2}", "search.early_stopping=asha"], "set the same field"),
    ],
)
def test_overrides_whose_order_would_decide_are_refused_in_either_order(sweep, overrides, expected):
    said = errors(sweep, GOOD, *overrides)
    assert expected in said and len(said.splitlines()) == 2
    assert errors(sweep, GOOD, *reversed(overrides)).count("set the same field") == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.name=folder", "dataset.images=a", "dataset.masks=b"],
        ["dataset.masks=b", "dataset.images=a"],
        ["model.encoder.name=sam3_vit_tiny", "model.name=sam2_unet", "model.encoder.depth=4"],
        ["search=random", "search.points=1", "search.early_stopping=asha", "search.early_stopping.factor=2"],
        ["model.adapter.rank=[2, 4]", "model.adapter.name=lora"],
    ],
)
def test_the_order_of_overrides_means_nothing(sweep, overrides):
    first = sweep(GOOD, *overrides)
    assert all(sweep(GOOD, *order) == first for order in itertools.permutations(overrides))
