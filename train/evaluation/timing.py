"""How well a sound is in time with pictures: a score of windows of one clip (task avsync)."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME
from train.augment import centre_pictures
from train.errors import UsageError
from train.evaluation.encoders import Encoders

AT_ONCE = 16
"""Windows that are compared with as many sounds; `Glcm.in_time` takes at most 32 of each."""
Floats = npt.NDArray[np.float64]


def require_in_time(encoders: Encoders) -> None:
    """Refuse what cannot say how well sound and pictures are in time.

    Raises:
        UsageError: the method has no such score, or the encoders no features that know the time.
    """
    module: Any = encoders.module
    if not hasattr(module, "in_time") or not hasattr(module, "embed_global"):
        raise UsageError(
            f"the method {encoders.method} does not say how well sound and pictures are in "
            "time: it has no `in_time` with `embed_global` as Glcm has them; name a checkpoint "
            "of glcm"
        )
    if "fl" not in encoders.channels:
        raise UsageError("the encoders have no local features fl, which know the time")


class Timing:
    """A method's score of a sound and pictures: higher where frames and slices agree in time."""

    def __init__(self, encoders: Encoders) -> None:
        """Take encoders in evaluation mode, on their device.

        Raises:
            UsageError: the method has no such score.
        """
        require_in_time(encoders)
        self._module: Any = encoders.module
        self._encoders = encoders

    @torch.no_grad()
    def scores(
        self, video: Tensor, mel: Tensor, pictures: list[int], sounds: list[int], window: int
    ) -> Floats:
        """Each sound with each window of pictures of a clip.

        Args:
            video: uint8 (T, S, S, 3), the whole clip.
            mel: (80, 3 T).
            pictures: first frames of windows.
            sounds: first frames of the windows' sounds.
            window: frames.

        Returns:
            (sounds, pictures), comparable within a column.
        """
        seen = [self._seen(video, pictures[i : i + AT_ONCE], window)
                for i in range(0, len(pictures), AT_ONCE)]  # fmt: skip
        rows = []
        for first in range(0, len(sounds), AT_ONCE):
            fa = self._heard(mel, sounds[first : first + AT_ONCE], window)
            rows.append(torch.cat([self._compared(fa, one) for one in seen], dim=1))
        found: Floats = torch.cat(rows).double().cpu().numpy()
        return found

    def _seen(self, video: Tensor, starts: list[int], window: int) -> dict[str, Tensor]:
        clips = torch.stack([video[start : start + window] for start in starts])
        ready = centre_pictures(clips, self._encoders.crop)
        return self._encoders.features(ready, None, ("fg", "fl"))

    def _heard(self, mel: Tensor, starts: list[int], window: int) -> Tensor:
        per = MEL_SLICES_PER_FRAME
        parts = [mel[:, per * start : per * (start + window)] for start in starts]
        return self._encoders.features(None, torch.stack(parts).float(), ("fa",))["fa"]

    def _compared(self, fa: Tensor, seen: dict[str, Tensor]) -> Tensor:
        audio, grid = self._module.embed_global(seen.get("fg", seen["fl"]), fa)
        scores: Tensor = self._module.in_time(seen["fl"], fa, audio, grid)
        return scores
