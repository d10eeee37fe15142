"""Networks small enough for tests."""

import pytest
import torch

from train.methods.glcm_config import PRESETS, GlcmConfig

NANO = GlcmConfig(frames=8, crop=28, n_slow=2, width=8, D_g=16, D_l=8, sim="cosine")


@pytest.fixture(autouse=True)
def _nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--preset nano`, in one thread."""
    torch.set_num_threads(1)
    monkeypatch.setitem(PRESETS, "nano", NANO)
