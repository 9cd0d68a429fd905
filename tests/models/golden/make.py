"""Makes the golden tensors of test_parity.py by running upstream's own code, which is not part of this repository.

    git clone https://github.com/WZH0120/SAM3-UNet sam3unet && git -C sam3unet checkout fdb21da
    git clone https://github.com/WZH0120/SAM2-UNet sam2unet && git -C sam2unet checkout 01598e5
    python tests/models/golden/make.py sam3unet sam2unet

Upstream's classes fix their sizes, so the script hands them smaller encoders (``ViT`` with other arguments, a small
``Hiera`` in place of ``build_sam2``'s) and then replaces the convolutions whose channels follow from them, with
upstream's own classes. Weights come from ``seeded.fill``: a function of a tensor's upstream name and shape alone, so
that they need not be stored. ``structure_loss`` is taken out of upstream's train.py, which is a script.
"""

import ast
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from golden import seeded  # noqa: E402


def package(name: str, folder: Path) -> None:
    """A package without its ``__init__``: sam3's and sam2's need triton, hydra and more."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def structure_loss(checkout: Path):
    tree = ast.parse((checkout / "train.py").read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "structure_loss")
    names = {"torch": torch, "F": F}
    exec(compile(ast.Module([function], []), str(checkout / "train.py"), "exec"), names)
    return names["structure_loss"]


def sam3_unet(checkout: Path) -> nn.Module:
    package("sam3", checkout / "sam3")
    sys.path.insert(0, str(checkout))
    import SAM3UNet as code

    original, small = code.ViT, seeded.SAM3
    code.ViT = lambda **given: original(**{**given, **small["vit"]})
    model = code.SAM3UNet(img_size=small["size"])
    dim, width = small["vit"]["embed_dim"], small["width"]
    for i in range(1, 5):
        setattr(model, f"reduce{i}", nn.Conv2d(dim, width, 1))
        setattr(model, f"up{i}", code.Up(width if i == 4 else 2 * width, width))
    model.head = nn.Conv2d(width, 1, 1)
    return model


def sam2_unet(checkout: Path) -> nn.Module:
    package("sam2", checkout / "sam2")
    sys.path.insert(0, str(checkout))
    from sam2.modeling.backbones.hieradet import Hiera

    small = seeded.SAM2
    unused = "sam_mask_decoder sam_prompt_encoder memory_encoder memory_attention mask_downsample obj_ptr_tpos_proj"
    parts = {name: None for name in [*unused.split(), "obj_ptr_proj"]}
    encoder = types.SimpleNamespace(trunk=Hiera(**small["hiera"]), neck=None)
    stand_in = types.ModuleType("sam2.build_sam")
    stand_in.build_sam2 = lambda config: types.SimpleNamespace(**parts, image_encoder=encoder)
    sys.modules["sam2.build_sam"] = stand_in
    import SAM2UNet as code

    model = code.SAM2UNet()
    width = small["width"]
    for i in range(1, 5):
        setattr(model, f"rfb{i}", code.RFB_modified(small["hiera"]["embed_dim"] << (i - 1), width))
        setattr(model, f"up{i}", code.Up(2 * width, width))
    for name in ("side1", "side2", "head"):
        setattr(model, name, nn.Conv2d(width, 1, 1))
    return model


def golden(model: nn.Module, size: int, loss_function) -> dict[str, torch.Tensor]:
    """Logits in eval mode, then loss, gradients and batch statistics of one training step."""
    model.load_state_dict(seeded.fill(model.state_dict()))
    images, masks = seeded.batch(size)
    found = {}
    model.eval()
    with torch.no_grad():
        answers = model(images[:1])
    for i, logits in enumerate(answers if isinstance(answers, tuple) else (answers,)):
        found[f"logits.{i}"] = logits
    model.train()
    answers = model(images)
    loss = sum(loss_function(logits, masks) for logits in (answers if isinstance(answers, tuple) else (answers,)))
    loss.backward()
    found["loss"] = loss.detach()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    adapters = {f"gradient.{name}": value for name, value in gradients.items() if "prompt_learn" in name}
    found["gradient_norms"] = torch.stack([gradients[name].norm() for name in sorted(gradients)])
    statistics = {n: v for n, v in model.named_buffers() if n.endswith(("running_mean", "running_var"))}
    found["batch_statistics"] = torch.cat([statistics[name] for name in sorted(statistics)])
    return {name: value.contiguous() for name, value in {**found, **adapters}.items()}


if __name__ == "__main__":
    checkouts = [Path(argument).resolve() for argument in sys.argv[1:]]
    builders = {"sam3_unet": (sam3_unet, seeded.SAM3), "sam2_unet": (sam2_unet, seeded.SAM2)}
    for checkout, (name, (build, small)) in zip(checkouts, builders.items(), strict=True):
        model = build(checkout)
        tensors = golden(model, small["size"], structure_loss(checkout))
        shapes = json.dumps({name: list(value.shape) for name, value in model.state_dict().items()})
        save_file(tensors, HERE / f"{name}.safetensors", metadata={"shapes": shapes})
        print(name, len(tensors), "tensors,", (HERE / f"{name}.safetensors").stat().st_size // 1024, "KB")
