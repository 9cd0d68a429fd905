"""CUDA's autocast for tensors on a (fake) CPU: the operators that compute in float32.

CUDA's list is pytorch's, aten/src/ATen/autocast_mode.h, ``AT_FORALL_FP32`` and ``AT_FORALL_FP32_SET_OPT_DTYPE``. The
CPU's list is almost empty, so the largest maps of a decoder stay in bfloat16 there: ``upsample_bilinear2d`` of 256
channels at 168 px is 27.6 MiB an image in float32 on CUDA, half of that on a CPU.

Fake tensors on the device ``cuda`` would have CUDA's list, but torch cannot run their backward pass without a driver.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

FLOAT32 = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt"),
    *("sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus"),
    *("layer_norm", "native_layer_norm", "rms_norm", "group_norm", "frobenius_norm.dim", "cosine_similarity"),
    *("poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div"),
    *("l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss"),
    *("soft_margin_loss", "triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "dist"),
    *("pdist", "cdist", "renorm", "logsumexp", "upsample_nearest1d", "_upsample_nearest_exact1d"),
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_nearest3d", "_upsample_nearest_exact3d"),
    *("upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_trilinear3d"),
    *("upsample_bicubic2d", "_upsample_bicubic2d_aa"),
)
"""Operators whose inputs are converted to float32 first."""
FLOAT32_OUTPUT = (
    *("prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm", "sum"),
    "sum.dim_IntList",
)
"""Operators that are told to return float32; they read the narrow input."""
NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """Gives CPU tensors CUDA's list within the context. Autocast itself is switched on as always.

    The list belongs to the whole process: no other thread may use autocast on the CPU meanwhile.
    """
    with torch.library._scoped_library("aten", "IMPL") as library:
        for names, kernel in ((FLOAT32, _widened), (FLOAT32_OUTPUT, _widening)):
            for name in names:
                packet, _, overload = name.partition(".")
                operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
                if operator is not None:  # some are missing in older versions of torch
                    library.impl(name, kernel(operator), "AutocastCPU", allow_override=True)
        yield


def _widened(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            args, kwargs = tree_map_only(Tensor, _float32, (args, kwargs))
            return operator(*args, **kwargs)

    return run


def _widening(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            if args[0].dtype in NARROW and kwargs.get("dtype") is None:
                kwargs["dtype"] = torch.float32
            return operator(*args, **kwargs)

    return run


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in NARROW else tensor


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))
