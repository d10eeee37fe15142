"""What is trained on top of the encoders."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.errors import UsageError
from train.evaluation.encoders import (
    Encoders,
    in_time,
    over_frames,
    over_time,
)
from train.evaluation.task import Settings


class Head(nn.Module):
    """Two layers: Linear, ReLU, Dropout, Linear (methods §7); the same for every time step.

    Features are standardised before, by BatchNorm without weights. They are means of what a ReLU
    let through, so that examples differ little beside what they share: on frozen features of GRID's
    digits, `tiny_grid`, two layers alone had 0.15 right of held-out clips after 8 epochs and 0.19
    after 20, with BatchNorm 0.40 after one and 0.49 after 20; chance is 0.10. The paper does not
    speak of it.
    """

    def __init__(self, channels: int, hidden: int, classes: int, dropout: float) -> None:
        """Random weights.

        Args:
            channels: of the features.
            hidden: width between the layers.
            classes: outputs.
            dropout: probability.
        """
        super().__init__()
        self.standardise = nn.BatchNorm1d(channels, affine=False)
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., channels) -> logits (..., classes)."""
        rows = self.standardise(features.flatten(0, -2))
        logits: Tensor = self.layers(rows.unflatten(0, features.shape[:-1]))
        return logits


@dataclass(frozen=True)
class HeadShape:
    """What a head is built from again."""

    classes: int
    hidden: int
    dropout: float
    per_frame: bool


class Classifier(nn.Module):
    """Encoders, pooling, head: pictures and sound -> logits."""

    def __init__(
        self,
        encoders: Encoders,
        settings: Settings,
        classes: int,
        *,
        hidden: int = 512,
        dropout: float = 0.5,
        per_frame: bool = False,
    ) -> None:
        """Put a new head on encoders, which become part of it.

        Args:
            encoders: where features are from.
            settings: which features, how pooled.
            classes: outputs.
            hidden: width of the head.
            dropout: in the head.
            per_frame: logits for every frame instead of for the window.
        """
        super().__init__()
        if per_frame and settings.cells[0] != 1:
            raise UsageError(
                f"cells is {settings.cells}; expected one part of time, for each frame is read"
            )
        self.module = encoders.module
        self._encoders = encoders
        self._settings = settings
        self._names = encoders.wanted(settings)
        self.shape = HeadShape(classes, hidden, dropout, per_frame)
        self.head = Head(sum(self._names.values()), hidden, classes, dropout)
        self._freeze_unused()

    def _freeze_unused(self) -> None:
        """Weights that no output depends on would only be decayed."""
        if not self._settings.uses_pictures:
            for name in ("slow", "fast"):
                part = getattr(self.module, name, None)
                if part is not None:
                    part.requires_grad_(False)

    def forward(self, video: Tensor | None, sound: Tensor | None) -> Tensor:
        """Logits (B, classes), or (B, T, classes) with `per_frame`; arguments as `features`."""
        logits: Tensor = self.head(self.features(video, sound))
        return logits

    def features(self, video: Tensor | None, sound: Tensor | None) -> Tensor:
        """What the head sees.

        Args:
            video: float (B, 3, T, H, W), normalised; None for tasks of sound.
            sound: float (B, 80, 3T) or (B, channels, samples), as the encoders hear it; None for
                tasks without.

        Returns:
            float32 (B, channels), or (B, T, channels) with `per_frame`.
        """
        found = self._encoders.looked_at(video, sound, self._settings)
        steps = {name: over_frames(found, name, self._settings) for name in self._names}
        if self.shape.per_frame:
            frames = video.shape[2] if video is not None else steps["fa"].shape[1] // 3
            joined = [in_time(sequence, frames) for sequence in steps.values()]
        else:
            joined = [over_time(sequence, self._settings) for sequence in steps.values()]
        return torch.cat(joined, dim=-1)

    def groups(self, lr_head: float, lr_encoder: float) -> list[dict[str, object]]:
        """Parameter groups of an optimiser: the head's, and the encoders' that are in use."""
        encoder = [weight for weight in self.module.parameters() if weight.requires_grad]
        return [
            {"params": list(self.head.parameters()), "lr": lr_head},
            {"params": encoder, "lr": lr_encoder},
        ]
