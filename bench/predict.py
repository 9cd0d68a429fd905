"""Maps for a folder of images, from the trained weights of a trial: ``python -m bench.predict FILE IMAGES OUT``."""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from bench.datasets import DataError
from bench.datasets.core.images import Rule, read_image
from bench.datasets.core.pairing import pictures
from bench.datasets.core.transforms import resize_image, to_input
from bench.scoring.evaluate import to_prediction
from bench.scoring.metric_types import NotFinite
from bench.system.console import ArgumentParser, Console, complain
from bench.system.device import device_of, float32_products
from bench.system.files import TargetError, check_targets, write_whole
from bench.system.machine import cores
from bench.training import trained_weights
from bench.watching.display import loading
from models.core.paths import expanded


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 every image has a mask, 1 some image has none, 2 the input is wrong, or a mask would
    replace an image."""
    parser = ArgumentParser(prog="python -m bench.predict", description=__doc__.split(":")[0])
    parser.add_argument("checkpoint", type=expanded, help="<trial_id>.safetensors, next to the trial's record")
    parser.add_argument("images", type=expanded, help="a folder of images")
    parser.add_argument(
        "out", type=expanded, help="folder for the maps: <stem>.png, 0..255 (not thresholded) or classes"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    try:
        files = _files(options)
        if options.out.is_dir() and options.out.samefile(options.images):
            raise TargetError(f"{options.out}: holds the images. Give another folder for the masks")
        config, model = trained_weights.load(options.checkpoint)
        options.out.mkdir(parents=True, exist_ok=True)
        targets = {path: options.out / f"{path.stem}.png" for path in files}
        check_targets(targets.values(), [options.checkpoint, *files])
    except (trained_weights.TrainedWeightsError, DataError, TargetError, OSError) as error:
        complain(error)
        return 2

    console.print(f"{len(files)} images, trial {config.trial_id} on {options.device}", markup=False)
    torch.set_num_threads(min(torch.get_num_threads(), cores()))  # torch does not know quotas
    device = device_of(options.device)
    model.to(device)
    protocol = config.protocol
    if protocol.quantise == "none":  # files have 8 bits
        protocol = protocol.model_copy(update={"quantise": "round"})
    rule = getattr(config.dataset, "exif", "auto")  # as the trial read its images
    failed: list[str] = []
    batches = (files[i : i + options.batch_size] for i in range(0, len(files), options.batch_size))
    count = -(-len(files) // options.batch_size)
    for batch in loading(console, "predicting")(batches, count):
        images = list(_readable(batch, rule, failed))
        if not images:
            continue
        pixels = torch.stack([torch.from_numpy(resize_image(i, config.transform.size).copy()) for _, i in images])
        with torch.no_grad(), float32_products(device, config.train.tf32):
            logits = model(to_input(pixels.to(device), config.transform.normalisation))[0]
        for (path, image), one in zip(images, logits):
            try:
                mask = to_prediction(one, (image.height, image.width), protocol)
            except NotFinite as error:
                failed.append(f"{path}: {error}; no mask is written")
                continue
            write_whole(targets[path], partial(Image.fromarray(mask).save, format="PNG"))
    console.print(f"wrote {len(files) - len(failed)} masks to {options.out}", markup=False)
    for line in failed:
        complain(line)
    return 1 if failed else 0


def _files(options: argparse.Namespace) -> list[Path]:
    """Returns the images to predict. Raises ``DataError`` if there are none, or if two would get the same mask."""
    if options.batch_size < 1:
        raise DataError([f"--batch-size {options.batch_size}: at least 1"])
    if options.device == "cuda" and not torch.cuda.is_available():
        raise DataError(["--device cuda: torch sees no NVIDIA GPU here. Leave it out, or give --device cpu"])
    if not options.images.is_dir():
        raise DataError([f"{options.images}: is no folder of images"])
    files, _ = pictures(options.images)
    if not files:
        raise DataError([f"{options.images}: holds no images"])
    counts = Counter(file.stem for file in files)
    twice = sorted(stem for stem, count in counts.items() if count > 1)
    if twice:
        raise DataError([f"{options.images}: more than one image called {', '.join(twice[:5])}; masks would collide"])
    return sorted(files)


def _readable(files: list[Path], rule: Rule, unreadable: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Yields the images that can be read; ``unreadable`` gets a line for each other image."""
    for path in files:
        try:
            yield path, read_image(path, rule)
        except DataError as error:
            unreadable += error.errors


if __name__ == "__main__":
    sys.exit(command.run(main))
