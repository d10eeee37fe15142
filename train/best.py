"""Which held-out measurement is the best: retrieval, kNN where it was asked for, else the loss."""

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

    def is_better_than(self, other: "Best | None") -> bool:
        """Better than nothing, and than what another signal chose: the two do not compare."""
        if other is None or other.signal != self.signal:
            return True
        return (self.score, -self.loss) > (other.score, -other.loss)

    def __str__(self) -> str:
        """For the log."""
        value = self.loss if self.signal == "loss" else self.score
        return f"{self.signal} ({value:.4f})"


def best_of(facts: dict[str, float]) -> Best:
    """The signals among a measurement's facts.

    Args:
        facts: averages over the held-out clips; `loss` is always there.
    """
    names = [name for name in SIGNALS if name in facts]
    if not names:
        return Best("loss", -facts["loss"], facts["loss"])
    return Best(" + ".join(names), sum(facts[name] for name in names) / len(names), facts["loss"])
