"""What a trial has learnt, in a file of its own: adapters, decoder and tuned weights, without the frozen encoder.

``<trial_id>.safetensors`` lies beside the record, megabytes instead of gigabytes. Its metadata hold the trial's
configuration and a digest of the frozen weights, so that it is only ever joined with the encoder it was trained on.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bench.config.trial import TrialConfig, recorded
from bench.system.machine import free_bytes
from bench.system.wording import some
from bench.training.checks import frozen_digests
from models import MODELS
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton
from models.core.weights import WeightsError, what_stands_in

FORMAT = "sam3-bench trained weights, version 1"
LARGEST_BYTES = 512 * 2**20
"""What is larger is not kept: a fully fine-tuned SAM3 would be 1.8 GB for every trial."""


class CheckpointError(Exception):
    """A file of trained weights that cannot be used here; the text says why and what to do."""


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and all buffers of a model, on the CPU, by name.

    Complex buffers are left out: they are RoPE tables, which the model builds for its image size.
    """
    return {name: value.detach().cpu().contiguous() for name, value in in_training(model).items()}


def in_training(model: nn.Module) -> dict[str, Tensor]:
    """``learnt`` without a copy: the tensors of the model, where they are."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = {name: value for name, value in model.state_dict().items() if name not in frozen}
    return {name: value for name, value in state.items() if not value.is_complex()}


def frozen_digest(digests: Mapping[str, str]) -> str:
    """32 hex digits over the frozen weights, from the digest of each (``bench.training.checks.frozen_digests``)."""
    return hashlib.blake2b(json.dumps(sorted(digests.items())).encode(), digest_size=16).hexdigest()


def pack(model: nn.Module, config: TrialConfig, frozen: Mapping[str, str]) -> bytes | None:
    """What the model has learnt as a safetensors file; ``None`` when it would be larger than ``LARGEST_BYTES``.

    frozen: digests of the weights that stayed as they were (``bench.training.checks.frozen_digests``).
    """
    trained = learnt(model)
    if sum(tensor.nbytes for tensor in trained.values()) > LARGEST_BYTES:
        return None
    metadata = {"format": FORMAT, "config": config.model_dump_json(), "frozen_digest": frozen_digest(frozen)}
    return save(
        {name: tensor.clone() for name, tensor in trained.items()}, metadata=metadata
    )  # it refuses shared memory


def load(path: Path) -> tuple[TrialConfig, nn.Module]:
    """The trial's configuration and its model as it was after training, on the CPU, in eval mode.

    Raises ``CheckpointError``: no such file, not one of ours, encoder weights missing or others than it was trained on.
    """
    metadata, tensors = _read(path)
    try:
        config = recorded(metadata["config"])
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise CheckpointError(f"{path}: its configuration is not of this version: {where}: {found['msg']}") from None
    absent = [item for item in config.model.missing()]
    if absent:
        raise CheckpointError(
            "\n".join(f"{path} needs {item.kind}: {item.what}\n  -> {item.remedy}" for item in absent)
        )
    try:
        _check(config, tensors, path)
        torch.manual_seed(config.seed)  # frozen weights may be random by request
        model = MODELS.build(config.model, config.transform.size, True)
    except (InvalidModel, WeightsError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if frozen_digest(frozen_digests(model)) != metadata["frozen_digest"]:
        raise CheckpointError(
            f"{path}: was trained on an encoder with other weights than those found here. "
            "Point to the weights of that training"
        )
    model.load_state_dict(tensors, strict=False)
    return config, model.eval()


def _check(config: TrialConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises ``CheckpointError`` unless the tensors are those of the model and there is room for it; a file may say
    anything, so this comes before anything of its size is made."""
    shape = skeleton(config.model, config.transform.size)
    expected = in_training(shape)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += sorted(n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape)
    if wrong:
        raise CheckpointError(f"{path}: does not fit its own configuration: {some(wrong)}")
    parameters = {name for name, _ in shape.named_parameters()}
    if broken := sorted(n for n, t in tensors.items() if t.isnan().any() or n in parameters and t.isinf().any()):
        raise CheckpointError(f"{path}: its weights are not finite (NaN or infinity): {some(broken)}")
    needed, free = sum(p.nbytes for p in shape.parameters()), free_bytes()
    if needed > free:
        raise CheckpointError(f"{path}: its model takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is no regular file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            words, _, version = metadata.get("format", "").rpartition(" ")
            if words == FORMAT.rpartition(" ")[0] and version.isdecimal() and int(version) > 1:
                raise CheckpointError(f"{path}: written by a newer version of the suite; update the suite")
            if metadata.get("format") != FORMAT or not {"config", "frozen_digest"} <= metadata.keys():
                raise CheckpointError(f"{path}: holds no trained weights of this suite")
            return metadata, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        largest = f"{LARGEST_BYTES // 2**20} MiB"
        raise CheckpointError(f"{path}: no such file. Trained weights of over {largest} are not kept") from None
    except (SafetensorError, OSError) as error:
        reason = what_stands_in(path) or f"not a readable safetensors file ({error})"
        raise CheckpointError(f"{path}: {reason}") from None
