"""An index is believed only after checks; every refusal is a sentence with the next step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import manifests
from pipeline.config import ShardConfig
from stores.local import LocalStore
from tests.pipeline.fabricate import edit_json, fabricate
from tests.train.ramps import CONFIG, ramp_set
from train.cuts import Reads
from train.errors import IncompleteError, ShardError, TrainError, UsageError
from train.index import MADE_BY, open_shards, require_readable, require_same_content


def test_a_set_is_what_its_index_says(tmp_path: Path) -> None:
    shard_set = open_shards(LocalStore(ramp_set(tmp_path / "demo-glcm")))
    assert len(shard_set) == 8
    assert shard_set.shards == ("shards/train-000000.tar", "shards/train-000001.tar")
    assert shard_set.shard.tolist() == [0] * 4 + [1] * 4
    assert shard_set.frames.tolist() == [30] * 8
    assert repr(shard_set) == "ShardSet(demo-glcm, 8 clips in 2 shards)"
    require_readable(shard_set, Reads(8, 8))


def test_no_shards_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make shards DATASET=kinetics400"):
        open_shards(LocalStore(tmp_path / "kinetics400-glcm"))
    for known in MADE_BY.values():
        name = known.partition("DATASET=")[2] or known.partition(" ")[2]
        assert name in manifests.DATASETS


def test_a_wrong_path_names_the_sets_that_are_near(tmp_path: Path) -> None:
    """And never a data set that nobody has heard of."""
    ramp_set(tmp_path / "shards" / "demo-glcm")
    for wrong in (tmp_path / "shards" / "dmeo-glcm", tmp_path / "shards"):
        with pytest.raises(UsageError, match=r"shards holds the sets demo-glcm$"):
            open_shards(LocalStore(wrong))
    with pytest.raises(UsageError, match=r"there is no folder .*/nowhere. Check the path"):
        open_shards(LocalStore(tmp_path / "nowhere" / "nope"))
    with pytest.raises(UsageError, match=r"holds no set. Check") as said:
        open_shards(LocalStore(tmp_path / "nope"))
    assert "DATASET=nope" not in str(said.value)


def test_an_unfinished_set_is_named_by_its_plan_not_its_folder(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "mine")
    (out / "shardindex.json").unlink()
    (out / "plan.json").write_text('{"dataset": "folder"}')
    with pytest.raises(IncompleteError, match="make shards DATASET=folder"):
        open_shards(LocalStore(out))


def test_an_unfinished_set_names_the_ways_on(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    (out / "shardindex.json").unlink()
    with pytest.raises(IncompleteError, match=r"finalize .*--partial"):
        open_shards(LocalStore(out))


def test_a_partial_index_is_used_and_known_as_partial(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    edit_json(out / "shardindex.json", complete=False)
    assert not open_shards(LocalStore(out)).complete


@pytest.mark.parametrize("schema", [2, None, "1"])
def test_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    edit_json(out / "shardindex.json", schema=schema)
    with pytest.raises(UsageError, match="reads schema 1"):
        open_shards(LocalStore(out))


def test_counts_must_agree(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    clips = pq.read_table(out / "samples.parquet")
    pq.write_table(clips.slice(1), out / "samples.parquet")
    with pytest.raises(ShardError, match=r"4 samples in shardindex.json and 3 in samples.parquet"):
        open_shards(LocalStore(out))


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    (out / "samples.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ShardError, match="cannot be read"):
        open_shards(LocalStore(out))
    (out / "samples.parquet").unlink()
    with pytest.raises(ShardError, match="is missing"):
        open_shards(LocalStore(out))
    (out / "shardindex.json").write_text("{")
    with pytest.raises(ShardError, match="is no JSON"):
        open_shards(LocalStore(out))


def test_a_profile_without_mel_or_frames_is_refused(tmp_path: Path) -> None:
    shard_set = open_shards(LocalStore(ramp_set(tmp_path / "demo-glcm")))
    without = replace(shard_set, members=("json", "frames.mjpeg"))
    with pytest.raises(UsageError, match="stores no mel"):
        require_readable(without, Reads(8, 8))
    silent = replace(shard_set, config={**shard_set.config, "mel_rate_hz": None})
    with pytest.raises(UsageError, match=r"stores no mel .*PROFILE=glcm"):
        require_readable(silent, Reads(8, 8))
    blind = replace(shard_set, config={**shard_set.config, "short_side": None})
    with pytest.raises(UsageError, match="stores no frames"):
        require_readable(blind, Reads(8, 8))


def test_sets_of_one_mixture_must_be_made_alike(tmp_path: Path) -> None:
    ours = open_shards(LocalStore(ramp_set(tmp_path / "demo-glcm")))
    config = ShardConfig("lips", CONFIG.fps * 5 / 2, 32, 22050)
    theirs = open_shards(LocalStore(fabricate(tmp_path / "other", config, shards=1, samples=1)))
    with pytest.raises(UsageError, match="has fps 10/1, demo-lips has 25/1"):
        require_same_content([ours, theirs])


def test_splits_are_found_with_and_without_the_data_sets_name(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm")
    clips = pq.read_table(out / "samples.parquet")
    splits: Any = [["demo:train"]] * 3 + [["demo:val", "demo:test"]] * 3 + [[], None]
    column = pa.array(splits, pa.list_(pa.string()))
    clips = clips.set_column(clips.column_names.index("splits"), "splits", column)
    pq.write_table(clips, out / "samples.parquet")
    shard_set = open_shards(LocalStore(out))
    assert np.array_equal(shard_set.in_split("train"), [0, 1, 2, 6, 7])
    assert np.array_equal(shard_set.in_split("demo:val"), [3, 4, 5])


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    shard_set = open_shards(LocalStore(ramp_set(tmp_path / "demo-glcm")))
    with pytest.raises(UsageError, match=r"no clip in split 'tset'; its splits: demo:train"):
        shard_set.in_split("tset")


def test_every_refusal_has_its_exit_code() -> None:
    kinds: list[type[TrainError]] = [TrainError, UsageError, IncompleteError, ShardError]
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 5]
