"""Whole networks of segmentation_models_pytorch: weights, sizes and what is wrong with them."""

import pytest
import torch
from segmentation_models_pytorch.encoders import get_encoder

from models import MODELS
from models.core import weights
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

NAMES = ("smp_unet", "deeplabv3plus", "segformer")


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_size_works(name):
    model = skeleton(MODELS.parse(name), 336)
    assert model(torch.zeros(2, 3, 336, 336, device="meta"))[0].shape == (2, 1, 336, 336)


@pytest.mark.parametrize(("name", "size", "near"), [("deeplabv3plus", 40, "32, 48"), ("segformer", 38, "36, 40")])
def test_other_sizes_name_the_nearest(name, size, near):
    with pytest.raises(InvalidModel, match=f"{name}: transform.size {size} is no multiple of .* Nearest: {near}"):
        skeleton(MODELS.parse(name), size)


def test_weights_from_a_path_are_the_backbones(tmp_path):
    state = {
        n: torch.randn_like(v) if v.is_floating_point() else v for n, v in get_encoder("resnet18").state_dict().items()
    }
    torch.save(state, tmp_path / "resnet18.pt")
    config = MODELS.parse({"name": "smp_unet", "backbone": "resnet18", "weights": str(tmp_path / "resnet18.pt")})
    assert not list(config.missing()) and list(config.weight_files()) == [tmp_path / "resnet18.pt"]
    loaded = MODELS.build(config, 64, True).network.encoder.state_dict()
    assert all(torch.equal(loaded[n], v) for n, v in state.items())
    with pytest.raises(weights.WeightsError, match="these are not the weights of resnet34"):
        MODELS.build(config.model_copy(update={"backbone": "resnet34"}), 64, True)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_weights_that_are_not_there_are_missing_and_never_downloaded(name, monkeypatch):
    monkeypatch.setattr("models._smp.try_to_load_from_cache", lambda *arguments, **more: None)
    config = MODELS.parse(name)
    (missing,) = config.missing()
    assert missing.kind == "weights" and "hf download smp-hub/" in missing.remedy and "--revision" in missing.remedy
    with pytest.raises(weights.WeightsError, match="not in the Hugging Face cache"):
        MODELS.build(config, 64, True)
    assert not list(MODELS.parse({"name": name, "weights": "random"}).missing())


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(ValueError, match="no such encoder. Did you mean 'resnet34'"):
        MODELS.parse({"name": "smp_unet", "backbone": "resnet43"})
