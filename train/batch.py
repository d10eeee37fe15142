"""A batch of clips: what the loader gives and a method learns from.

As loaded, pictures are bytes and mel is half precision, because that is what should travel to the
device; after `train.augment` both are floats, pictures channels first. The class checks itself and
shows shapes instead of pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME, N_MELS
from train.guard import BadClip


@dataclass(frozen=True)
class Batch:
    """B clips of T frames."""

    video: Tensor
    """uint8 (B, T, H, W, 3) as loaded; float (B, 3, T, H, W), normalised, after augmentation."""
    mel: Tensor
    """(B, 80, 3 T) natural log-mel power, cut at the same time as the pictures; float16 as
    loaded, float32 after augmentation."""
    instance: Tensor
    """int64 (B,): the clip's number among all clips of the mixture; indexes memory banks."""
    start: Tensor
    """int64 (B,): first frame of the window in its clip."""
    keys: tuple[str, ...]
    """Manifest keys."""
    labels: tuple[tuple[int, ...], ...] = ()
    """Integer classes of each clip, as the data set numbers them; () where there are none."""
    bad: tuple[BadClip, ...] = ()
    """What could not be read; others stand in its place."""

    def __post_init__(self) -> None:
        """Compare every shape with the pictures'."""
        if self.video.ndim != 5:
            raise ValueError(f"video must have 5 dimensions, got {tuple(self.video.shape)}")
        clips = self.video.shape[0]
        expected = (clips, N_MELS, MEL_SLICES_PER_FRAME * self.frames)
        if self.mel.shape != expected:
            raise ValueError(f"mel must be {expected}, got {tuple(self.mel.shape)}")
        if self.instance.shape != (clips,) or self.start.shape != (clips,):
            raise ValueError(
                f"instance and start must be ({clips},), got {tuple(self.instance.shape)} and "
                f"{tuple(self.start.shape)}"
            )
        if len(self.keys) != clips or len(self.labels) not in (0, clips):
            raise ValueError(f"{clips} clips, {len(self.keys)} keys, {len(self.labels)} labels")

    def __len__(self) -> int:
        """Clips."""
        return int(self.video.shape[0])

    def __repr__(self) -> str:
        """Shapes and types."""
        facts = [
            f"{name}={str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            for name, tensor in self._tensors().items()
        ]
        return f"Batch({', '.join(facts)}, device={self.video.device})"

    @property
    def frames(self) -> int:
        """T: frames of each clip's window."""
        return int(self.video.shape[1 if self.is_raw else 2])

    @property
    def is_raw(self) -> bool:
        """As loaded: bytes, channels last."""
        return self.video.dtype == torch.uint8

    def to(self, device: torch.device) -> "Batch":
        """On another device; does not wait where memory is pinned."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def first(self, clips: int) -> "Batch":
        """The first so many clips."""
        kept: dict[str, Any] = {name: tensor[:clips] for name, tensor in self._tensors().items()}
        return replace(self, **kept, keys=self.keys[:clips], labels=self.labels[:clips])

    def pin_memory(self) -> "Batch":
        """In page-locked memory; the DataLoader's pinning thread calls this."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until `stream` has done with it."""
        for tensor in self._tensors().values():
            tensor.record_stream(stream)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("video", "mel", "instance", "start")}
