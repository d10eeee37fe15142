"""Index and tables belong together at every moment, whatever ends the job that writes them."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.index import finalize
from pipeline.outputs import Outputs
from pipeline.prepare import load
from pipeline.prints import write_quality
from selection import SelectionError
from selection.facts import passing, shard_hashes
from selection.where import Where
from tests.pipeline.factory import Factory, factory, rows

__all__ = ["factory"]

WRITTEN_LAST = ("samples.parquet", "errors.parquet", "shardindex.json")


def passes(out: Path, where: str) -> list[bool]:
    found: list[bool] = passing(Where(where), lambda name: (out / name).read_bytes())[1].tolist()
    return found


@pytest.fixture
def made(factory: Factory, tmp_path: Path) -> Path:
    """Two clips, and a fact about them that is no more than they are."""
    factory.add("one", "two")
    out = tmp_path / "out"
    factory.make(out, rows("one", "two"))
    facts = pa.table({"key": ["demo/one", "demo/two"], "luck": [7.0, 7.0]})
    write_quality(out, "luck.parquet", facts, shard_hashes(Outputs(out).index()), ["luck"])
    assert passes(out, "luck == 7") == [True, True]
    return out


def test_a_kill_before_the_index_lends_old_facts_to_no_new_clip(
    made: Path, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of samples is replaced, the index is not: the shard in it is the one of before."""

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = {name: (made / name).read_bytes() for name in WRITTEN_LAST}
    factory.make(made, rows("one", "two", transcript="said " * 300))
    for name, data in before.items():
        (made / name).write_bytes(data)
    assert passes(made, "luck == 7") == [True, True]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.index.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            finalize(load(made), partial=False)
    assert (made / "samples.parquet").read_bytes() != before["samples.parquet"]
    with pytest.raises(SelectionError, match=r"no shardindex\.json.*pipeline finalize"):
        passes(made, "luck == 7")
    finalize(load(made), partial=False)
    assert passes(made, "luck == null") == [True, True]


def test_the_index_goes_before_a_shard_whose_tar_is_lost_is_made_again(
    made: Path, factory: Factory
) -> None:
    for tar in (made / "shards").glob("*.tar"):
        tar.unlink()
    factory.stops_before = "train-000000"
    with pytest.raises(KeyboardInterrupt):
        factory.make(made, rows("one", "two", transcript="other words"))
    assert not (made / "shardindex.json").exists()


def test_a_finished_set_is_left_alone(made: Path) -> None:
    before = [(made / name).stat() for name in WRITTEN_LAST]
    finalize(load(made), partial=False)
    after = [(made / name).stat() for name in WRITTEN_LAST]
    assert [(s.st_ino, s.st_mtime_ns) for s in after] == [(s.st_ino, s.st_mtime_ns) for s in before]
