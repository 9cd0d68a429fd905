"""``memory.budget_gib``: what a trial may allocate on its card, checked by prediction and enforced by the allocator."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from bench.config.trial import TrialConfig
from bench.memory import card_generations
from bench.memory.predicted_peak import predict_peak
from bench.memory.snapshot import at_out_of_memory, recording
from bench.records.memory import GIB
from bench.records.outcome import Outcome
from bench.records.record import MemoryAtFailure
from bench.system.device import device_of, is_out_of_memory
from bench.training.data_parallel import Share

FAR_ABOVE = 1.2
"""Share of the budget above which a predicted peak keeps a trial from running. Predictions err by far less."""


def predicted_bytes(config: TrialConfig, share: Share) -> int | None:
    """Predicts the peak of a training step on the card of this machine; ``None`` for a model without a prediction."""
    batch_size = -(-config.train.batch_size // share.of)
    settings = config.train.model_copy(update={"batch_size": batch_size})
    try:
        generation = card_generations.of_device(device_of(config.device))
        return predict_peak(config.model_copy(update={"train": settings}), generation).allocated
    except Exception:  # a trial must not fail because its memory cannot be predicted
        return None


def over_budget(config: TrialConfig, predicted: int | None) -> str:
    """Explains why a trial with this predicted peak does not run; returns an empty text if it runs."""
    budget = config.memory.budget_gib
    if budget is None or predicted is None or predicted <= FAR_ABOVE * budget * GIB:
        return ""
    limit = f"{FAR_ABOVE} x memory.budget_gib {budget:g}"
    return f"not run: predicted to allocate {predicted / GIB:.2f} GiB, more than {limit}"


def limit_allocator(device: torch.device, budget_gib: float) -> None:
    """Makes torch's allocator refuse requests beyond the budget. A CPU has no such limit."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_gib * GIB / total), device)


def at_failure(
    config: TrialConfig, predicted: int | None, reserved: int | None, holders: list[str] | None = None
) -> MemoryAtFailure:
    """Returns the numbers, in bytes, that the record of a trial without enough memory holds."""
    budget = config.memory.budget_gib
    return MemoryAtFailure(
        torch_reserved_bytes=reserved,
        predicted_allocated_bytes=predicted,
        budget_bytes=None if budget is None else round(budget * GIB),
        largest_holders=holders,
    )


@contextmanager
def noted_when_full(config: TrialConfig, share: Share, outcome: Outcome) -> Iterator[None]:
    """Notes in the outcome what held the memory if it runs out within the context, while the tensors are still there.

    With a budget on a card, the places of allocations are recorded (``bench.memory.snapshot``).
    """
    on_gpu = config.device == "cuda"
    with recording(on_gpu and config.memory.budget_gib is not None):
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                reserved = reserved_bytes(config)
                outcome.snapshot, holders = at_out_of_memory(on_gpu)
                outcome.memory_at_failure = at_failure(config, predicted_bytes(config, share), reserved, holders)
            raise


def reserved_bytes(config: TrialConfig) -> int | None:
    """Returns what torch's allocator holds on the card; ``None`` on a CPU and where the card does not answer."""
    with suppress(Exception):
        return torch.cuda.memory_reserved(device_of("cuda")) if config.device == "cuda" else None
    return None


def clean_card(config: TrialConfig) -> None:
    """Frees the memory of a trial on its card and lifts the limit, for the next trial in this process."""
    on_gpu = config.device == "cuda" and torch.cuda.is_initialized()
    if on_gpu and config.memory.budget_gib is not None:
        torch.cuda.set_per_process_memory_fraction(1.0, device_of("cuda"))
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
