"""`train.view`: clips chosen when they are read, and what a run says about it."""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from selection.facts import shard_hashes, with_bases
from stores.local import LocalStore
from tests.train.ramps import mixture_of, ramp_set
from train.errors import UsageError
from train.index import open_shards
from train.loader import ClipLoader
from train.plan import Plan
from train.view import View


@pytest.fixture
def loud(tmp_path):
    """Eight clips, of which every third one is silent."""
    out = ramp_set(tmp_path / "demo-glcm")
    table = pq.read_table(out / "samples.parquet")
    silent = pa.array([row % 3 == 0 for row in range(len(table))])
    place = table.column_names.index("silent")
    pq.write_table(table.set_column(place, "silent", silent), out / "samples.parquet")
    return out


def keys_read(mixture):
    loader = ClipLoader(Plan(mixture, 0, 1, 1, 0))
    return {key for batch in loader.one_epoch() for key in batch.keys}


def test_only_clips_that_pass_are_read(loud):
    mixture = mixture_of(str(loud), view=View("silent == false"))
    numbers = [number for number in range(8) if number % 3]
    assert keys_read(mixture) == {f"demo/clip{number:03d}" for number in numbers}
    assert mixture.parts[0].not_in_view == 3
    assert '--where "silent == false" leaves out 3' in mixture.lines()[0]
    everything = mixture_of(str(loud))
    assert everything.parts[0].not_in_view == 0
    assert everything.fingerprint() != mixture.fingerprint()


def test_a_subset_is_drawn_among_the_clips_that_pass(loud):
    mixture = mixture_of(f"{loud}@n=4", view=View("silent == false"))
    assert mixture.clips == 4
    assert not set(mixture.parts[0].rows.tolist()) & {0, 3, 6}


@pytest.mark.parametrize("ending", ["parquet", "csv", "txt"])
def test_listed_clips_are_left_out(loud, tmp_path, ending):
    listed = tmp_path / f"listed.{ending}"
    if ending == "parquet":
        sets = ["demo-glcm", "other-glcm", "demo-glcm"]
        keys = ["demo/clip001", "demo/clip002", "elsewhere"]
        pq.write_table(pa.table({"key": keys, "set": sets}), listed)
    elif ending == "csv":
        listed.write_text("set,key\ndemo-glcm,demo/clip001\nother-glcm,demo/clip002\n")
    else:
        listed.write_text("demo/clip001\n\n")
    mixture = mixture_of(str(loud), view=View(without=listed))
    assert keys_read(mixture) == {f"demo/clip{number:03d}" for number in (0, *range(2, 8))}


def test_rows_follow_the_index_and_not_the_order_of_the_table(loud):
    shard_set = open_shards(LocalStore(loud))
    table = pq.read_table(loud / "samples.parquet")
    pq.write_table(table.take(np.arange(len(table))[::-1]), loud / "samples.parquet")
    assert View("silent").passes(shard_set).tolist() == [row % 3 == 0 for row in range(8)]


def test_what_leaves_nothing_or_names_nothing_is_refused(loud, tmp_path):
    with pytest.raises(UsageError, match=r"lets none of the 8 clips of demo-glcm.*report"):
        mixture_of(str(loud), view=View("frames > 10000"))
    with pytest.raises(UsageError, match=r"demo-glcm: there is no column 'silnt'.*mean silent"):
        mixture_of(str(loud), view=View("silnt"))
    with pytest.raises(UsageError, match=r"cannot be read.*one key a line"):
        mixture_of(str(loud), view=View(without=tmp_path / "nowhere.parquet"))
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(UsageError, match="has the columns id; expected `key`"):
        mixture_of(str(loud), view=View(without=tmp_path / "other.parquet"))


def test_clips_that_a_quality_table_does_not_know_are_told(loud, caplog):
    (loud / "quality").mkdir()
    bases = shard_hashes(json.loads((loud / "shardindex.json").read_bytes()))
    scores = with_bases(pa.table({"key": ["demo/clip000"], "score": [1.0]}), bases)
    pq.write_table(scores, loud / "quality/s.parquet")
    (loud / "quality/columns.json").write_text('{"score": "s.parquet"}')
    with caplog.at_level(logging.WARNING):
        mixture = mixture_of(str(loud), view=View("score > 0"))
    assert mixture.clips == 1
    assert "quality/s.parquet does not know 7 clips as they are now" in caplog.text


def test_a_table_without_the_clips_of_the_index_is_damaged(loud):
    shard_set = open_shards(LocalStore(loud))
    table = pq.read_table(loud / "samples.parquet")
    rest = table.filter(pc.not_equal(table["key"], "demo/clip002"))
    pq.write_table(rest, loud / "samples.parquet")
    with pytest.raises(Exception, match="does not know 1 clips"):
        View("frames > 0").passes(shard_set)
