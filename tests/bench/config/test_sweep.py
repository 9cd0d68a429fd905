"""Sweep files, good and bad: what is wrong is said in one line each, all at once, with where and what instead."""

import pytest
from small_sweep import GOOD, errors, loader  # noqa: F401

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.config.trial import TrialConfig
from bench.config.yaml_file import parse


def test_defaults_are_upstreams_recipe():
    config = TrialConfig.model_validate({"model": "sam3_unet", "dataset": "duts"})
    train, transform = config.train, config.transform
    assert (train.epochs, train.batch_size, train.lr, train.min_lr, train.weight_decay) == (20, 12, 2e-4, 1e-7, 5e-4)
    assert (transform.size, transform.hflip, transform.vflip, transform.normalisation) == (336, 0.5, 0.5, "imagenet")
    assert (config.model.adapter.rank, config.model.adapter.placement, config.model.decoder.width) == (32, "all", 128)
    assert (config.model.encoder.drop_path, config.model.encoder.checkpointing) == (0.1, True)


def test_a_good_file(sweep):
    got = sweep()
    assert (got.name, got.seeds, got.profile) == ("mine", (0, 1), "default")
    assert got.axes[0] == Axis.over("model.adapter.rank", {"4": 4, "8": 8})


def test_numbers_in_scientific_notation_are_numbers(sweep):
    for text in ("2e-4", "2.0e-4", "0.0002", "2E-4", ".2e-3"):
        got = sweep(GOOD, f"train.lr={text}")
        assert got.base.train.lr == 0.0002
        assert got.base.trial_id == sweep(GOOD, "train.lr=0.0002").base.trial_id
    rates = sweep(GOOD.replace("axes:", "axes:\n  train.lr: [1e-3, 2e-4]")).axes[0]
    assert rates == Axis.over("train.lr", {"0.001": 1e-3, "0.0002": 2e-4})


def test_identity_depends_on_values_not_on_how_they_are_written(sweep):
    plain = sweep().base.trial_id
    assert plain == sweep(GOOD, "model.adapter.placement=all", "train.epochs=20").base.trial_id
    assert plain == sweep(GOOD.replace("encoder: sam3_vit_tiny", "encoder: {name: sam3_vit_tiny}")).base.trial_id
    assert plain != sweep(GOOD, "train.epochs=19").base.trial_id
    assert len(plain) == 12


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[4, 8]", "[]", "axes.model.adapter.rank: has no values. Give at least one"),
        ("model.adapter.rank: [4, 8]", "{}", "axes: there are none"),
        ("model.adapter.rank", "model.adapter.rnk", "no field 'rnk'. Did you mean 'rank'? Fields here:"),
        ("model.adapter.rank", "model.adapter.rank.x", "'model.adapter.rank' has no fields of its own"),
        ("model.adapter.rank: [4, 8]", "seed: [1]", "seeds are listed under 'seeds'"),
        ("[4, 8]", "7", "needs a list of values"),
        ("axes:", "axes:\n  model.adapter: [bottleneck]", "the same field is set by axis 'model.adapter'"),
        ("model.adapter.rank: [4, 8]", "model.adapter.rank: [4]\n  model.adapter.rank: [8]", "stands here twice (line"),
        ("question: Does it work?\n", "", "question: is missing"),
        ("name: mine", "name: ../mine", "name: "),
        ("name: mine", "nme: mine", "nme: unknown key. Did you mean 'name'?"),
        ("device: cpu", "device: cpu\n  epochs: 3", "base.epochs: unknown key"),
        ("seeds: [0, 1]", "seeds: [0, x]", "seeds.1: should be a valid integer (got 'x')"),
        ("base:", "base: !!python/object/apply:os.system ['true']\nbse:", "is no valid YAML"),
        ("axes:", "axes: [", "is no valid YAML"),
    ],
)
def test_bad_file(sweep, old, new, expected):
    assert old in GOOD
    text = errors(sweep, GOOD.replace(old, new, 1))
    assert expected in text, text
    assert "mine.yaml" in text and "Traceback" not in text


def test_all_errors_come_at_once(sweep):
    text = errors(sweep, GOOD, "train.epochs=0", "train.batch_size=x", "transform.sise=3", "model.decoder.width=3")
    for part in ("train.epochs", "train.batch_size", "transform.sise", "model.decoder.width"):
        assert part in text
    assert len(text.splitlines()) == 5


