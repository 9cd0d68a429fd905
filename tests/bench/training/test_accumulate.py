"""``train.accumulate``: the gradients of micro-batches add up to those of the whole batch, and memory falls."""

import pytest
import torch
from pydantic import ValidationError

from bench.config.settings import TrainConfig, TransformConfig
from bench.memory.predicted_peak import predict_peak
from bench.training.batch_loss import batch_loss
from bench.training.data_parallel import Share
from models import MODELS

NO_BATCH_NORM = {
    "name": "sam3_unet",
    "encoder": {
        "name": "sam3_vit_tiny",
        "weights": "random",
        "depth": 2,
        "dim": 16,
        "global_blocks": [1],
        "drop_path": 0,
    },
    "decoder": {"name": "linear"},
}


def gradients(parts: int, processes: int = 1) -> dict[str, torch.Tensor]:
    """Gradients of a batch of 5 images; those of several processes are averaged, as data parallel training does."""
    torch.manual_seed(0)
    model = MODELS.build(MODELS.parse(NO_BATCH_NORM), 32, False).double().train()
    images = torch.randint(0, 255, (5, 32, 32, 3), dtype=torch.uint8)
    masks = torch.randint(0, 2, (5, 32, 32), dtype=torch.uint8) * 255
    for rank in range(processes):
        for part, weight in Share(rank, processes).micro_batches(5, parts):
            loss = batch_loss(Double(model), images[part], masks[part], TrainConfig(), TransformConfig(size=32))
            (loss * weight / processes).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class Double(torch.nn.Module):
    """In double precision, so that only a wrong weight of a micro-batch can make a difference."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.model(images.double())


@pytest.mark.parametrize(("parts", "processes"), [(2, 1), (3, 1), (5, 1), (2, 2)])
def test_gradients_are_those_of_the_whole_batch(parts, processes):
    whole, split = gradients(1), gradients(parts, processes)
    assert whole.keys() == split.keys() and whole
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_every_process_takes_as_many_micro_batches_and_every_image_once(processes, count, parts):
    shares = [Share(rank, processes) for rank in range(processes)]
    split = [share.micro_batches(count, parts) for share in shares]
    assert len({len(each) for each in split}) == 1 and len(split[0]) <= parts
    for share, each in zip(shares, split):
        images = [i for part, _ in each for i in range(count)[part]]
        assert images == list(range(count)[share.part(count)]) and all(part.stop > part.start for part, _ in each)
        assert sum(weight for _, weight in each) == pytest.approx(share.weight(count))
    assert parts > 1 or split[0][0][1] == shares[0].weight(count)  # to the bit


def test_more_micro_batches_than_images_are_refused():
    with pytest.raises(ValidationError, match="accumulate: 9 micro-batches are too many.*batch_size=8"):
        TrainConfig(batch_size=8, accumulate=9)


def test_the_prediction_knows_that_activations_of_one_micro_batch_exist_at_a_time(tiny_with):
    peak = [predict_peak(tiny_with({"train.batch_size": 8, "train.accumulate": parts})) for parts in (1, 4)]
    assert peak[1].parts["activations"] < 0.4 * peak[0].parts["activations"]
    smaller = predict_peak(tiny_with({"train.batch_size": 2}))
    assert peak[1].parts["activations"] >= smaller.parts["activations"]
