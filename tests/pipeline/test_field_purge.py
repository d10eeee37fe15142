"""Fields of the clips that stay outlive a purge of others, also one that was killed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import executors
from pipeline.add_field import FieldWish, add_field
from pipeline.drop import Wanted, drop
from pipeline.errors import Reason
from pipeline.make import Outcome
from pipeline.verify import ExitCode, verify
from stores.local import LocalStore
from tests.pipeline.factory import JOB, Factory, factory, rows, say
from train.fields import join
from train.index import open_shards

__all__ = ["factory"]

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def made(factory: Factory, tmp_path: Path) -> Path:
    """Five clips in two shards, and a number for each."""
    factory.add(*NAMES)
    out = tmp_path / "out"
    factory.make(out, rows(*NAMES))
    numbers = {"key": [f"demo/{name}" for name in NAMES], "luck": [1.0, 2.0, 3.0, 4.0, 5.0]}
    pq.write_table(pa.table(numbers), tmp_path / "luck.parquet")
    assert add_field(out, FieldWish("luck", table=tmp_path / "luck.parquet"), JOB, say)
    return out


def luck(out: Path) -> dict[str, float]:
    """By key, as the trainer joins it."""
    clips = join(open_shards(LocalStore(out)), ["luck"])
    numbers = clips.fields["luck"].numbers
    assert numbers is not None
    return dict(zip(clips.keys.to_pylist(), numbers.tolist(), strict=True))


def killed(*_arguments: Any) -> None:
    raise KeyboardInterrupt


def purge(out: Path, *names: str) -> None:
    keys = frozenset(f"demo/{name}" for name in names)
    assert drop(out, Wanted(keys, purge=True, runs=out.parent)).exit_code == 0


@pytest.mark.parametrize("where", ["before the fields", "before the field's index"])
def test_a_purge_that_was_killed_and_is_repeated_keeps_the_numbers(
    made: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target = "drop.purge_fields" if where == "before the fields" else "field_purge.write_atomically"
    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.{target}", killed)
        with pytest.raises(KeyboardInterrupt):
            purge(made, "b")
    purge(made, "b")
    assert luck(made) == {"demo/a": 1, "demo/c": 3, "demo/d": 4, "demo/e": 5}
    assert verify(made, deep=True, progress=None).exit_code == ExitCode.OK


def test_another_purge_after_a_killed_one_leaves_no_number_of_either(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.drop.purge_fields", killed)
        with pytest.raises(KeyboardInterrupt):
            purge(made, "b")
    purge(made, "a", "c", "d")
    assert luck(made) == {"demo/e": 5}
    assert pq.read_table(made / "fields/luck/table.parquet")["key"].to_pylist() == ["demo/e"]
    assert verify(made, deep=True, progress=None).exit_code == ExitCode.OK


def test_a_shard_of_other_clips_under_the_same_name_has_no_numbers(
    made: Path, factory: Factory
) -> None:
    """It is made anew from other rows: what it was before the purge counts no more."""
    purge(made, "b")
    factory.make(made, rows(*NAMES, transcript="other words"))
    sidecars = [json.loads(path.read_bytes()) for path in (made / "shards").glob("*.json")]
    assert not any(sidecar.get("purged_from") for sidecar in sidecars)
    purge(made, "b")
    assert any("luck" in said for said in verify(made, progress=None).missing)


# --- side shards ----------------------------------------------------------------------------------


@dataclass
class Sides:
    """A set with an error and a field of features."""

    out: Path
    parts: Path
    patch: pytest.MonkeyPatch

    def add(self) -> Outcome:
        """The field, made by the job's own workers."""
        with self.patch.context() as patch:
            patch.setattr("pipeline.job.executor", executors.executor)
            return add_field(self.out, FieldWish("seen", features=self.parts), JOB, say)

    def shard_of(self, key: str) -> str:
        """Of a row, sample or error."""
        for path in (self.out / "shards").glob("*.json"):
            stored = json.loads(path.read_bytes())
            if key in {entry["key"] for entry in stored["samples"] + stored["errors"]}:
                return path.stem
        raise AssertionError(key)

    def elsewhere(self) -> str:
        """A clip of another shard than the row that failed."""
        bad = self.shard_of("demo/bad")
        return next(n for n in NAMES if self.shard_of(f"demo/{n}") != bad)

    def tars(self) -> dict[str, int]:
        """The side shards, and when they were written."""
        tars = (self.out / "fields/seen/shards").glob("*.tar")
        return {path.stem: path.stat().st_mtime_ns for path in tars}


@pytest.fixture
def sides(factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sides:
    factory.add(*NAMES, "bad")
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    out, parts = tmp_path / "out", tmp_path / "features"
    factory.make(out, rows(*NAMES, "bad"))
    parts.mkdir()
    (parts / "embed.json").write_text('{"channels": {"fg": 2}, "per": "clip"}')
    for path in (out / "shards").glob("*.json"):
        keys = [sample["key"] for sample in json.loads(path.read_bytes())["samples"]]
        vectors = [[float(ord(key[-1])), 1.0] for key in keys]
        pq.write_table(pa.table({"key": keys, "fg": vectors}), parts / f"{path.stem}.parquet")
    made = Sides(out, parts, monkeypatch)
    assert made.add().exit_code == 0
    return made


def test_a_shard_that_lost_an_error_row_keeps_its_side_shard(sides: Sides) -> None:
    before = sides.tars()
    outcome = drop(sides.out, Wanted(frozenset({"demo/bad"}), purge=True, runs=sides.out.parent))
    assert not any("field seen" in line for line in outcome.lines)
    assert verify(sides.out, deep=True, progress=None).exit_code == ExitCode.OK
    sides.add()
    assert sides.tars() == before


def test_only_side_shards_of_rewritten_shards_go_and_are_counted(sides: Sides) -> None:
    before, clip = sides.tars(), sides.elsewhere()
    shard, key = sides.shard_of(f"demo/{clip}"), f"demo/{clip}"
    keys = frozenset({key, "demo/bad"})
    lines = drop(sides.out, Wanted(keys, purge=True, runs=sides.out.parent)).lines
    [told] = [line for line in lines if "field seen" in line]
    assert told.startswith("field seen: 1 side shard of rewritten shards removed; `python -m")
    assert sides.tars() == {name: when for name, when in before.items() if name != shard}
    tables = [pq.read_table(path) for path in (sides.out / "fields/seen").glob("*.parquet")]
    assert len(tables) == 2 and not any(key in table["key"].to_pylist() for table in tables)
    assert sides.add().exit_code == 0
    assert sides.tars().keys() == before.keys()
    assert {name for name, when in sides.tars().items() if before[name] != when} == {shard}
    assert verify(sides.out, deep=True, progress=None).exit_code == ExitCode.OK


def test_no_side_shard_of_a_killed_purge_outlives_another_one(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = sides.elsewhere()
    shard = sides.shard_of(f"demo/{clip}")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.drop.purge_fields", killed)
        with pytest.raises(KeyboardInterrupt):
            purge(sides.out, clip)
    purge(sides.out, "bad")
    assert shard not in sides.tars()


def test_what_lies_beside_a_damaged_shard_goes_too(sides: Sides) -> None:
    clip = sides.elsewhere()
    shard = sides.shard_of(f"demo/{clip}")
    (sides.out / "shards" / f"{shard}.tar").write_bytes(b"damaged")
    wanted = Wanted(frozenset({f"demo/{clip}"}), purge=True, runs=sides.out.parent)
    assert drop(sides.out, wanted).exit_code == 5
    assert shard not in sides.tars()
