"""Pre-trains the weights of the tiny encoder: ``python -m bench.tools.pretrain_tiny`` (about 20 minutes on 2 cores).

The tasks are dense, but none of the benchmark's: material of every pixel, order of the layers by depth, and outlines,
in procedural scenes of their own (``bench.datasets.scenes.tasks.materials``). Only the encoder is kept.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import sys
import time

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bench.datasets.core.transforms import to_input
from bench.datasets.scenes import tasks
from bench.datasets.scenes.surfaces import MATERIALS
from bench.system.console import ArgumentParser, complain
from bench.system.files import TargetError, check_targets, write_whole
from bench.system.machine import cores
from bench.system.sanitize import harmless
from models.core.paths import expanded
from models.core.registry import Config
from models.encoders import sam3_vit_tiny

SEED = 20251202
STEPS = 3000
BATCH = 32
LEARNING_RATE = 2e-3
CELLS = 4  # targets per patch and side
CLASSES = len(MATERIALS)


class Scenes(Dataset):
    """Scene ``index`` of a seed: image uint8 [s, s, 3] and targets uint8 [s, s, 3]."""

    def __init__(self, seed: int, count: int, size: int) -> None:
        self.seed, self.count, self.size = seed, count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return tasks.materials(np.random.default_rng([self.seed, index]), self.size)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compares outputs [B, CLASSES + 2, h, w] with targets uint8 [B, s, s, 3], read at the centre of each cell."""
    step = targets.shape[1] // outputs.shape[-1]
    targets = targets[:, step // 2 :: step, step // 2 :: step]
    material = F.cross_entropy(outputs[:, :CLASSES], targets[..., 0].long())
    depth = F.l1_loss(outputs[:, CLASSES].sigmoid(), targets[..., 1] / 255)
    outlines = F.binary_cross_entropy_with_logits(outputs[:, CLASSES + 1], targets[..., 2] / 255)
    return material + depth + outlines


def pretrain(config: Config, seed: int, steps: int) -> tuple[nn.Module, float]:
    """Trains on ``steps`` batches of scenes; returns the encoder and the mean loss of the last tenth of the steps."""
    torch.manual_seed(seed)
    encoder = sam3_vit_tiny.build(config, config.pretrain_size)
    head = nn.Sequential(nn.Conv2d(config.dim, (CLASSES + 2) * CELLS**2, 1), nn.PixelShuffle(CELLS))
    model = nn.Sequential(encoder.trunk, head)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    painted = Scenes(seed, steps * BATCH, config.pretrain_size)
    losses, started = [], time.monotonic()
    for step, (images, targets) in enumerate(DataLoader(painted, BATCH, num_workers=min(2, cores()))):
        features = encoder.trunk(to_input(images, "imagenet"))[-1]
        value = loss(head(features), targets)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        lr_schedule.step()
        losses.append(value.item())
        if step % 100 == 99:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1}/{steps}  loss {np.mean(losses[-100:]):.4f}  {minutes:.1f} min", flush=True)
    return encoder, float(np.mean(losses[-max(1, steps // 10) :]))


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="python -m bench.tools.pretrain_tiny", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=expanded, default=sam3_vit_tiny.SHIPPED)
    options = parser.parse_args(arguments)
    try:
        check_targets([options.out])
    except TargetError as error:
        complain(error)
        return 2

    config = sam3_vit_tiny.Config(weights="random", drop_path=0.0)
    encoder, final_loss = pretrain(config, options.seed, options.steps)
    weights = {k: v.contiguous() for k, v in encoder.trunk.state_dict().items() if not k.endswith("freqs_cis")}
    about = {
        "made_by": f"python -m bench.tools.pretrain_tiny --seed {options.seed} --steps {options.steps}",
        "scenes_version": str(tasks.VERSION),
        "final_loss": f"{final_loss:.4f}",
        "torch": torch.__version__,
    }
    write_whole(options.out, lambda file: file.write(save(weights, metadata=about)))
    print(harmless(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB, {about}"))
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
