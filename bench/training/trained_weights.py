"""Trained weights of a trial in a file: adapters, decoder and tuned weights, without the frozen encoder.

``<trial_id>.safetensors`` lies in the folder of the record and has megabytes instead of gigabytes. Its metadata hold
the trial's configuration and a digest of the frozen weights: it is used only with the encoder it was trained on.
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

from bench.config.errors import explain
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
"""Largest file that is kept: a fully fine-tuned SAM3 would need 1.8 GB for every trial."""


class TrainedWeightsError(Exception):
    """A file of trained weights that cannot be used here; the text gives reason and remedy."""


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns the trained parameters and all buffers of a model by name, without copying them.

    Complex buffers are left out: they are RoPE tables, which the model builds for its image size.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = model.state_dict().items()
    return {name: value for name, value in state if name not in frozen and not value.is_complex()}


def trained_copies(model: nn.Module) -> dict[str, Tensor]:
    """Copies ``trained_tensors`` to the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in trained_tensors(model).items()}


def frozen_digest(digests: Mapping[str, str]) -> str:
    """Combines digests of frozen weights (``bench.training.checks.frozen_digests``) into one of 32 hex digits."""
    return hashlib.blake2b(json.dumps(sorted(digests.items())).encode(), digest_size=16).hexdigest()


def pack(model: nn.Module, config: TrialConfig, frozen: Mapping[str, str]) -> bytes | None:
    """Packs the trained tensors into a safetensors file; returns ``None`` if they exceed ``LARGEST_BYTES``.

    frozen: digests of the frozen weights (``bench.training.checks.frozen_digests``).
    """
    trained = trained_copies(model)
    if sum(tensor.nbytes for tensor in trained.values()) > LARGEST_BYTES:
        return None
    metadata = {"format": FORMAT, "config": config.model_dump_json(), "frozen_digest": frozen_digest(frozen)}
    return save({name: tensor.clone() for name, tensor in trained.items()}, metadata)  # save refuses shared memory


def load(path: Path) -> tuple[TrialConfig, nn.Module]:
    """Returns the trial's configuration and its trained model, on the CPU, in eval mode.

    Raises ``TrainedWeightsError`` for a file that is absent or not from this suite, and for encoder weights that are
    missing or differ from those of the training.
    """
    metadata, tensors = _read(path)
    try:
        config = recorded(metadata["config"])
    except ValidationError as error:
        reason = explain(error, TrialConfig, None)[0]
        raise TrainedWeightsError(f"{path}: its configuration is not of this version: {reason}") from None
    missing = [f"{path} needs {item.kind}: {item.what}\n  -> {item.remedy}" for item in config.model.missing()]
    if missing:
        raise TrainedWeightsError("\n".join(missing))
    try:
        _check(config, tensors, path)
        torch.manual_seed(config.seed)  # frozen weights may be random by request
        model = MODELS.build(config.model, config.transform.size, True)
    except (InvalidModel, WeightsError) as error:
        raise TrainedWeightsError(f"{path}: {error}") from None
    if frozen_digest(frozen_digests(model)) != metadata["frozen_digest"]:
        raise TrainedWeightsError(
            f"{path}: was trained on an encoder with other weights than those found here. "
            "Point to the weights of that training"
        )
    model.load_state_dict(tensors, strict=False)
    return config, model.eval()


def _check(config: TrialConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises ``TrainedWeightsError`` unless the tensors fit the model and the model fits into memory.

    A file may hold anything, so this check comes before anything of its size is allocated.
    """
    shape = skeleton(config.model, config.transform.size)
    expected = trained_tensors(shape)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += sorted(n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape)
    if wrong:
        raise TrainedWeightsError(f"{path}: does not fit its own configuration: {some(wrong)}")
    parameters = {name for name, _ in shape.named_parameters()}
    broken = sorted(n for n, t in tensors.items() if t.isnan().any() or (n in parameters and t.isinf().any()))
    if broken:
        raise TrainedWeightsError(f"{path}: its weights are not finite (NaN or infinity): {some(broken)}")
    needed, free = sum(p.nbytes for p in shape.parameters()), free_bytes()
    if needed > free:
        raise TrainedWeightsError(
            f"{path}: its model takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if path.exists() and not path.is_file():
        raise TrainedWeightsError(f"{path}: is no regular file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            words, _, version = metadata.get("format", "").rpartition(" ")
            if words == FORMAT.rpartition(" ")[0] and version.isdecimal() and int(version) > 1:
                raise TrainedWeightsError(f"{path}: written by a newer version of the suite; update the suite")
            if metadata.get("format") != FORMAT or not {"config", "frozen_digest"} <= metadata.keys():
                raise TrainedWeightsError(f"{path}: holds no trained weights of this suite")
            return metadata, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        largest = f"{LARGEST_BYTES // 2**20} MiB"
        raise TrainedWeightsError(f"{path}: no such file. Trained weights of over {largest} are not kept") from None
    except (SafetensorError, OSError) as error:
        reason = what_stands_in(path) or f"not a readable safetensors file ({error})"
        raise TrainedWeightsError(f"{path}: {reason}") from None
