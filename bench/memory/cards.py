"""Sizes of graphics cards, and which of them hold the memory that a training step needs."""

CARDS = (6, 8, 12, 16, 24, 40, 80)
"""Sizes of common graphics cards, in GB. Tables, figures and ``bench.plan`` all use these."""
USABLE = 0.98
"""Assumed share of a card's nominal size (N GB taken as N GiB) that programs get: 24,564 of 24,576 MiB on an RTX 4090,
less on cards with error correction."""

MARGIN = 0.07
"""Share by which a prediction is raised before it is compared with a card. On an H100 the largest excess of a
measurement was 6.3 % (a U-Net in float32, whose convolutions take workspaces within one operator); with SAM3's encoder
2.8 % (``results/measured``)."""


def with_margin(predicted_bytes: float) -> float:
    """Returns the memory that a card must have so that a step with this prediction does not run out."""
    return predicted_bytes * (1 + MARGIN)


def fits(device_bytes: float, card_gb: float) -> bool:
    """Returns whether a card of ``card_gb`` GB holds ``device_bytes``."""
    return device_bytes <= card_gb * USABLE * 2**30


def smallest_card(device_bytes: float) -> int | None:
    """Returns the size in GB of the smallest of ``CARDS`` that holds ``device_bytes``; ``None`` if none does."""
    return next((card for card in CARDS if fits(device_bytes, card)), None)
