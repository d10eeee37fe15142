"""Learning rates, by hand."""

import numpy as np
import pytest

from train.schedule import effective_warmup, learning_rates


def test_warm_up_is_linear_and_the_cosine_ends_at_zero() -> None:
    rates = learning_rates(10_000, 1e-3, 500)
    assert rates[0] == pytest.approx(2e-6)
    assert rates[249] == pytest.approx(5e-4)
    assert rates[499] == rates[500] == pytest.approx(1e-3)
    assert rates[500 + (9_499 + 1) // 2] == pytest.approx(5e-4, rel=1e-3)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(rates[500:]) <= 0).all()


def test_a_short_schedule_is_not_all_warm_up() -> None:
    assert effective_warmup(100, 500) == 10
    assert learning_rates(100, 1.0, 500).argmax() == 9


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_schedules_have_a_rate_for_each_step(steps: int) -> None:
    rates = learning_rates(steps, 1.0, 500)
    assert rates.shape == (steps,)
    assert np.isfinite(rates).all()
    assert rates[0] > 0
