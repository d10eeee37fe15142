"""What the names of facts say: which direction is better, and what only stands beside another fact.

A fact NAME may have controls NAME_swapped, NAME_shifted, NAME_gap and NAME_chance, see
`train.methods`. A control has no best value: the worst model may have the largest gap.
"""

import re
from collections.abc import Callable, Sequence

HELD_OUT = "val_"
"""What the name of a measurement on held-out clips begins with."""

Choose = Callable[[Sequence[float]], float]
CONTROLS = ("_swapped", "_shifted", "_gap", "_chance")
"""Endings of a fact's controls."""

BETTER: dict[str, Choose] = {
    r"loss(_\w+)?": min,
    r"\w+_r1(_\w+)?": max,
    r"\w*accuracy": max,
}
"""Which of several values is the best one, by the whole name: of losses and their terms, retrieval
and accuracies, of plugins too. Whatever else there is, such as an entropy, has none."""


def better(name: str) -> Choose | None:
    """Whether min or max is better, in training or held out; None for one without a direction."""
    if is_control(name):
        return None
    plain = name.removeprefix(HELD_OUT)
    return next((choose for known, choose in BETTER.items() if re.fullmatch(known, plain)), None)


def is_control(name: str) -> bool:
    """Whether a fact is a control of another one."""
    return name.endswith(CONTROLS)
