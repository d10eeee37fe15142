"""Facts about a clip's picture and sound, as numbers; what to drop is the trainer's policy.

The flags are named thresholds on the numbers stored beside them, so a different threshold needs no
second look at the video.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SILENT_BELOW_DBFS = -60.0
DBFS_FLOOR = -120.0
STATIC_BELOW_MOTION = 0.2
BLACK_BELOW_LUMA = 20.0
CLIPPED_FROM = 0.999
STRIDE_PIXELS = 4
"""Brightness and motion are taken from every 4th pixel of the stored pictures, both ways."""


class PictureQuality:
    """Running brightness and motion of the stored pictures."""

    def __init__(self) -> None:
        self._luma: list[float] = []
        self._motion: list[float] = []
        self._last: npt.NDArray[np.uint8] | None = None

    def see(self, picture: npt.NDArray[np.uint8] | None) -> None:
        """Take in the next stored picture (H, W, 3); None if it repeats the last one."""
        if picture is None:
            self._luma.append(self._luma[-1])
            self._motion.append(0.0)
            return
        sampled = np.ascontiguousarray(picture[::STRIDE_PIXELS, ::STRIDE_PIXELS])
        thumbnail = np.asarray(cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY), np.uint8)
        self._luma.append(cv2.mean(thumbnail)[0])
        if self._last is not None and self._last.shape == thumbnail.shape:
            difference = cv2.norm(thumbnail, self._last, cv2.NORM_L1)
            self._motion.append(difference / thumbnail.size)
        self._last = thumbnail

    def facts(self, frames: int) -> dict[str, Any]:
        """`luma` and `motion` (0 .. 255 a pixel and step), `static` and `black`."""
        if not self._luma:
            return dict.fromkeys(("luma", "motion", "static", "black"))
        luma = float(np.mean(self._luma[:frames]))
        motion = float(np.mean(self._motion[: max(frames - 1, 0)] or [0.0]))
        return {
            "luma": round(luma, 2),
            "motion": round(motion, 3),
            "static": motion < STATIC_BELOW_MOTION,
            "black": luma < BLACK_BELOW_LUMA,
        }


def sound_facts(waveform: npt.NDArray[np.float32]) -> dict[str, Any]:
    """`audio_dbfs` (RMS, full scale = 0), `silent`, `clipped` (share of samples at full scale)."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if waveform.size else 0.0
    dbfs = 10 * np.log10(power) if power > 0 else DBFS_FLOOR
    return {
        "audio_dbfs": round(max(float(dbfs), DBFS_FLOOR), 2),
        "silent": bool(dbfs < SILENT_BELOW_DBFS),
        "clipped": round(float(np.mean(np.abs(waveform) >= CLIPPED_FROM)), 6),
    }
