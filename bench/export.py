"""A trained model as ONNX, checked against torch: ``python -m bench.export FILE model.onnx``.

The extra ``onnx`` is needed (``pip install -e '.[onnx]'``). The ONNX model takes normalised images, as
``bench.datasets.core.transforms.to_input`` returns them.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import logging
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.system.console import ArgumentParser, complain
from bench.system.files import TargetError, check_targets
from bench.system.sanitize import harmless
from bench.training import trained_weights
from models.core.paths import expanded
from models.core.size import height_width

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Largest difference of logits that counts as equal."""


class _FirstLogits(nn.Module):
    """The model without its further logits, which are deep supervision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[0]


def export(model: nn.Module, image_size: int | tuple[int, int], path: Path) -> float:
    """Writes ``images [B, 3, H, W] -> logits [B, 1, H, W]`` with a free B; returns the largest difference to torch.

    The file is written whole or not at all. The difference is measured in onnxruntime on the CPU, on normal noise, for
    one image and for a batch of three.
    """
    import onnxruntime  # optional: it belongs to the extra onnx

    first = _FirstLogits(model).eval()
    batch = torch.export.Dim("batch", min=1)
    example = torch.randn(2, 3, *height_width(image_size), generator=torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own code
        program = torch.onnx.export(
            first,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: batch}},
        )
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        program.save(whole, external_data=_bytes(model) > 2**30)  # one protobuf file holds at most 2 GiB
        session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])
        difference = 0.0
        for count in (1, 3):
            images = torch.randn(count, 3, *height_width(image_size), generator=torch.Generator().manual_seed(count))
            (found,) = session.run(None, {"images": images.numpy()})
            with torch.no_grad():
                difference = max(difference, float(np.abs(found - first(images).numpy()).max()))
        for file in whole.parent.iterdir():  # one file, or two if the weights have their own
            file.replace(path.with_name(file.name))
    return difference


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 written and equal to torch within 1e-3, 1 written but different, 2 the input is wrong or
    the file cannot be written."""
    parser = ArgumentParser(prog="python -m bench.export", description=__doc__.split(":")[0])
    parser.add_argument("checkpoint", type=expanded, help="<trial_id>.safetensors, next to the trial's record")
    parser.add_argument("out", type=expanded, help="the ONNX file to write")
    options = parser.parse_args(arguments)
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        complain(f"not installed: {', '.join(absent)}. Get them with pip install -e '.[onnx]'")
        return 2
    try:
        check_targets([options.out, options.out.with_name(f"{options.out.name}.data")], [options.checkpoint])
        config, model = trained_weights.load(options.checkpoint)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        difference = export(model, config.transform.size, options.out)
    except (trained_weights.TrainedWeightsError, TargetError, OSError) as error:
        complain(error)
        return 2
    agrees = difference <= TOLERANCE
    verdict = "agrees with torch" if agrees else f"DIFFERS from torch by more than {TOLERANCE}"
    size = f"{options.out.stat().st_size / 2**20:.1f} MiB"
    print(harmless(f"{options.out}: {size}, {verdict} (largest difference {difference:.1e})"))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(command.run(main))
