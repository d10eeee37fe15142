"""Sets on a store that no codec has seen, and what is done to them: all of it real but the clips.

Every machine has a mirror of its own: `Shelved.machine` is one that never saw the set.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import remote
from pipeline.add_field import FieldWish, add_field
from pipeline.config import Limits
from pipeline.drop import Wanted, drop
from pipeline.errors import Reason
from pipeline.executors import Finished
from pipeline.field_samples import side_outcomes
from pipeline.item import Item, Made, Opened, Outcome as Sample
from pipeline.job import JobOptions
from pipeline.make import Outcome
from pipeline.shard import ShardTask, write_shard
from stores.objects import ObjectStore
from tests.pipeline.factory import JOB, Factory, rows, say
from tests.stores.bucket import Bucket

NAMES = [f"clip{number}" for number in range(7)]
TIMES = ("dropped.parquet", "run.lock", "metrics.prom", "report.html")
"""Objects that say when something was done."""


@dataclass
class Side:
    """The job's workers for fields, in this process."""

    capacity: int = 1
    stopped: bool = False
    made: list[str] = field(default_factory=list)
    stops_before: int = 10**9
    """So many side shards are made; at the next one the job is killed."""
    _config: Any = None
    _done: list[Finished] = field(default_factory=list)

    def run(self, item: Item) -> Iterator[tuple[Sample, int]]:
        """What a child does with one sample."""
        for outcome in side_outcomes(item, self._config, Limits()):
            if not isinstance(outcome, Opened):
                assert isinstance(outcome, Made), outcome
                yield outcome, 1

    def submit(self, task: ShardTask) -> None:
        """Make a side shard."""
        if len(self.made) == self.stops_before:
            raise KeyboardInterrupt
        self._config = task.config
        write_shard(task, self, lambda _progress: None)  # type: ignore[arg-type]
        self.made.append(task.name)
        self._done.append(Finished(task.name))

    def poll(self) -> list[Finished]:
        """Side shards made since the last call."""
        done, self._done = self._done, []
        return done


@dataclass
class Shelved:
    """A bucket, and one machine after the other that works on what is in it."""

    bucket: Bucket
    factory: Factory
    folder: Path
    patch: pytest.MonkeyPatch
    machines: Iterator[int] = field(default_factory=itertools.count)

    def machine(self, name: str = "set") -> Path:
        """The mirror of a set on a machine that never saw it, as commands are given it."""
        self.patch.setenv("GLAV_SCRATCH", str(self.folder / f"machine-{next(self.machines)}"))
        with remote.reading(self.bucket.url(name)) as out:
            return out

    def make(self, name: str = "set") -> Path:
        """Seven samples and an error in a few shards."""
        self.factory.add(*NAMES, "bad")
        self.factory.faults = {"demo/bad": Reason.OPEN_ERROR}
        out = self.machine(name)
        self.factory.make(out, rows(*NAMES, "bad"))
        with remote.alone(out):
            remote.push(out)
        self.factory.tried.clear()
        return out

    def copy(self, name: str) -> None:
        """The objects of `set` as another set."""
        for key, data in self.bucket.objects("set/").items():
            self.bucket.put(f"{name}/{key.removeprefix('set/')}", data)

    def objects(self, name: str = "set") -> dict[str, bytes]:
        """All that does not tell the time, by name below the set."""
        found = self.bucket.objects(f"{name}/")
        plain = {key.removeprefix(f"{name}/"): data for key, data in found.items()}
        return {key: data for key, data in plain.items() if not key.endswith(TIMES)}

    def features(self) -> Path:
        """Such as `train embed` writes, of every sample of `set`."""
        folder = self.folder / "features"
        folder.mkdir(exist_ok=True)
        (folder / "embed.json").write_text('{"channels": {"fg": 2}, "per": "clip"}')
        for key, data in self.bucket.objects("set/shards/").items():
            if key.endswith(".json"):
                keys = [sample["key"] for sample in json.loads(data)["samples"]]
                table = pa.table({"key": keys, "fg": [[float(ord(k[-1])), 1.0] for k in keys]})
                pq.write_table(table, folder / f"{Path(key).stem}.parquet")
        return folder

    def add(
        self, out: Path, side: Side | None = None, job: JobOptions = JOB, **wish: Any
    ) -> Outcome:
        """The field of features, or the one that is wished."""
        working = side or Side()

        @contextmanager
        def executor(*_arguments: object) -> Iterator[Side]:
            yield working

        wished = FieldWish("seen", **(wish or {"features": self.folder / "features"}))
        with self.patch.context() as patch:
            patch.setattr("pipeline.job.executor", executor)
            return add_field(out, wished, job, say)

    def purge(self, out: Path, *names: str) -> Outcome:
        """Take clips back to the last byte."""
        keys = frozenset(f"demo/{name}" for name in names)
        return drop(out, Wanted(keys, purge=True, runs=self.folder / "runs"))


class Changes:
    """What is changed on the store, and the death of the process before one of the changes."""

    def __init__(self, patch: pytest.MonkeyPatch, most: int = 10**9) -> None:
        self.done: list[str] = []
        for name in ("write", "delete"):
            patch.setattr(ObjectStore, name, self._counting(getattr(ObjectStore, name), name, most))

    def _counting(self, change: Any, what: str, most: int) -> Any:
        def counted(store: ObjectStore, name: str, *more: Any) -> Any:
            if name == "run.lock":
                return change(store, name, *more)
            if len(self.done) == most:
                raise KeyboardInterrupt
            found = change(store, name, *more)
            self.done.append(f"{what} {str(store).rpartition('/')[2]}/{name}")
            return found

        return counted
