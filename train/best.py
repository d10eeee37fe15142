"""Which held-out measurement is the best: retrieval, kNN where it was asked for, else the loss."""

import math
from dataclasses import dataclass

KNN = "knn_accuracy"
SIGNALS = (KNN, "a2v_r1", "a2v_r1_sync")
"""Shares of clips that are found, by neighbours, by what sounds, and by when it sounds."""


@dataclass(frozen=True)
class Best:
    """A measurement that may be compared with another by the same signal."""

    signal: str
    """What chose it, such as `knn_accuracy + a2v_r1`."""
    score: float
    """Larger is better: the mean of the signals, or minus the loss."""
    loss: float
    """Decides between equal scores."""
    among: str = ""
    """The clips that were measured, and how many were compared with each other: to find one clip
    among 2 is easier than among 8. Empty in checkpoints of older versions."""

    def compares_with(self, other: "Best") -> bool:
        """Whether both were chosen by the same signal among as many clips."""
        return (self.signal, self.among) == (other.signal, other.among)

    def is_better_than(self, other: "Best | None") -> bool:
        """Better than nothing, and than one that it compares with."""
        if other is None:
            return True
        return self.compares_with(other) and (self.score, -self.loss) > (other.score, -other.loss)

    def __str__(self) -> str:
        """For the log."""
        value = self.loss if self.signal == "loss" else self.score
        return f"{self.signal} ({value:.4f})"


def best_of(facts: dict[str, float], among: str = "") -> Best | None:
    """The signals among a measurement's facts.

    Args:
        facts: averages over the held-out clips; `loss` is always there.
        among: which clips, how many at a time.

    Returns:
        None where one of these numbers is NaN or infinite: such a model is never the best.
    """
    loss = facts["loss"]
    names = [name for name in SIGNALS if name in facts]
    score = sum(facts[name] for name in names) / len(names) if names else -loss
    if not (math.isfinite(score) and math.isfinite(loss)):
        return None
    return Best(" + ".join(names) or "loss", score, loss, among)
