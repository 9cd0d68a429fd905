"""The networks under test. A file without a leading underscore is an entry; a YAML file names it by the file's name.

An entry offers ``Config`` and ``build(config, image_size, pretrained) -> nn.Module`` (image_size: a square's side, or
(height, width) if its ``Config`` or that of its encoder says ``any_aspect``), whose ``forward(images
[B, 3, H, W])`` returns a tuple of logits, each [B, num_classes, H, W]: the first is the answer, further ones are deep
supervision and enter only the loss. ``Config.num_classes`` is 1 for object against background (one map, sigmoid), else
the number of classes (softmax). A model without trainable parameters is not trained, only scored.
"""

from models.core.registry import Registry

MODELS = Registry("models", "model")
