"""The small sizes and the seeded weights and images that make.py and test_parity.py share."""

import zlib

import numpy as np
import torch
from torch import Tensor

# 84/14 = 6 patches: windows of 3, position embedding tiled twice, RoPE of the global blocks scaled by a half;
# 84/32 = 2, 84/16 = 5, 84/8 = 10, 84/4 = 21: skips are cropped at three scales, as they are at 336
SAM3 = {
    "size": 84,
    "width": 16,
    "vit": {
        "embed_dim": 32,
        "depth": 4,
        "num_heads": 2,
        "pretrain_img_size": 42,
        "window_size": 3,
        "global_att_blocks": (1, 3),
        "drop_path_rate": 0.0,
    },
}
# 64/4 = 16 patches in windows of 8, 4, 5 (padded) and 2, with one global block
SAM2 = {
    "size": 64,
    "width": 8,
    "hiera": {
        "embed_dim": 8,
        "num_heads": 1,
        "stages": (1, 2, 3, 1),
        "global_att_blocks": (4,),
        "window_pos_embed_bkg_spatial_size": (7, 7),
        "window_spec": (8, 4, 5, 2),
    },
}


def fill(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values for every tensor, from its name and shape alone; tables and counters stay as they are.

    numpy's ``RandomState`` promises the same stream in all versions, torch's generators do not.
    """
    return {
        name: value if name.endswith(("freqs_cis", "num_batches_tracked")) else _values(name, tuple(value.shape))
        for name, value in state.items()
    }


def _values(name: str, shape: tuple[int, ...]) -> Tensor:
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        values = 0.5 + np.abs(normal)
    elif len(shape) == 1:  # biases near 0, scales of norms near 1
        values = 0.1 * normal + (1.0 if name.endswith("weight") else 0.0)
    elif "pos_embed" in name:
        values = 0.5 * normal
    else:
        values = normal / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Images [2, 3, size, size] and soft masks [2, 1, size, size], 0..1."""
    random = np.random.RandomState(size)
    images = torch.from_numpy(random.standard_normal((2, 3, size, size)).astype(np.float32))
    rows, columns = np.mgrid[:size, :size] / size
    discs = [1 / (1 + np.exp(40 * (np.hypot(rows - y, columns - x) - r))) for y, x, r in ((0.4, 0.5, 0.3), (0.6, 0.3, 0.2))]
    return images, torch.from_numpy(np.stack(discs)[:, None].astype(np.float32))
