"""A batch of clips: what the loader gives and a method learns from.

As loaded, pictures are bytes and mel is half precision, because that is what should travel to the
device; after `train.augment` both are floats, pictures channels first. The class checks itself and
shows shapes instead of pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME, N_MELS
from train.guard import BadClip

TENSORS = ("video", "mel", "wave", "instance", "start")


@dataclass(frozen=True)
class Batch:
    """B clips of T frames."""

    video: Tensor
    """uint8 (B, V T, H, W, 3) as loaded, view after view; after augmentation float, normalised,
    (B, 3, T, H, W) of one view and (B, V, 3, T, H, W) of several."""
    mel: Tensor | None
    """(B, 80, 3 T) natural log-mel power, cut at the same time as the pictures; float16 as
    loaded, float32 after augmentation; None where the method reads none."""
    instance: Tensor
    """int64 (B,): the clip's number among all clips of the mixture; indexes memory banks."""
    start: Tensor
    """int64 (B,): first frame of the window in its clip."""
    keys: tuple[str, ...]
    """Manifest keys."""
    labels: tuple[tuple[int, ...], ...] = ()
    """Integer classes of each clip, as the data set numbers them; () where there are none."""
    wave: Tensor | None = None
    """(B, A, channels, samples): stretches of waveform; int16 as loaded, float32 in -1 .. 1 after
    augmentation; None where the method reads none."""
    numbers: dict[str, Tensor] = field(default_factory=dict)
    """int64 (B, N) by name: what the method's cut says of each clip."""
    views: int = 1
    """V: runs of pictures of each clip."""
    fields: dict[str, Tensor] = field(default_factory=dict)
    """Fields of the clips, as stored (see `read_fields` in train.fields); on the device, but not
    augmented."""
    bad: tuple[BadClip, ...] = ()
    """What could not be read; others stand in its place."""

    def __post_init__(self) -> None:
        """Compare every shape with the pictures'."""
        dimensions = 5 if self.is_raw or self.views == 1 else 6
        if self.video.ndim != dimensions:
            raise ValueError(
                f"video must have {dimensions} dimensions, got {tuple(self.video.shape)}"
            )
        clips = self.video.shape[0]
        expected = (clips, N_MELS, MEL_SLICES_PER_FRAME * self.frames)
        if self.mel is not None and self.mel.shape != expected:
            raise ValueError(f"mel must be {expected}, got {tuple(self.mel.shape)}")
        if self.wave is not None and (self.wave.ndim != 4 or len(self.wave) != clips):
            raise ValueError(
                f"wave must be ({clips}, stretches, channels, samples), got "
                f"{tuple(self.wave.shape)}"
            )
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
            for name, tensor in self.tensors().items()
        ]
        return f"Batch({', '.join(facts)}, device={self.video.device})"

    @property
    def frames(self) -> int:
        """T: frames of each view."""
        if self.is_raw:
            return int(self.video.shape[1]) // self.views
        return int(self.video.shape[-3])

    @property
    def is_raw(self) -> bool:
        """As loaded: bytes, channels last."""
        return self.video.dtype == torch.uint8

    def to(self, device: torch.device) -> "Batch":
        """On another device; does not wait where memory is pinned."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def first(self, clips: int) -> "Batch":
        """The first so many clips."""
        return self.rows(slice(clips))

    def rows(self, chosen: slice) -> "Batch":
        """Some of the clips."""
        kept = self._changed(lambda tensor: tensor[chosen])
        return replace(self, **kept, keys=self.keys[chosen], labels=self.labels[chosen])

    def pin_memory(self) -> "Batch":
        """In page-locked memory; the DataLoader's pinning thread calls this."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until `stream` has done with it."""
        for tensor in self.tensors().values():
            tensor.record_stream(stream)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, **self._changed(change))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        numbers = {name: change(tensor) for name, tensor in self.numbers.items()}
        fields = {name: change(tensor) for name, tensor in self.fields.items()}
        return {name: change(tensor) for name, tensor in self._named().items()} | {
            "numbers": numbers,
            "fields": fields,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name; `numbers` and `fields` too."""
        return self._named() | self.numbers | self.fields

    def _named(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in TENSORS}
        return {name: tensor for name, tensor in found.items() if tensor is not None}
