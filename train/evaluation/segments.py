"""Clips cut into segments of equal length: one vector, and one row of logits, for each (AVE)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import UsageError
from train.evaluation.encoders import SOUND, Encoders
from train.evaluation.heads import Head
from train.evaluation.task import Settings
from train.models.attention import full_precision


class SegmentClassifier(nn.Module):
    """Encoders, attention of each segment's sound over its frames, head: clip -> logits by segment.

    Attributes:
        attends: whether cells are weighted by the sound; else they are averaged.
    """

    def __init__(
        self,
        encoders: Encoders,
        settings: Settings,
        classes: int,
        segments: int,
        *,
        hidden: int,
        dropout: float,
    ) -> None:
        """Put a new head on encoders, which become part of it.

        Args:
            encoders: where features are from.
            settings: modality; `pooling`, full_attention or full_avg.
            classes: outputs.
            segments: of a clip.
            hidden: width of the head.
            dropout: in the head.

        Raises:
            UsageError: the encoders have no local features or no sound.
        """
        super().__init__()
        if settings.cells != (1, 1, 1):
            raise UsageError(
                f"cells is {settings.cells}; expected 1 1 1, for segments are averaged"
            )
        self.module: Any = encoders.module
        self._encoders = encoders
        self._segments = segments
        self._names = encoders.wanted(settings)
        self._computes = (*self._names, *(("fa",) if settings.uses_sound else ()))
        asked = settings.pooling == "full_attention" and settings.uses_pictures
        self.attends = asked and hasattr(self.module, "segment_attention")
        self.head = Head(sum(self._names.values()), hidden, classes, dropout)

    def forward(self, video: Tensor | None, mel: Tensor | None) -> Tensor:
        """Logits.

        Args:
            video: float (B, 3, T, H, W), normalised, T a multiple of the segments; None with
                modality A.
            mel: float (B, 80, 3T); None where no sound is used.

        Returns:
            (B, segments, classes).
        """
        wanted = self._computes if self.attends else ()
        found = self._encoders.features(video, mel, wanted)
        parts = [
            self._heard(found) if name == SOUND else self._seen(found, name) for name in self._names
        ]
        logits: Tensor = self.head(torch.cat(parts, dim=-1))
        return logits

    def _seen(self, found: dict[str, Tensor], name: str) -> Tensor:
        """(B, S, C_l): mean over a segment's frames of their cells, weighted by the sound."""
        fl = found[name]
        with full_precision(fl):
            cells = fl.float().flatten(3)  # (B, C, T, P)
            if self.attends:  # the projections are float32, under bf16 autocast features are not
                fa = found["fa"].float()
                att = self.module.segment_attention(fl.float(), fa, self._segments)
                frames = torch.einsum("bctp,btp->btc", cells, att)
            else:
                frames = cells.mean(dim=3).transpose(1, 2)
            return self._by_segment(frames)

    def _heard(self, found: dict[str, Tensor]) -> Tensor:
        """(B, S, C_a): mean over a segment's slices."""
        fa = found["fa"]
        with full_precision(fa):
            return self._by_segment(fa.float().transpose(1, 2))

    def _by_segment(self, steps: Tensor) -> Tensor:
        """(B, steps, C) -> (B, S, C), means."""
        parts = functional.adaptive_avg_pool1d(steps.transpose(1, 2), self._segments)
        return parts.transpose(1, 2)

    def groups(self, lr_head: float, lr_encoder: float) -> list[dict[str, object]]:
        """Parameter groups of an optimiser: the head's and the encoders'."""
        encoder = [weight for weight in self.module.parameters() if weight.requires_grad]
        return [
            {"params": list(self.head.parameters()), "lr": lr_head},
            {"params": encoder, "lr": lr_encoder},
        ]
