"""Files that are damaged or mean harm, and commands that read them: fixtures of several test files."""

import json
import os

import yaml
from hostile import NASTY, bounded, places, values
from hypothesis import strategies as st
from pairs import write_pairs

from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.trial import run_trial

EVIL = "touched"  # what no file may bring about


def command(capsys):
    """``command(main, *arguments)`` is the exit code and all that was said; what must never happen is asserted."""

    def execute(main, *arguments):
        capsys.readouterr()
        with bounded():
            try:
                code = main([str(a) for a in arguments])
            except SystemExit as end:  # argparse
                code = end.code
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), (code, out, err)
        assert "Traceback" not in out + err and not os.path.exists(EVIL)
        assert code != 2 or err
        assert len(err) < 20_000 and max(map(len, err.splitlines()), default=0) < 5_000
        return code, out + err

    return execute


def folders(tmp_path_factory):
    """Image and mask folders with good pairs of the size of the damaged ones, and a sweep that reads them."""
    root = tmp_path_factory.mktemp("pairs")
    images, masks = write_pairs(root, 6, size=(20, 24))
    text = yaml.safe_dump(
        {
            "name": "mine",
            "question": "Are they read?",
            "base": {
                "model": {"name": "unet", "width": 4},
                "dataset": {"name": "folder", "images": str(images), "masks": str(masks)},
                "transform": {"size": 32},
                "train": {"batch_size": 2, "epochs": 1},
                "device": "cpu",
            },
            "axes": {"train.epochs": [1]},
            "seeds": [0],
        }
    )
    (root / "sweep.yaml").write_text(text)
    return root


def finished(tmp_path_factory):
    """The folder of a sweep whose only trial has run; its sweep file; the record's path."""
    root = tmp_path_factory.mktemp("finished")
    tree = {
        "name": "mine",
        "question": "Is it read?",
        "base": {
            "model": {
                "name": "sam3_unet",
                "encoder": {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]},
                "adapter": {"rank": 2},
                "decoder": {"width": 8},
            },
            "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
            "transform": {"size": 32},
            "train": {"epochs": 1, "batch_size": 4},
            "device": "cpu",
        },
        "axes": {"model.adapter.rank": [2]},
        "seeds": [0],
    }
    (root / "sweep.yaml").write_text(yaml.safe_dump(tree))
    (root / "results" / "mine" / "external").mkdir(parents=True)
    (trial,) = expand(load_sweep(root / "sweep.yaml"))
    record = run_trial(trial.config)
    assert record.status == "ok", record.error
    record.save(root / "results" / "mine")
    return root


@st.composite
def changed_records(draw, text):
    tree = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from([p for p in places(tree) if p]))
        node = tree
        for key in above:
            node = node[key]
        change = draw(st.sampled_from(["delete", "replace", "rename"]))
        if change == "delete":
            del node[last]
        elif change == "replace" or isinstance(node, list):
            node[last] = draw(values)
        else:
            node[draw(st.sampled_from(NASTY))] = node.pop(last)
    return json.dumps(tree).encode()