def test_an_unreadable_file_is_one_line(tmp_path):
    (tmp_path / "adapter_rank.yaml").write_text(GOOD)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    for name, expected in {
        "adapter_rnk.yaml": "no such file. Did you mean",
        "list.yaml": "is a mapping",
        "latin.yaml": "cannot be read",
        ".": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=expected):
            load_sweep(tmp_path / name)


def test_merge_keys_are_yaml_like_any_other(sweep):
    merged = GOOD.replace("device: cpu", "device: cpu\n  train: {<<: {epochs: 3, lr: 0.1}, lr: 0.2}")
    train = sweep(merged).base.train
    assert (train.epochs, train.lr) == (3, 0.2)


def test_profiles(sweep):
    body = GOOD.split("base:")[1].replace("\n", "\n    ")
    text = f"name: two\nquestion: Which?\nprofiles:\n  small:\n    base:{body}\n  large:\n    base:{body}"
    assert sweep(text).profile == "small"
    assert sweep(text, "train.epochs=3", profile="large").base.train.epochs == 3
    assert "no profile 'lrge'. Did you mean 'large'? Profiles: small, large" in errors(sweep, text, profile="lrge")
    broken = text.replace("device: cpu", "device: abacus")
    assert "profiles.small.base.device" in errors(sweep, broken) and "profiles.large.base.device" in errors(
        sweep, broken
    )


VARIANTS = """variants:
  as it is: {}
  small and long: {model.adapter.rank: 2, train.epochs: 30}
seeds:"""


def test_variants_are_an_axis_whose_points_set_what_they_like(sweep):
    text = GOOD.replace("axes:\n  model.adapter.rank: [4, 8]\n", "").replace("seeds:", VARIANTS)
    (axis,) = sweep(text).axes
    assert axis.name == "variant" and axis.points[0] == ("as it is", {})
    trials = expand(sweep(text))
    assert [(t.point, t.config.model.adapter.rank, t.config.train.epochs) for t in trials[::2]] == [
        (("as it is",), 32, 20),
        (("small and long",), 2, 30),
    ]
    beside = GOOD.replace("model.adapter.rank: [4, 8]", "model.decoder.width: [8, 16]").replace("seeds:", VARIANTS)
    assert len(expand(sweep(beside))) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rank: 2", "rnk: 2", "variants: model.adapter.rnk: no field 'rnk'. Did you mean 'rank'?"),
        (
            "rank: 2",
            "rank: two",
            "variants = small and long: model.adapter.rank: should be a valid integer (got 'two')",
        ),
        ("{}", "3", "variants.as it is: should be a valid dictionary (got 3)"),
        (
            "{}",
            "{model: unet, model.encoder.checkpointing: 1}",
            "variants = as it is: model: 'unet' and model.encoder.checkpointing set the same field. Give one mapping",
        ),
        (
            "{}",
            "{model.encoder.checkpointing: 1, model.encoder: {name: sam3_vit_tiny}}",
            "variants = as it is: model.encoder: {'name': 'sam3_vit_tiny'} and model.encoder.checkpointing set",
        ),
        ("{}", "{train: 3, train.lr: 1e-3}", "variants = as it is: train: 3 and train.lr set the same field"),
        (
            "model.adapter.rank: [4, 8]",
            "train.epochs: [1, 2]",
            "variants: the same field is set by axis 'train.epochs'",
        ),
    ],
)
def test_bad_variants(sweep, old, new, expected):
    text = GOOD.replace("model.adapter.rank: [4, 8]", "train.lr: [1e-3]").replace("seeds:", VARIANTS)
    if old.startswith("model"):
        old = "train.lr: [1e-3]"
    assert expected in errors(sweep, text.replace(old, new, 1))


