"""The shard job without codecs: everything is real but the children, which fabricate the clips.

A source is a file that is there or not; what becomes of it is said by the test. Sets are read back
with tarfile and pyarrow alone.
"""

import contextlib
import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import schema
from pipeline import format as shard_format
from pipeline.config import ShardConfig
from pipeline.errors import ClipError, Reason
from pipeline.executors import Finished
from pipeline.index import Ledger, finalize
from pipeline.item import Failed, Item, Made, Outcome
from pipeline.job import JobOptions, run
from pipeline.prepare import Wish, prepare
from pipeline.purge import finish_interrupted
from pipeline.rows import stated_facts
from pipeline.shard import ShardTask, write_shard
from tests.pipeline.fabricate import make_members

CONFIG = ShardConfig("glcm", Fraction(10), 32, 22050)
CLIP_SECONDS = 1.0
JOB = JobOptions(executor="local")


def say(_line: str) -> None:
    """Nobody listens."""


@dataclass
class Factory:
    """Where the sources are, what happens to them, and what was tried."""

    root: Path
    faults: dict[str, Reason] = field(default_factory=dict)
    """Key -> how it fails; others become samples."""
    tried: list[str] = field(default_factory=list)
    stops_before: str = ""
    """Name of the shard at whose start the job is killed."""
    capacity: int = 1
    _done: list[Finished] = field(default_factory=list)

    def run(self, item: Item) -> Iterator[tuple[Outcome, int]]:
        """What a child does with one file."""
        for index, row in enumerate(item.rows):
            self.tried.append(row["key"])
            if row["key"] in self.faults:
                error = ClipError(self.faults[row["key"]], f"{row['uri']} failed", "child")
                yield Failed(index, error), 2
            else:
                yield Made(index, *_clip(row, (self.root / row["uri"]).stat().st_size)), 1

    def submit(self, task: ShardTask) -> None:
        """Make a shard."""
        if task.name == self.stops_before:
            raise KeyboardInterrupt
        write_shard(task, self, lambda _progress: None)  # type: ignore[arg-type]
        self._done.append(Finished(task.name))

    def poll(self) -> list[Finished]:
        """Shards made since the last call."""
        done, self._done = self._done, []
        return done

    def add(self, *names: str) -> None:
        """Put sources there."""
        for name in names:
            (self.root / f"{name}.mp4").write_bytes(name.encode())

    def make(self, out: Path, table: pa.Table, **more: Any) -> Ledger:
        """Plan, make what is missing, index."""
        if out.is_dir():
            finish_interrupted(out)  # as `make_shards` does
        prepared = prepare(out, self.wish(table, **more))
        run(prepared, JOB)
        return finalize(prepared, partial=False)

    def wish(self, table: pa.Table, **more: Any) -> Wish:
        """A set of shards of a few clips."""
        asked = {"seconds_per_shard": 3 * CLIP_SECONDS, **more}
        return Wish(table, "demo", str(self.root), "", (), CONFIG, **asked)


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    """Jobs make shards of fabricated clips."""
    made = Factory(tmp_path / "raw")
    made.root.mkdir()

    @contextlib.contextmanager
    def executor(*_arguments: object) -> Iterator[Factory]:
        yield made

    monkeypatch.setattr("pipeline.job.executor", executor)
    for command in ("make", "retry", "drop"):  # the page takes longer than all the rest
        monkeypatch.setattr(f"pipeline.{command}.write_page", lambda out: out / "report.html")
    return made


def rows(*names: str, split: str = "train", **more: Any) -> pa.Table:
    """Manifest rows of one clip each."""
    return schema.table(
        {
            "dataset": "demo", "key": f"demo/{name}", "uri": f"{name}.mp4", "source_id": name,
            "group_id": name, "splits": [f"demo:{split}"], "start_s": 0.0, "end_s": CLIP_SECONDS,
            **more,
        }
        for name in names
    )  # fmt: skip


def _clip(row: Mapping[str, Any], size: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members and facts of a sample."""
    members = make_members(
        CONFIG, row["key"], instance=row["instance"], seconds=CLIP_SECONDS, face=False
    )
    meta = {**json.loads(members["json"]), **stated_facts(row)}
    meta["source"] |= {"uri": row["uri"], "bytes": size}
    facts = {name: meta[name] for name in ("frames", "quality", "source")}
    return {**members, "json": shard_format.encode_json(meta)}, {**facts, "seconds": CLIP_SECONDS}


# --- independent readings -----------------------------------------------------------------------


def clips_in_tars(out: Path) -> Counter[str]:
    """Every clip by how many tars hold it, as tarfile and json read them."""
    found: Counter[str] = Counter()
    for path in (out / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.endswith(".json")]
            found.update(json.loads(tar.extractfile(name).read())["key"] for name in names)  # type: ignore[union-attr]
    return found


def table(out: Path, name: str) -> dict[str, dict[str, Any]]:
    """samples.parquet or errors.parquet by key; no key may be there twice."""
    listed = pq.read_table(out / f"{name}.parquet").to_pylist()
    by_key = {row["key"]: row for row in listed}
    assert len(by_key) == len(listed)
    return by_key


def counts(out: Path) -> dict[str, int]:
    """Of the index."""
    found: dict[str, int] = json.loads((out / "shardindex.json").read_text())["counts"]
    return found


def marks(out: Path) -> dict[str, tuple[int, int, str]]:
    """Every file of the shards: when it was written, which inode it is, what is in it."""
    return {
        path.name: (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in (out / "shards").iterdir()
    }


def kept(before: dict[str, tuple[int, int, str]], out: Path) -> bool:
    """Whether every file of before is still the very same."""
    now = marks(out)
    return {name: now.get(name) for name in before} == before
