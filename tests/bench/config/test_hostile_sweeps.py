"""Sweep files and overrides that mean harm, or nothing: each ends in success or one clear error, in bounded time and
memory, and runs no code. Mutations are drawn by hypothesis from a fixed seed; what fuzzing has found stands by name."""

import copy
import json
import os
import re

import pytest
import yaml
from conftest import examples
from hostile import HOSTILE, NASTY, bounded, places, values
from hostile_sweeps import CONTENTS, GOOD, GOOD_TEXT, PIECES, TAGS
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import plan, run
from bench.memory import sweep_plan
from bench.memory.predicted_peak import PredictedPeak
from bench.memory.step_memory import PARTS, StepMemory

GIB = 2**30


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the sweep file, whose only other content are the results that it asks for."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "results").mkdir()
    return place


@pytest.fixture
def said(place, capsys, monkeypatch):
    """``said(text, *overrides)`` is a dry run's exit code and error text; what must never happen is asserted."""
    monkeypatch.chdir(place)

    def dry_run(text, *overrides, command=run.main, more=("--dry-run",)):
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        (place / "sweep.yaml").write_bytes(content)
        capsys.readouterr()
        with bounded():
            try:
                code = command(["sweep.yaml", *more, "--results", "results", "--", *overrides])
            except SystemExit as end:  # argparse, of an override that looks like an option
                code = end.code
        out, err = capsys.readouterr()
        assert code in (0, 2), (code, out, err)
        assert "Traceback" not in out + err and "\x1b" not in out + err
        assert bool(err) == (code == 2), (code, err)
        assert len(err) < 20_000 and max(map(len, err.splitlines()), default=0) < 5_000
        assert sorted(os.listdir(place)) == ["results", "sweep.yaml"]
        return code, err

    return dry_run


# --- mutations --------------------------------------------------------------------------------------------------------


@st.composite
def mutated_trees(draw):
    """The good sweep with one to three of its parts deleted, replaced, renamed, doubled, added or moved."""
    tree = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in places(tree) if p]))
        *above, last = path
        node = tree
        for key in above:
            node = node[key]
        change = draw(st.sampled_from(["delete", "replace", "rename", "add", "move", "wrap"]))
        if change == "delete":
            del node[last]
        elif change == "replace":
            node[last] = draw(values)
        elif change == "wrap":
            node[last] = draw(st.sampled_from([[node[last]], {"name": node[last]}, [node[last], node[last]]]))
        elif change == "move":
            other = draw(st.sampled_from([p for p in places(GOOD) if p]))
            value = GOOD
            for key in other:
                value = value[key]
            node[last] = copy.deepcopy(value)
        elif isinstance(node, dict):
            key = draw(st.one_of(st.sampled_from(NASTY), st.sampled_from(["seed", "rnak", "tuned_blocks", "name", 7])))
            node[key] = node.pop(last) if change == "rename" else draw(values)
        else:
            node.append(draw(values))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


@st.composite
def mutated_texts(draw):
    """The good sweep's text with one to four stretches cut, doubled, swapped for, or mixed with something else."""
    text = GOOD_TEXT
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=3), st.just(text[at : at + 40])))
        text = text[:at] + piece + text[at + length :]
    return text


@HOSTILE
@given(mutated_trees())
def test_sweeps_whose_parts_are_changed(said, text):
    said(text)


@HOSTILE
@given(mutated_texts())
def test_sweeps_whose_text_is_changed(said, text):
    said(text)


@pytest.mark.parametrize("tag", ["", *TAGS])
def test_no_tag_and_no_content_ends_in_a_traceback(said, tag):
    """As a value, as a key, in a list, and in an override."""
    for content in CONTENTS:
        piece = f"{tag} {content}".strip()
        for place in (f"epochs: {piece}", f"? {piece}\n        : 1", f"epochs: [{piece}]", f"epochs: {{{piece}: 1}}"):
            said(GOOD_TEXT.replace("epochs: 1", place))
        said(GOOD_TEXT, f"train.epochs={piece}")


paths = st.sampled_from([".".join(map(str, p[3:])) for p in places(GOOD) if p[:3] == ("profiles", "embedded", "base")])
keys = st.one_of(
    paths, st.sampled_from(["seeds", "name", "model", "base", "axes", "a.b.c", "model.adapter.rank.x", ""])
)
texts = st.one_of(values.map(lambda v: yaml.safe_dump(v, default_flow_style=True).strip()), st.sampled_from(PIECES))


@settings(HOSTILE, max_examples=examples(150))
@given(st.lists(st.builds("{}={}".format, keys, texts), min_size=1, max_size=2))
def test_overrides_are_changed(said, overrides):
    overrides = [text for text in overrides if "\u0000" not in text and "\ud800" not in text]  # no shell can pass them
    said(GOOD_TEXT, *overrides)


# --- by name ----------------------------------------------------------------------------------------------------------


def laughs(line):
    """Ten to the thirtieth values in a few lines: each name stands for nine of the last."""
    names = [f"a{i}: &a{i} " + line.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 30)]
    return "\n".join(["a0: &a0 {k: 1}", *names, GOOD_TEXT])


def with_axes(axes, seeds="[0, 1]"):
    tree = copy.deepcopy(GOOD)
    tree["profiles"] = {"embedded": tree["profiles"]["embedded"]}
    tree["profiles"]["embedded"]["axes"] = axes
    return yaml.safe_dump(tree).replace("- 0\n      - 1\n", "")


def changed(old, new):
    assert old in GOOD_TEXT
    return GOOD_TEXT.replace(old, new)


