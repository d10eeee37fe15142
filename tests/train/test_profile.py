"""--profile: shares that add up, a trace that holds the steps, and a training that is the same."""

import gzip
import json
import re
from pathlib import Path

import pytest
import torch

from tests.train.runs import assert_like, toy
from tests.train.toy import ToyConfig
from train import trackers
from train.pretrain import pretrain
from train.profile import PHASES


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


def shares(text: str) -> dict[str, float]:
    found = re.findall(r"^  (\w+) +[\d.]+ ms +([\d.]+)%$", text, re.MULTILINE)
    return {name: float(share) for name, share in found}


def test_a_profiled_run_is_the_same_run_and_leaves_a_trace(
    ten: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level("INFO"):
        pretrain(toy(ten, run, profile=3))
    assert_like(run, undisturbed)
    traces = list(run.glob("trace-*.json.gz"))
    assert [path.name for path in traces] == ["trace-step00000011-rank0.json.gz"]
    events = json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"]
    for phase in PHASES:
        named = [e for e in events if e.get("name") == phase and e.get("cat") == "user_annotation"]
        assert len(named) == (0 if phase == "saving" else 3)  # steps 9 to 11; checkpoints at 8, 12
    assert any(e.get("name") == "aten::cdist" or "linear" in str(e.get("name")) for e in events)
    found = shares(caplog.text)
    assert list(found) == [*PHASES, "rest"]
    assert sum(found.values()) == pytest.approx(100, abs=0.5)
    assert "aten::" not in caplog.text  # 130 columns are for a file
    assert "aten::" in (run / "trace-step00000011-rank0.txt").read_text()


def test_the_share_of_a_slow_forward_pass_is_seen(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenth of a second asleep in forward, against milliseconds of everything else."""
    with caplog.at_level("INFO"):
        config = toy(ten, tmp_path / "run", ToyConfig(seconds=0.1), profile=2, max_steps=9)
        pretrain(config)
    found = shares(caplog.text)
    assert max(found, key=lambda name: found[name]) == "forward"


def test_too_few_steps_are_said(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(toy(ten, tmp_path / "run", profile=3, max_steps=10))
    assert "needs 11 steps in one call, this one had 10" in caplog.text
    assert not list((tmp_path / "run").glob("trace-*"))
