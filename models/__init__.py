"""The networks under test. A file without a leading underscore is an entry; its name is how a YAML asks for it.

An entry offers ``Config`` and ``build(config, image_size, pretrained) -> nn.Module`` (image_size: a square's side, or
(height, width) if its ``Config`` or that of its encoder says ``any_aspect``), whose ``forward(images
[B, 3, H, W])`` returns a tuple of logits, each [B, 1, H, W]: the first is the answer, further ones are deep
supervision and enter only the loss.
"""

from models._registry import Registry

MODELS = Registry("models", "model")
