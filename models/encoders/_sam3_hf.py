"""SAM3's image encoder as Hugging Face stores it (transformers' ``Sam3ViTModel``), turned into Meta's layout."""

import re

import torch
from torch import Tensor

RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^layer_norm\.", "ln_pre."),
    (r"^layers\.(\d+)\.layer_norm([12])\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
    (r"^layers\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"^layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
)
QKV = re.compile(r"(blocks\.\d+\.attn\.)q(\.(?:weight|bias))")


def to_meta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts names and shapes to Meta's trunk; a state in Meta's layout stays as it is.

    Hugging Face has three tensors for query, key and value, Meta has one. Hugging Face has no position of the class
    token, which this encoder does not use: it gets zeros.
    """
    if not any(name.startswith("layers.") for name in state):
        return state
    state = {_renamed(name): value for name, value in state.items()}
    for name in [name for name in state if QKV.fullmatch(name)]:
        parts = [QKV.sub(rf"\g<1>{letter}\g<2>", name) for letter in "qkv"]
        if all(part in state for part in parts):
            state[QKV.sub(r"\1qkv\2", name)] = torch.cat([state.pop(part) for part in parts])
    if "pos_embed" in state:
        positions = state["pos_embed"]
        state["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return state


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return name
