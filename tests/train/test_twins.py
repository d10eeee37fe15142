"""When one rank and two agree: a wrong gradient is found, rounding is not taken for one."""

import pytest
import torch
from torch import Tensor

from train.twins import PATH_LENGTH, _judge

WEIGHTS = 10_000
START = {"net.weight": torch.zeros(WEIGHTS), "memory.queue.entries": torch.zeros(8, 4)}
WAY = torch.full((WEIGHTS,), PATH_LENGTH / WEIGHTS**0.5)


def judged(weights: Tensor, memory: Tensor) -> bool:
    alone = {"net.weight": WAY, "memory.queue.entries": torch.full((8, 4), 0.5)}
    pair = {"net.weight": weights, "memory.queue.entries": memory}
    one, two = ({"losses": [1.0], "weights": own} for own in (alone, pair))
    return _judge(one, two, START)[0]


@pytest.mark.parametrize(("weight", "memory", "agree"), [
    (1.0, 0.5, True),
    (1.0, 0.5001, True),  # outputs of a network whose weights are rounded
    (1.0, 0.6, False),  # another clip's vector
    (0.5, 0.5, False),  # a gradient halved; the memory's way is a thousand times as long
])  # fmt: skip
def test_what_agrees(weight, memory, agree):
    assert judged(WAY * weight, torch.full((8, 4), memory)) == agree
