"""SAM3 zero-shot: against a stand-in of the package's processor, and the real package's network without its weights."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import Sweep
from bench.datasets.core.transforms import to_input
from bench.leaderboard.results import Results, summarise
from bench.report.tables import markdown
from bench.trial import run_trial
from models import MODELS, sam3_zero_shot
from models.core import weights
from models.core.encoder_decoder import parameter_counts
from models.core.skeleton import skeleton


class Processor:
    """The interface of sam3 0.1.4's ``Sam3Processor``, as far as it is used; its masks are the image's channels."""

    calls: list = []

    def __init__(self, model, resolution=1008, device="cuda", confidence_threshold=0.5):
        self.confidence_threshold = confidence_threshold
        assert isinstance(model, nn.Linear) and device == "cpu" and resolution == 1008

    def set_image(self, image, state=None):
        assert image.dtype == torch.uint8 and image.ndim == 3
        return {"image": image}

    def set_text_prompt(self, prompt, state):
        self.calls.append((prompt, self.confidence_threshold, state["image"]))
        found = state["image"].float().unsqueeze(1) / 255
        return {**state, "masks_logits": found[:0] if "nothing" in prompt else found}


@pytest.fixture
def processor(monkeypatch):
    stand_in = ModuleType("sam3.model.sam3_image_processor")
    stand_in.Sam3Processor = Processor
    monkeypatch.setitem(sys.modules, "sam3.model.sam3_image_processor", stand_in)
    monkeypatch.setattr(sam3_zero_shot, "_network", lambda vocabulary: nn.Linear(2, 3))
    monkeypatch.setattr(sam3_zero_shot, "_load", lambda network, path: network)
    monkeypatch.setattr(Processor, "calls", [])
    return Processor


@pytest.mark.parametrize("normalisation", ["imagenet", "sam3"])
def test_the_processor_gets_the_images_as_they_were_and_the_best_instance_counts(processor, normalisation):
    config = MODELS.parse(
        {"name": "sam3_zero_shot", "prompt": "mirror", "confidence": 0.3, "input_normalisation": normalisation}
    )
    pixels = torch.randint(0, 256, (2, 12, 10, 3), dtype=torch.uint8)
    (logits,) = MODELS.build(config, 12, False)(to_input(pixels, normalisation))
    assert [(prompt, confidence) for prompt, confidence, _ in processor.calls] == [("mirror", 0.3)] * 2
    for image, (_, _, seen) in zip(pixels, processor.calls, strict=True):
        assert torch.equal(seen, image.permute(2, 0, 1))
    expected = (pixels.amax(dim=3).float() / 255).unsqueeze(1)
    torch.testing.assert_close(logits.sigmoid(), expected, atol=2e-6, rtol=0)


def test_nothing_found_is_background_everywhere(processor):
    model = MODELS.build(MODELS.parse({"name": "sam3_zero_shot", "prompt": "nothing"}), 12, False)
    (logits,) = model(torch.randn(1, 3, 12, 12))
    assert logits.shape == (1, 1, 12, 12) and (logits.sigmoid() < 1e-5).all()


@pytest.fixture
def trial(processor, tiny_with, tmp_path):
    for name in ("sam3.pt", "vocabulary.txt.gz"):
        (tmp_path / name).write_bytes(b"x")
    files = {"weights": str(tmp_path / "sam3.pt"), "vocabulary": str(tmp_path / "vocabulary.txt.gz")}
    return tiny_with({"model": {"name": "sam3_zero_shot", **files}})


def test_a_trial_is_scored_but_not_trained_and_its_record_says_so(trial):
    epochs = []
    record = run_trial(trial, on_epoch=epochs.append)
    assert record.status == "ok", record.error
    assert record.parameters["trainable"] == 0 and record.parameters["total"] == 9
    assert record.scores["mae"] > 0 and not epochs and record.curve == []
    assert set(record.memory) == {"evaluation"}
    assert record.timing.train_seconds is None and record.timing.train_images_per_second is None
    assert record.timing.inference_images_per_second > 0
    assert set(record.provenance.weights) == {"sam3.pt", "vocabulary.txt.gz"}


def test_the_leaderboard_says_not_trained_and_keeps_the_others_memory(trial, tiny):
    models = {"zero-shot": trial.model.model_dump(), "SAM3-UNet": tiny.model.model_dump()}
    sweep = Sweep("z", "Which?", "embedded", tiny, (Axis.over("model", models),), (0,))
    trials = expand(sweep)
    board = summarise(Results(sweep, trials, {t.trial_id: run_trial(t.config) for t in trials}))
    zero, unet = board.tables[0].rows
    assert zero.untrained and not unet.untrained and unet.on_front and not zero.on_front
    assert board.tables[0].memory_measure == "tensor_bytes"
    assert "1/1 (not trained)" in markdown(board)


def test_normalisation_has_to_be_the_transforms(tiny_with):
    with pytest.raises(ConfigError, match="model.input_normalisation: imagenet, but transform.normalisation is sam3"):
        tiny_with({"model": {"name": "sam3_zero_shot"}, "transform.normalisation": "sam3"})


def test_it_has_one_class():
    with pytest.raises(ValueError, match="num_classes"):
        MODELS.parse({"name": "sam3_zero_shot", "num_classes": 8})


def test_what_is_missing_is_said_with_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAM3_WEIGHTS", raising=False)
    monkeypatch.setattr(sam3_zero_shot, "PACKAGES", ("sam3", "no_such_package"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = {(m.kind, m.field): m for m in MODELS.parse("sam3_zero_shot").missing()}
    assert set(found) == {("package", "name"), ("device", "name"), ("weights", "weights"), ("weights", "vocabulary")}
    assert "no_such_package" in found["package", "name"].what
    assert "huggingface.co/facebook/sam3" in found["weights", "weights"].remedy


def test_incomplete_weights_are_an_error_and_the_rest_of_the_file_is_not(tmp_path):
    network = nn.Linear(2, 3)
    state = {f"detector.{n}": torch.ones_like(v) for n, v in network.state_dict().items()}
    torch.save({**state, "detector.extra": torch.zeros(1), "tracker.x": torch.zeros(1)}, tmp_path / "sam3.pt")
    assert (sam3_zero_shot._load(network, tmp_path / "sam3.pt").weight == 1).all()
    del state["detector.bias"]
    torch.save(state, tmp_path / "sam3.pt")
    with pytest.raises(weights.WeightsError, match="1 tensors of SAM3 are missing, such as bias"):
        sam3_zero_shot._load(network, tmp_path / "sam3.pt")


class Builder(ModuleType):
    """``sam3.model_builder``, which allows TF32 in the whole process when it is imported."""

    @property
    def build_sam3_image_model(self):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        return lambda **settings: nn.Linear(1, 1)


@pytest.mark.parametrize("tf32", [True, False])
def test_importing_the_package_does_not_decide_about_tf32(monkeypatch, tmp_path, tf32):
    monkeypatch.setitem(sys.modules, "sam3", ModuleType("sam3"))
    monkeypatch.setitem(sys.modules, "sam3.model_builder", Builder("sam3.model_builder"))
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = tf32
        assert isinstance(sam3_zero_shot._network(tmp_path / "vocabulary"), nn.Linear)
        assert [backend.allow_tf32 for backend in backends] == [tf32, tf32]
    finally:
        for backend, allowed in zip(backends, before):
            backend.allow_tf32 = allowed


def test_the_packages_own_network_can_be_built_without_a_gpu():
    pytest.importorskip("triton", reason="the whole sam3 package needs it")
    shape = skeleton(MODELS.parse("sam3_zero_shot"), 336)
    assert parameter_counts(shape) == {"total": 840_509_750, "trainable": 0, "encoder": 0, "adapter": 0, "decoder": 0}
    assert {p.device.type for p in shape.parameters()} == {"meta"}
