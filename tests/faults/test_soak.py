"""A short soak, and the ruler it holds to memory."""

import json
import random

import pytest

from tests.faults import soak
from tests.faults.memory import LEAST_SECONDS, Life, growth


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_job_that_is_killed_again_and_again_comes_out_as_if_it_had_not(executor, tmp_path):
    report = tmp_path / "soak.json"
    options = soak.Options(minutes=0.7, executor=executor, clips=120, pause=3, json=report)
    assert soak.main(options) == 0
    found = json.loads(report.read_text())
    assert found["problems"] == []
    assert found["rounds"] >= 1
    assert found["attempts"] >= found["rounds"]
    assert sum(found["kills"].values()) >= 1


def lives(leak_mib_per_minute: float) -> list[Life]:
    """Processes of different sizes, killed at different ages, with noise of 3 MiB."""
    chance = random.Random(0)
    found = []
    for _ in range(12):
        size, first = chance.uniform(80, 300), chance.uniform(10, 20)
        seconds = [first + step for step in range(chance.randrange(10, 40))]
        noise = [chance.gauss(0, 3) for _ in seconds]
        mib = [size + leak_mib_per_minute * s / 60 + n for s, n in zip(seconds, noise, strict=True)]
        found.append(Life(seconds, mib))
    return found


@pytest.mark.parametrize("leak", [0.0, 12.0])
def test_a_leak_is_measured_over_processes_of_different_sizes_and_ages(leak):
    found = growth(lives(leak), 300.0)
    assert found.slope_mib_per_minute == pytest.approx(leak, abs=2)
    assert found.processes == 12


def test_a_short_watch_says_nothing():
    seconds = [float(second) for second in range(int(LEAST_SECONDS))]
    assert growth([Life(seconds, seconds)], 0).slope_mib_per_minute is None
