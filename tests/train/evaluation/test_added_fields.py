"""Evaluations that look at crops which the samples of a set lack, and a field of it has."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.add_field import FieldWish, add_field
from pipeline.config import ShardConfig
from pipeline.job import JobOptions
from tests.pipeline.fabricate import edit_json, write_set
from tests.pipeline.heads import head_members
from tests.train.evaluation.test_lips import FACTS
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.config import EvalConfig

HEADS = ShardConfig("glcm", Fraction(10), 128, 22050)
SPLITS = ("grid:train", "grid:val", "grid:test")


def test_lips_are_found_beside_the_shards_and_the_result_says_what_they_are(
    tmp_path: Path,
) -> None:
    out = tmp_path / "grid-glcm"
    clips = []
    for number in range(6):
        members = head_members(HEADS, f"grid/{number}", number % 3, 12)
        meta = json.loads(members["json"]) | FACTS
        meta |= {"splits": [SPLITS[number % 3]], "group": f"grid:s{number % 3}"}
        clips.append({**members, "json": json.dumps(meta).encode()})
    write_set(out, HEADS, [clips])
    edit_json(out / "shardindex.json", dataset="grid")
    config = EvalConfig(task="grid_commands", scratch=True, preset="nano", workers=0,
                        shards=str(out), run=str(tmp_path / "run"), device="cpu", epochs=1,
                        batch_size=2, frames=8)  # fmt: skip
    with pytest.raises(UsageError, match=r"pipeline add-field .* lip"):
        driver.evaluate(config)
    job = JobOptions(executor="local", workers=1)
    add_field(out, FieldWish("lip"), job, lambda *_: None)
    result = driver.evaluate(config)
    assert (result["n_scored"], result["faceless"]) == (2, 0)
    assert any("lip crops are cut from stored frames of 128" in note for note in result["notes"])
