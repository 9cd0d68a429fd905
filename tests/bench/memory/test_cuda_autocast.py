"""Autocast as on CUDA, for tensors on a CPU."""

import torch
from torch.nn import functional as F

from bench.memory.cuda.autocast import cuda_autocast


def types() -> dict[str, torch.dtype]:
    x = torch.ones(2, 4, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        results = {
            "upsample": F.interpolate(x, scale_factor=2, mode="bilinear"),
            "layer_norm": F.layer_norm(x, (4,)),
            "softmax": x.softmax(1),
            "sum": x.sum((2, 3)),
            "exp": x.exp(),
            "gelu": F.gelu(x),
            "conv": F.conv2d(x.float(), torch.ones(1, 4, 1, 1)),
        }
    return {name: result.dtype for name, result in results.items()}


def test_operators_of_cudas_list_compute_in_float32_and_others_do_not():
    narrow = {"gelu": torch.bfloat16, "conv": torch.bfloat16}
    with cuda_autocast():
        assert types() == dict.fromkeys(types(), torch.float32) | narrow


def test_the_cpus_own_list_is_back_afterwards():
    before = types()
    with cuda_autocast():
        pass
    assert types() == before and before["upsample"] == torch.bfloat16


def test_gradients_pass_through_a_widened_operator():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    with cuda_autocast(), torch.autocast("cpu", torch.bfloat16):
        F.interpolate(F.conv2d(x, torch.ones(1, 1, 1, 1)), scale_factor=2, mode="bilinear").sum().backward()
    assert x.grad.dtype == torch.float32 and x.grad.sum() == 16
