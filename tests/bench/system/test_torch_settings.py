"""Settings of torch hold for the body and are restored after it, also when it fails."""

import pytest
import torch
from torch.utils import deterministic

from bench.system.torch_settings import torch_settings


def settings():
    return torch.get_num_threads(), torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(("is_deterministic", "mode"), [(True, 2), (False, 0)])
def test_settings_hold_for_the_body_only(is_deterministic, mode):
    before = settings()
    with pytest.raises(RuntimeError, match="within"), torch_settings(1, is_deterministic):
        assert settings() == (1, mode, False)
        raise RuntimeError("within")
    assert settings() == before == (before[0], 0, True)
