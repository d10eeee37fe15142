"""Numbers of the clips that stay outlive a purge of others, also one that was killed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.add_field import FieldWish, add_field
from pipeline.drop import Wanted, drop
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
