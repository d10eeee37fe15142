"""Runs of the toy method, and what they left."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.train.toy import ToyConfig
from train import checkpoint
from train.config import PretrainConfig

SAME = ("loss", "video_norm", "grad_norm", "lr", "epoch")


def toy(demo: Path, run: Path, model: ToyConfig | None = None, **fields: Any) -> Any:
    """Ten clips in batches of 3: an epoch is 3 batches; five epochs are 15 steps."""
    settings: dict[str, Any] = {
        "shards": str(demo), "run": str(run), "epochs": 5, "batch_size": 3, "workers": 0,
        "checkpoint_every": 4, "device": "cpu", "method": "toy", "preset": "toy", "page": False,
        **fields,
    }  # fmt: skip
    return PretrainConfig(model=model or ToyConfig(), **settings)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(run: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in ("step", *SAME)} for line in metrics(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None
    model: dict[str, torch.Tensor] = found["model"]
    return model


def assert_like(run: Path, undisturbed: Path) -> None:
    """The same losses at every step, and the same weights in the end."""
    assert same(run) == same(undisturbed)
    ours, theirs = weights(run), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
