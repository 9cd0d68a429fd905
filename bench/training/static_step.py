"""A training step as a CUDA graph: its kernels are recorded once and replayed without Python (``train.compile: step``).

At batch 12 a step in bfloat16 has thousands of short kernels, and the GPU waits for Python between them. A graph has
fixed addresses: inputs are copied to the same place in each step, and gradients arrive at the same place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

Compute = Callable[[Tensor, Tensor], Tensor]
"""Computes the gradients of a batch, images [B, H, W, 3] and masks [B, H, W], and returns its loss."""
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records a computation. Returns a function that runs it again, and the loss, which each run overwrites."""


class StaticStep:
    """Forward and backward pass of whole batches of one size, recorded and replayed.

    The optimiser is not part of it, because float16's scaler may skip its step.
    """

    def __init__(
        self,
        compute: Compute,
        images: Tensor,
        masks: Tensor,
        trained: Sequence[nn.Parameter],
        capture: Capture | None = None,
    ) -> None:
        """images, masks: a batch; trained: the parameters that get gradients; capture: a CUDA graph by default."""
        self._images, self._masks = images.clone(), masks.clone()

        def from_fixed_inputs() -> Tensor:
            _forget(trained)  # the recorded step creates gradients, it does not add to them
            return compute(self._images, self._masks)

        self._replay, self._loss = (capture or _cuda_graph)(from_fixed_inputs)
        self._gradients = [(parameter, parameter.grad) for parameter in trained]
        _forget(trained)

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        """Computes the gradients of a batch of the recorded size, and returns its loss.

        Gradients lie at the same place after each call, and replace earlier ones.
        """
        self._images.copy_(images)
        self._masks.copy_(masks)
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()


def _forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _cuda_graph(compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    torch.cuda.empty_cache()  # memory is cached for each stream, and this step is the first on its stream
    with torch.cuda.stream(stream):
        compute()
    # thread_local: other threads, such as the one that reads batches ahead, may allocate meanwhile
    with _no_random_state(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        loss = compute()
    return graph.replay, loss


@contextmanager
def _no_random_state() -> Iterator[None]:
    """Activation checkpointing restores the GPU's random state for recomputation, which a graph cannot do. It need not:
    stochastic depth is drawn before the step, and other layers that draw are not recomputed (``bench.config.trial``).
    """
    of_devices = checkpoint.get_device_states
    checkpoint.get_device_states = lambda *inputs: ([], [])
    try:
        yield
    finally:
        checkpoint.get_device_states = of_devices