def test_axes_of_whole_subtrees_have_labels(sweep):
    text = GOOD.replace("model.adapter.rank: [4, 8]", "model: {U: {name: unet, width: 4}, S: sam3_unet}")
    assert [label for label, _ in sweep(text).axes[0].points] == ["U", "S"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", "'010' is 8 in YAML 1.1 and 10 in YAML 1.2. Write it as a decimal number"),
        ("1:00", "'1:00' is a whole number in YAML 1.1 and a text in YAML 1.2"),
        ("1:30", "in YAML 1.1"),
        ("1:30.5", "'1:30.5' is a number in YAML 1.1"),
        ("1_000", "'1_000' is a whole number in YAML 1.1"),
        ("0b11", "'0b11' is a whole number in YAML 1.1"),
        ("-0x10", "in YAML 1.1"),
        ("08", "'08' is a text in YAML 1.1 and a whole number in YAML 1.2"),
        ("0o17", "'0o17' is a text in YAML 1.1 and a whole number in YAML 1.2"),
        ("yes", "'yes' is a truth value in YAML 1.1 and a text in YAML 1.2. Write true or false, or a text in quotes"),
        ("Off", "'Off' is a truth value in YAML 1.1"),
        ("2001-12-14", "'timestamp' is no kind of value here. Put a text in quotes"),
        ("!!bool maybe", "'maybe' is not a truth value, as its tag says"),
        ("!!int ''", "'' is not a whole number, as its tag says"),
        ("!!int '-'", "'-' is not a whole number"),
        ("!!int 010", "'010' is not a whole number"),
        ("!!float ''", "'' is not a number, as its tag says"),
        ("!!null 5", "'5' is not nothing, as its tag says"),
        ("!!binary aGk=", "'binary' is no kind of value here"),
        ("!own 3", "'!own' is no kind of value here"),
    ],
)
def test_what_two_versions_of_yaml_read_differently_is_refused_where_it_stands(sweep, text, expected):
    said = errors(sweep, GOOD.replace("size: 96", f"size: {text}"))
    assert expected in said and "(line 7, column 21)" in said and len(said.splitlines()) == 1
    said = errors(sweep, GOOD.replace("size: 96", f"? {text}\n    : 96").replace("{? ", "{? "))
    assert expected in said
    assert expected in errors(sweep, GOOD, f"train.epochs={text}")
    assert expected in errors(sweep, GOOD, f"train.epochs=[3, {text}]")


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x10", 16), ("7", 7), ("07", 7), ("!!int 7", 7), ("1e1", 10.0), ("1.", 1.0), (".5", 0.5), ("!!float 3", 3.0)]
    + [("'010'", "010"), ("!!str 010", "010"), ('"yes"', "yes"), ("true", True), ("~", None), ("a:b", "a:b")],
)
def test_what_both_versions_read_alike_is_read(text, value):
    assert parse(text) == value and parse(f"[{text}]") == [value] and type(parse(text)) is type(value)


@pytest.mark.parametrize("label", ['"one\\ntwo"', '"one\\ttwo"', '"one\\u2028two"'])
def test_labels_are_one_line(sweep, label):
    said = errors(sweep, GOOD.replace("[4, 8]", f"{{{label}: 4}}"))
    assert "axes.model.adapter.rank: the label 'one" in said and "is no line of text" in said
    said = errors(sweep, GOOD.replace("seeds:", VARIANTS).replace("as it is", label))
    assert "variants: the label 'one" in said


def test_a_sum_in_bfloat16_without_autocast_would_change_nothing(sweep):
    said = errors(sweep, GOOD, "model.encoder.residual=bfloat16")
    assert "model.encoder.residual: bfloat16 is the type of a sum under autocast" in said
    assert "Set train.precision=bfloat16, or model.encoder.residual=float32" in said and said.count("\n") == 1
    both = sweep(GOOD, "model.encoder.residual=bfloat16", "train.precision=bfloat16").base
    assert both.model.encoder.residual == both.train.precision == "bfloat16"


@pytest.mark.parametrize("value", ["0", "-3", "2.0", "null", "[1, 2]"])
def test_a_wrong_number_of_recomputed_blocks_is_one_line(sweep, value):
    said = errors(sweep, GOOD, f"model.encoder.checkpointing={value}")
    allowed = "should be true (all blocks), false, or a number of the first blocks, from 1 on"
    assert f"base.model.encoder.checkpointing: {allowed} (got " in said and said.count("\n") == 1


def test_errors_name_whole_paths_and_values_as_yaml_writes_them(sweep):
    said = errors(sweep, GOOD, "train.compile=all")
    assert "base.train.compile: should be false, 'blocks' or 'step' (got 'all')" in said
    said = errors(sweep, GOOD, "train.accumulate=4", "train.batch_size=2")
    assert "base.train.accumulate: 4 micro-batches are too many" in said and "At most 2" in said


def test_a_model_without_blocks_has_one_remedy(sweep):
    text = GOOD.replace("model.adapter.rank: [4, 8]", "train.epochs: [1, 2]")
    said = errors(sweep, text, "model={name: unet}", "train.compile=step")
    assert "unet has no encoder blocks to compile. Set train.compile=false" in said and "CUDA graph" not in said
