"""What changes with the step, as arrays: known before the first step, drawn in the report."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def learning_rates(steps: int, peak: float, warmup_steps: int, final: float = 0.0) -> Floats:
    """Linear warm-up, then a cosine down to `final`.

    Args:
        steps: length of the whole schedule.
        peak: the highest rate.
        warmup_steps: steps of the rise; at most a tenth of the schedule, so that a short try is
            not all warm-up.
        final: the last step's rate.

    Returns:
        (steps,) the rate of each step.
    """
    warmup = effective_warmup(steps, warmup_steps)
    step = np.arange(steps, dtype=np.float64)
    rise = peak * (step + 1) / max(warmup, 1)
    along = (step - warmup) / max(steps - 1 - warmup, 1)
    fall = final + (peak - final) * 0.5 * (1 + np.cos(np.pi * along.clip(0, 1)))
    return np.where(step < warmup, rise, fall)


def effective_warmup(steps: int, warmup_steps: int) -> int:
    """The warm-up that a schedule of this length gets."""
    return min(warmup_steps, steps // 10)
