"""A method small enough for tests: brightness and loudness of each clip must agree.

In a subprocess it is known after GLAV_PLUGINS=tests.train.toy.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.methods import METHODS, MethodEntry


@dataclass(frozen=True)
class ToyConfig:
    """A window and two switches for tests."""

    frames: int = 8
    crop: int = 16
    n_slow: int = 2
    dropout: float = 0.2
    """Makes RNG state matter."""
    seconds: float = 0.0
    """How long a step takes at least."""
    nan_at: int = -1
    """At this call the loss is NaN."""
    batch_norm: bool = False
    """Makes running statistics matter, which are each rank's own."""


class Toy(nn.Module):
    """Two linear layers, a dropout, and a loss over the clips of all ranks."""

    def __init__(self, config: ToyConfig, gather: Any = None) -> None:
        super().__init__()
        self.config, self.gather, self.calls = config, gather, 0
        self.video, self.mel = nn.Linear(3, 4), nn.Linear(80, 4)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.BatchNorm1d(4) if config.batch_norm else nn.Identity()

    def forward(self, batch: Any) -> dict[str, Tensor]:
        assert batch.video.shape[1:] == (3, self.config.frames, *[self.config.crop] * 2)
        time.sleep(self.config.seconds)
        self.calls += 1
        video = self.dropout(self.norm(self.video(batch.video.mean((2, 3, 4)))))
        audio = self.mel((batch.mel / 90).mean(2))
        if self.gather is not None:
            audio = self.gather(audio)
        loss = torch.cdist(video, audio).mean()
        if self.calls - 1 == self.config.nan_at:
            loss = loss * float("nan")
        return {"loss": loss, "video_norm": video.norm().detach()}


METHODS["toy"] = MethodEntry(ToyConfig, Toy, {"toy": ToyConfig()})
