"""The head on top of the encoders."""

import pytest
import torch
from torch.nn import functional

from train.evaluation.heads import Head


@pytest.mark.parametrize("steps", [(), (5,)])
def test_logits_are_of_each_vector_by_itself(steps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = Head(6, 8, 3, 0.0).eval()
    features = torch.randn(4, *steps, 6)
    logits = head(features)
    assert logits.shape == (4, *steps, 3)
    torch.testing.assert_close(head(features[2:3]), logits[2:3])


def test_a_small_difference_beside_a_large_mean_is_learnt() -> None:
    torch.manual_seed(0)
    labels = torch.arange(32) % 2
    features = 5 + 0.01 * torch.randn(32, 4)
    features[:, 0] += 0.05 * labels
    head = Head(4, 16, 2, 0.0)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
    for _ in range(60):
        loss = functional.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    assert (head(features).argmax(1) == labels).float().mean() >= 0.95
