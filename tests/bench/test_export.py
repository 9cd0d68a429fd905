"""A trained model as ONNX: what onnxruntime computes from the file is what torch computes."""

import pytest

from bench import export
from bench.trial import run_trial


@pytest.fixture(params=["float32", "nf4"])
def trained(request, tiny_with, tmp_path):
    small = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1], "window": 2}
    config = tiny_with({"model.encoder": small, "model.frozen_weights": request.param})
    run_trial(config).save(tmp_path)
    return tmp_path / f"{config.trial_id}.safetensors"


def test_the_file_computes_what_torch_computes(trained, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert export.main([str(trained), str(tmp_path / "deep" / "model.onnx")]) == 0
    assert "agrees with torch" in capsys.readouterr().out
    assert (tmp_path / "deep" / "model.onnx").stat().st_size > 10_000


def test_a_difference_is_said_and_fails(trained, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export, "export", lambda model, size, path: path.touch() or 0.5)
    assert export.main([str(trained), str(tmp_path / "model.onnx")]) == 1
    assert "DIFFERS from torch" in capsys.readouterr().out


def test_without_the_packages_it_says_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert export.main(["x.safetensors", "y.onnx"]) == 2
    assert "not installed: onnx, onnxscript, onnxruntime. Get them with pip install" in capsys.readouterr().err


def test_wrong_input_is_one_line(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert export.main([str(tmp_path / "gone.safetensors"), str(tmp_path / "y.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_nothing_is_lost_and_nothing_begun_where_the_file_cannot_be_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export.trained_weights, "load", lambda path: pytest.fail("it has begun"))
    trained = tmp_path / "trained.safetensors"
    trained.write_bytes(b"learnt")
    (tmp_path / "link.onnx").symlink_to(trained)
    for out, expected in (
        (trained, "is an input, which would be lost"),
        (tmp_path / "link.onnx", f"is the same file as {trained}, an input"),
        (tmp_path, "is a folder, which no file may replace"),
        (trained / "below.onnx", "cannot be written"),
    ):
        assert export.main([str(trained), str(out)]) == 2
        assert expected in capsys.readouterr().err
    assert trained.read_bytes() == b"learnt"