ARRANGED = {
    "aliases of aliases": (laughs("[{}]"), "more than 20,000 values, aliases written out"),
    "merges of merges": (laughs("{{<<: [{}]}}"), "more than 20,000 values, aliases written out"),
    "an alias of itself": ("&a {name: mine, profiles: *a}", "an alias stands within what it names"),
    "nested lists": ("name: " + "[" * 100_000, "nested more than 40 levels deep"),
    "nested mappings": ("{a: " * 20_000, "nested more than 40 levels deep"),
    "a file of megabytes": ("name: x\n" * 400_000, "more than 256 KiB"),
    "keys without end": ("{" + ", ".join(f"k{i}: 1" for i in range(15_000)) + "}", "values, aliases written out"),
    "a call": (changed("Does it work?", "!!python/object/apply:os.system ['touch evil']"), "is no kind of value here"),
    "a class": (changed("Does it work?", "!!python/name:os.system"), "is no kind of value here"),
    "a date": (changed("Does it work?", "2001-12-14"), "'timestamp' is no kind of value here. Put a text in quotes"),
    "no date": (changed("Does it work?", "2001-99-99"), "'timestamp' is no kind of value here"),
    "control characters": (changed("Does it work?", '"\\e[2J"'), "holds the character U+001B"),
    "half a character": (changed("Does it work?", '"\\ud800"'), "holds the character U+D800"),
    "bytes": (b"\xff\xfe\x00name", "cannot be read"),
    "a number of 5000 digits": (changed("width: 8", f"width: {'9' * 5000}"), "has 5,000 characters. At most 30"),
    "a text without end": (changed("Does it work?", "x" * 3000), "has 3,000 characters. At most 2000"),
    "a name above": (changed("name: mine", "name: ../../evil"), "name: "),
    "a name of 101": (changed("name: mine", f"name: {'x' * 101}"), "name: "),
    "a profile above": (changed("second:", "../../../evil:"), "profiles.../../../evil"),
    "a profile in two lines": (changed("second:", '"a\\nb":'), "profiles."),
}


@pytest.mark.parametrize(("text", "part"), ARRANGED.values(), ids=ARRANGED)
def test_what_is_arranged_to_hurt_is_refused(said, text, part):
    code, err = said(text)
    assert code == 2 and part in err


@pytest.mark.parametrize(
    ("axes", "part"),
    [
        ({f"train.{n}": list(range(1, 12)) for n in ("epochs", "batch_size")} | {"seed": [1]}, "seeds are listed"),
        ({"model.adapter.rank": list(range(1, 10_002))}, "10,003 values and seeds are too many"),
        (
            {p: list(range(1, 41)) for p in ("model.adapter.rank", "train.epochs", "train.batch_size")},
            "axes and seeds multiply to 128,000 trials. At most 10,000",
        ),
        ({"model.adapter.rank": [-n for n in range(1, 300)]}, "and 249 more"),
    ],
    ids=["a seed", "values", "products", "errors"],
)
def test_axes_without_end_are_refused(said, axes, part):
    code, err = said(with_axes(axes))
    assert code == 2 and part in err


@pytest.mark.parametrize("value", [10**9, 2**62, 10**25])
@pytest.mark.parametrize(
    "path",
    [
        "transform.size",
        "train.batch_size",
        "train.epochs",
        "model.adapter.rank",
        "model.decoder.width",
        "model.encoder.depth",
        "model.encoder.dim",
        "model.encoder.heads",
        "model.encoder.window",
        "model.encoder.patch",
        "model.encoder.pretrain_size",
        "model.encoder.global_blocks",
        "dataset.train",
        "dataset.side",
        "seeds",
    ],
)
def test_giant_numbers_are_refused_at_once(said, path, value):
    value = value // 8 * 8
    text = f"[{value}]" if path == "model.encoder.global_blocks" else f"{value}"
    code, err = said(GOOD_TEXT, f"{path}={text}")
    if path == "seeds" and value < 2**63:
        assert code == 0
    else:
        assert code == 2 and (path.rsplit(".")[-1] in err or "size" in err)


@pytest.mark.parametrize("value", [999_992, 8192])
@pytest.mark.parametrize("part", ["adapter.rank", "decoder.width", "encoder.dim", "encoder.heads", "encoder.window"])
def test_large_numbers_that_are_allowed_take_no_memory(said, part, value):
    said(GOOD_TEXT, f"model.{part}={value}")


def test_names_and_questions_cannot_break_out_of_a_page(said, place, tmp_path, capsys, monkeypatch):
    """Markdown holds what was written as text: no tag, no link, no code, no table cell of its own."""
    step = StepMemory(dict.fromkeys(PARTS, GIB), "forward", 7 * GIB)
    monkeypatch.setattr(sweep_plan, "predict_peak", lambda config, generation: PredictedPeak(step))
    question = "<script>alert(1)</script> | [x](javascript:y) `z` \\input{/etc/passwd} [bold red]r[/]"
    text = GOOD_TEXT.replace("Does it work?", json.dumps(question)).replace("narrow:", "'<b>|[/]|</b>':")
    assert said(text)[0] == 0
    assert plan.main([str(place / "sweep.yaml"), "--profile", "embedded", "--results", str(tmp_path)]) == 0
    assert "[/]" in capsys.readouterr().out
    page = (tmp_path / "mine" / "plan.md").read_text()
    assert "script" in page and not re.findall(r"(?<!\\)[<`]|(?<!\\)\]\(", page)
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
