"""The optimiser of a training run: AdamW, with a learning rate for each part of the model."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from bench.config.settings import TrainConfig
from models.core.encoder_decoder import layers_of, part_of


def make_optimiser(
    model: nn.Module, config: TrainConfig, foreach: bool | None = None, fused: bool | None = None
) -> torch.optim.AdamW:
    """Makes AdamW for the trainable parameters.

    fused: one kernel updates all tensors without temporaries, by default on a GPU only; foreach: a kernel for each
    operation does. Without either, as on a CPU, tensors are updated one after the other.
    """
    groups = parameter_groups(model, config)
    if fused is None and foreach is None:
        fused = all(p.is_cuda for group in groups for p in group["params"]) or None
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "foreach": foreach, "fused": fused}
    return torch.optim.AdamW(groups, **options)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups the trainable parameters: first those of adapters, decoder and other new parts, then the encoder's own."""
    new, tuned = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = tuned if part_of(name) == "encoder" else new
            group.append(parameter)
    if config.layer_decay == 1:
        layers = {0: tuned}
    else:
        layers = defaultdict(list)
        for parameter, distance in layers_of(model):
            layers[distance].append(parameter)
    rate = config.lr * config.encoder_lr_scale
    groups = [{"params": new}]
    for distance in sorted(layers):
        groups.append({"params": layers[distance], "lr": rate * config.layer_decay**distance})
    return [group for group in groups if group["params"]]
