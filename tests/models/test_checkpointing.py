"""A decoder whose stages are computed twice learns exactly as one whose activations are kept."""

import pytest
import torch

from models import MODELS
from models._checkpointing import checkpoint_stages


def built(recomputed, decoder="light_unet"):
    encoder = {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1], "drop_path": 0.0}
    config = {
        "name": "sam3_unet",
        "encoder": encoder,
        "adapter": {"rank": 4},
        "decoder": {"name": decoder, "width": 16},
    }
    torch.manual_seed(0)
    return MODELS.build(MODELS.parse({**config, "checkpoint_decoder": recomputed}), 64, False).train()


def test_gradients_statistics_and_names_are_the_same():
    images = torch.randn(2, 3, 64, 64)
    models = [built(recomputed) for recomputed in (False, True)]
    for model in models:
        for _ in range(2):
            model.zero_grad()
            sum(logits.square().mean() for logits in model(images)).backward()
    plain, again = models
    assert list(plain.state_dict()) == list(again.state_dict())
    for (name, value), other in zip(plain.state_dict().items(), again.state_dict().values()):
        assert torch.equal(value, other), name
    for (name, parameter), other in zip(plain.named_parameters(), again.parameters()):
        assert (parameter.grad is None) == (other.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad), name


def test_without_a_graph_nothing_is_wrapped():
    model = built(True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images)[0], built(False).eval()(images)[0])


def test_a_stage_may_fail():
    layer = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    checkpoint_stages(layer)
    with pytest.raises(RuntimeError):
        layer(torch.randn(1, 3))
