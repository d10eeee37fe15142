"""Every method's config at a size at which a step takes a fraction of a second.

Beside widths they keep what the methods are: all losses, banks, queues and curricula.
"""

from dataclasses import replace
from typing import Any

from train.methods import METHODS

SHRUNKEN: dict[str, dict[str, Any]] = {
    "glcm": {"frames": 8, "n_slow": 2, "crop": 32, "width": 8},
    "avid": {
        "frames": 4, "crop": 32, "width": 2, "hidden": 8, "embedding": 6, "negatives": 5,
        "wave_rate_hz": 1000, "audio_seconds": 0.5, "n_fft": 32, "hop": 16, "bins": 17,
    },
    "tempssl": {
        "frames": 4, "crop": 16, "wave_rate_hz": 2400, "width": 4, "audio_width": 4,
        "n_fft": 64, "stft_step": 32, "spectrogram_side": 32, "hidden": 8, "D": 6, "queue": 40,
        "positives": 3, "queue_negatives": 8,
    },
    "coattention": {
        "frames": 4, "frame_step": 4, "crop": 32, "sound_seconds": 0.5,
        "least_shift_seconds": 0.25, "most_shift_seconds": 1.0, "heads": 2, "width": 8,
        "ffn_width": 12, "audio_width": 4, "visual_width": 4, "fusion_width": 32,
    },
    "moco": {"frames": 2, "crop": 32, "width": 2, "queue": 9, "width_out": 5},
    "cpc": {"frames": 8, "blocks": 4, "crop": 32, "width": 4, "hidden": 5, "steps_ahead": 2},
    "dpc": {
        "frames": 8, "blocks": 4, "crop": 32, "width": 4, "hidden": 5, "steps_ahead": 2,
        "grid_out": 2,
    },
    "vdim": {"frames": 2, "crop": 32, "width": 4, "D": 4},
    "avts": {"frames": 4, "crop": 32, "width": 8, "D": 6},
    "avslowfast": {"frames": 8, "n_slow": 2, "crop": 32, "width": 8, "beta": 4, "D": 6},
}  # fmt: skip
"""What differs from `tiny`."""
SHRUNKEN["avid_cma"] = {
    **SHRUNKEN["avid"], "found_positives": 3, "used_positives": 2, "warmup_epochs": 0,
}  # fmt: skip
"""With positives from the first step on."""


OURS = [name for name, entry in METHODS.items() if entry.module.__module__.startswith("train.")]
"""Without those that tests add: each of them needs its line above."""


def small(method: str) -> Any:
    """The shrunken config of a method."""
    return replace(METHODS[method].presets["tiny"], **SHRUNKEN[method])
