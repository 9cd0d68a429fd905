"""A trained model as ONNX, checked against torch: ``python -m bench.export FILE model.onnx``.

Needs the extra ``onnx`` (``pip install -e '.[onnx]'``). Images go in normalised, as ``bench.transforms`` makes them.
"""

import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench import checkpoint
from bench.console import ArgumentParser, complain, replace_what_streams_lack
from bench.harmless import harmless
from models._paths import expanded
from models._size import height_width

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3


class _Answer(nn.Module):
    """The first logits only: further ones are deep supervision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[0]


def export(model: nn.Module, image_size: int | tuple[int, int], path: Path) -> float:
    """Writes ``images [B, 3, H, W] -> logits [B, 1, H, W]``, B free; returns the largest difference to torch.

    The difference is taken in onnxruntime on the CPU, on normal noise, for one image and for a batch of three.
    """
    import onnxruntime  # in an extra of its own, like all that torch.onnx needs

    answer = _Answer(model).eval()
    batch = torch.export.Dim("batch", min=1)
    example = torch.randn(2, 3, *height_width(image_size), generator=torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        program = torch.onnx.export(
            answer,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: batch}},
        )
    program.save(path, external_data=_bytes(model) > 2**30)  # one protobuf file holds at most 2 GiB
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for count in (1, 3):
        images = torch.randn(count, 3, *height_width(image_size), generator=torch.Generator().manual_seed(count))
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            difference = max(difference, float(np.abs(found - answer(images).numpy()).max()))
    return difference


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def main(arguments: list[str]) -> int:
    """Exit code: 0 written and equal to torch within 1e-3, 1 written but different, 2 the input is wrong."""
    replace_what_streams_lack()
    parser = ArgumentParser(prog="python -m bench.export", description=__doc__.split(":")[0])
    parser.add_argument("checkpoint", type=expanded, help="<trial_id>.safetensors, as it lies beside a trial's record")
    parser.add_argument("out", type=expanded, help="the ONNX file to write")
    options = parser.parse_args(arguments)
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        complain(f"not installed: {', '.join(absent)}. Get them with pip install -e '.[onnx]'")
        return 2
    try:
        config, model = checkpoint.load(options.checkpoint)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (checkpoint.CheckpointError, OSError) as error:
        complain(error)
        return 2
    difference = export(model, config.transform.size, options.out)
    agrees = difference <= TOLERANCE
    verdict = "agrees with torch" if agrees else f"DIFFERS from torch by more than {TOLERANCE}"
    size = f"{options.out.stat().st_size / 2**20:.1f} MiB"
    print(harmless(f"{options.out}: {size}, {verdict} (largest difference {difference:.1e})"))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
