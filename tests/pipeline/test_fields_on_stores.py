"""`add-field` of a set on a store: a folder's bytes, whole at any moment, resumed anywhere."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.verify import ExitCode, verify
from stores import open_store
from tests.pipeline.factory import JOB, Factory, factory, rows
from tests.pipeline.shelves import NAMES, Changes, Shelved, Side
from tests.stores.bucket import Bucket, bucket, server
from train.fields import join
from train.index import open_shards

__all__ = ["bucket", "factory", "server"]

pytestmark = pytest.mark.timeout(900)  # many requests, also on busy machines


@pytest.fixture
def shelved(
    bucket: Bucket, factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shelved:
    made = Shelved(bucket, factory, tmp_path, monkeypatch)
    made.make()
    made.features()
    return made


def fields(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Sidecars say when and by whom, so their tars stand for them."""
    return {
        name: data
        for name, data in objects.items()
        if name.startswith("fields/") and "/shards/" not in name
    } | {name: data for name, data in objects.items() if name.endswith(".tar")}


def whole(shelved: Shelved, name: str = "set") -> None:
    """As the trainer and `verify` on another machine have it."""
    verdict = verify(shelved.machine(name), progress=None)
    assert (verdict.corrupt, verdict.missing, verdict.exit_code) == ([], [], ExitCode.OK)
    clips = join(open_shards(open_store(shelved.bucket.url(name))), ["seen"])
    assert len(clips.keys) == len(NAMES)


def test_the_field_is_that_of_a_folder(shelved: Shelved, factory: Factory) -> None:
    here = shelved.folder / "set"
    factory.make(here, rows(*NAMES, "bad"))
    assert shelved.add(here).exit_code == 0
    assert shelved.add(shelved.machine()).exit_code == 0
    local = {
        str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()
    }
    there = shelved.objects()
    assert fields(there) == {name: data for name, data in fields(local).items() if name in there}
    assert len([name for name in there if name.startswith("fields/seen/shards/")]) >= 4
    index = json.loads(there["shardindex.json"])
    digest = hashlib.sha256(there["fields/seen/shardindex.json"]).hexdigest()
    assert index["fields"]["seen"]["sha256"] == digest
    whole(shelved)
    assert not list(shelved.folder.glob("machine-*/live/*"))


def test_what_is_there_is_kept_and_needs_no_tar(shelved: Shelved) -> None:
    shelved.add(shelved.machine())
    shelved.bucket.proxy.asked.clear()
    again = Side()
    assert shelved.add(shelved.machine(), again).exit_code == 0
    assert again.made == []
    assert shelved.bucket.proxy.count(r"(GET|PUT) .*\.tar(\?|$)") == 0


def test_a_job_that_is_killed_goes_on_with_what_is_missing(shelved: Shelved) -> None:
    first, rest = Side(stops_before=1), Side()
    with pytest.raises(KeyboardInterrupt):
        shelved.add(shelved.machine(), first)
    assert "fields/seen/shardindex.json" not in shelved.objects()
    assert shelved.add(shelved.machine(), rest).exit_code == 0
    assert len(first.made) == 1 and len(rest.made) == 2
    assert set(first.made).isdisjoint(rest.made)
    whole(shelved)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_job_that_is_killed_goes_on_anywhere(
    shelved: Shelved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each change of the store in turn; nothing is seen that is not whole."""
    shelved.copy("undisturbed")
    with monkeypatch.context() as patch:
        changes = Changes(patch)
        everything = Side()
        assert shelved.add(shelved.machine("undisturbed"), everything).exit_code == 0
    wanted = fields(shelved.objects("undisturbed"))
    for number, change in enumerate(changes.done):
        shelved.copy(f"k{number}")
        first, rest = Side(), Side()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            Changes(patch, number)
            shelved.add(shelved.machine(f"k{number}"), first)
        seen = shelved.objects(f"k{number}")
        if "fields/seen/shardindex.json" in seen:
            assert wanted.keys() <= seen.keys(), change
        if "fields" in json.loads(seen.get("shardindex.json", b"{}")):
            assert "fields/seen/shardindex.json" in seen, change
        assert shelved.add(shelved.machine(f"k{number}"), rest).exit_code == 0
        assert fields(shelved.objects(f"k{number}")) == wanted, change
        assert set(first.made).isdisjoint(rest.made), change
        assert {*first.made, *rest.made} == set(everything.made)
        whole(shelved, f"k{number}")


def test_tasks_of_a_job_array_on_machines_of_their_own(shelved: Shelved) -> None:
    made = [Side(), Side(), Side()]
    for number in range(2):
        job = replace(JOB, task=(number, 2))
        assert shelved.add(shelved.machine(), made[number], job).exit_code == 0
    assert shelved.add(shelved.machine(), made[2]).exit_code == 0
    assert made[0].made and made[1].made and not made[2].made
    whole(shelved)


def test_a_number_from_a_table_and_another_field_in_its_place(
    shelved: Shelved, tmp_path: Path
) -> None:
    keys = [f"demo/{name}" for name in NAMES]
    pq.write_table(pa.table({"key": keys, "seen": range(len(keys))}), tmp_path / "luck.parquet")
    shelved.add(shelved.machine())
    wish: dict[str, Any] = {"table": tmp_path / "luck.parquet", "overwrite": True}
    assert shelved.add(shelved.machine(), **wish).exit_code == 0
    there = {name for name in shelved.objects() if name.startswith("fields/")}
    assert there == {
        f"fields/seen/{name}"
        for name in ("field.json", "table.parquet", "errors.parquet", "shardindex.json")
    }
    clips = join(open_shards(open_store(shelved.bucket.url("set"))), ["seen"])
    numbers = clips.fields["seen"].numbers
    assert numbers is not None
    assert dict(zip(clips.keys.to_pylist(), numbers.tolist(), strict=True)) == {
        key: float(number) for number, key in enumerate(keys)
    }
    assert verify(shelved.machine(), progress=None).exit_code == ExitCode.OK


def test_overwrite_makes_every_side_shard_again(shelved: Shelved) -> None:
    first, again = Side(), Side()
    shelved.add(shelved.machine(), first)
    wish: dict[str, Any] = {"features": shelved.folder / "features", "overwrite": True}
    assert shelved.add(shelved.machine(), again, **wish).exit_code == 0
    assert sorted(again.made) == sorted(first.made)
    whole(shelved)
