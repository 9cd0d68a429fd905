"""A small sweep file, and how tests load it."""

import pytest

from bench.config.errors import ConfigError
from bench.config.sweep import load_sweep

GOOD = """
name: mine
question: Does it work?
base:
  model: {name: sam3_unet, encoder: sam3_vit_tiny}
  dataset: {name: procedural}
  transform: {size: 96}
  device: cpu
axes:
  model.adapter.rank: [4, 8]
seeds: [0, 1]
"""


@pytest.fixture(name="sweep")
def loader(tmp_path):
    """``sweep(text, *overrides)`` loads a sweep file with that text."""

    def load(text=GOOD, *overrides, profile=None):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_sweep(path, profile, overrides)

    return load


def errors(sweep, text=GOOD, *overrides, profile=None):
    with pytest.raises(ConfigError) as error:
        sweep(text, *overrides, profile=profile)
    return str(error.value)
