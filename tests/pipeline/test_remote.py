"""A mirror's files on their way to the store: in which order, and what a failure leaves there."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import remote
from pipeline.mirror import store_of, tar_bytes
from stores.base import Listed
from stores.errors import StoreError
from stores.objects import ObjectStore
from tests.stores.bucket import Bucket, bucket, server

__all__ = ["bucket", "server"]

INDEX = "set/shardindex.json"


@pytest.fixture
def mirror(bucket: Bucket) -> Path:
    """Of a set whose index and tables are on the store."""
    out = remote.home_of(bucket.url("set"))
    write(out, "1")
    remote.push(out)
    assert bucket.objects(INDEX) == {INDEX: b"index 1"}
    return out


def write(out: Path, version: str) -> None:
    for name in ("samples.parquet", "errors.parquet"):
        (out / name).write_text(f"rows {version}")
    (out / "shardindex.json").write_text(f"index {version}")


def meanwhile(patch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Something happens between the listing of a store and what is made of it."""
    listed = ObjectStore.list

    def slow(store: ObjectStore) -> list[Listed]:
        found = listed(store)
        happens()
        return found

    patch.setattr(ObjectStore, "list", slow)


def test_an_index_is_never_beside_tables_of_another(
    mirror: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, seen = ObjectStore.put, []

    def away_for_the_index(self: ObjectStore, local: Path, name: str) -> Listed:
        there = bucket.objects("set/")
        seen.append((name, there.get(INDEX), there["set/samples.parquet"]))
        if name == "shardindex.json":
            raise StoreError("away")
        return put(self, local, name)

    write(mirror, "2")
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put", away_for_the_index)
        with pytest.raises(StoreError):
            remote.push(mirror)
    assert seen == [
        ("samples.parquet", None, b"rows 1"),
        ("errors.parquet", None, b"rows 2"),
        ("shardindex.json", None, b"rows 2"),
    ]
    remote.push(mirror)
    assert bucket.objects(INDEX) == {INDEX: b"index 2"}


def test_what_did_not_change_stays_as_it_is(mirror: Path, bucket: Bucket) -> None:
    bucket.proxy.asked.clear()
    remote.push(mirror)
    (mirror / "report.html").write_text("page")
    remote.push(mirror)
    assert bucket.proxy.count("shardindex|parquet") == 0
    assert bucket.objects(INDEX) == {INDEX: b"index 1"}


def test_an_index_that_says_more_of_the_same_tables_takes_its_place_at_once(
    mirror: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a field was added: a set must not be without an index meanwhile."""
    (mirror / "shardindex.json").write_text("index 1 with a field")
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", lambda _store, name: pytest.fail(f"deleted {name}"))
        remote.push(mirror)
    assert bucket.objects(INDEX) == {INDEX: b"index 1 with a field"}


def test_a_folder_of_one_name_is_no_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out set`, from where it lies; a field's folder is looked at from its set's."""
    monkeypatch.chdir(tmp_path)
    assert [store_of(Path(name)) for name in ("set", "fields", "fields/lip", ".")] == [None] * 4


def test_a_field_is_mirrored_with_its_set(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    out = remote.home_of(bucket.url("set"))
    write(out, "1")
    remote.push(out)
    monkeypatch.chdir(out)
    assert str(store_of(Path("fields/lip"))) == bucket.url("set/fields/lip")


# --- two processes at once ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["set", "set/fields/lip"])
def test_what_a_job_commits_while_somebody_looks_stays_in_its_mirror(
    mirror: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """`status` lists the store; a shard that is committed later is in no listing, and no litter."""
    out = mirror / place.removeprefix("set").removeprefix("/")
    (out / "shards").mkdir(parents=True, exist_ok=True)
    job = threading.Thread(target=remote.take, args=(out, "train-000000"))

    def commit() -> None:
        bucket.put(f"{place}/shards/train-000000.tar", b"tar")
        bucket.put(f"{place}/shards/train-000000.json", b"{}")
        job.start()
        job.join(2)

    with monkeypatch.context() as patch:
        meanwhile(patch, commit)
        with remote.reading(bucket.url("set")):
            job.join()
    assert (out / "shards/train-000000.json").read_bytes() == b"{}"
    assert tar_bytes(out / "shards/train-000000.tar") == len(b"tar")


def test_what_goes_while_somebody_looks_is_gone_here_too(
    mirror: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job on another machine takes the index away before it changes shards."""
    bucket.put("set/shardindex.json", b"a newer index")
    with monkeypatch.context() as patch:
        meanwhile(patch, lambda: bucket.remove(INDEX))
        with remote.reading(bucket.url("set")):
            assert not (mirror / "shardindex.json").exists()
    assert (mirror / "samples.parquet").read_text() == "rows 1"
    remote.push(mirror)
    assert bucket.objects(INDEX) == {}


# --- what else lies below the address -------------------------------------------------------------


def test_no_object_says_where_a_mirror_belongs(mirror: Path, bucket: Bucket) -> None:
    """Or who may write below an address would say what others change with their credentials."""
    for name in (".store", ".copies.json", "plan.lock", "shards/train-000000.tar.there"):
        bucket.put(f"set/{name}", bucket.url("elsewhere").encode())
    with remote.reading(bucket.url("set")) as out:
        assert str(store_of(out)) == bucket.url("set")
        assert tar_bytes(out / "shards/train-000000.tar") is None
        (out / "report.html").write_text("page")
        remote.push(out)
    assert bucket.objects("elsewhere") == {}


def test_making_a_set_anew_touches_nothing_else_below_its_address(
    mirror: Path, bucket: Bucket
) -> None:
    others = {"set/raw/clip.tar": b"1", "set/raw/clip.mp4": b"2", "set/archive.tar": b"3",
              "set/other/shards/train-000000.tar": b"4", "set/other/plan.json": b"5"}  # fmt: skip
    own = ["shards/train-000000.tar", "fields/lip/shards/train-000000.tar", "quality/x.parquet"]
    here = bucket.objects("set/")
    for name, data in {**others, **{f"set/{name}": b"own" for name in own}}.items():
        bucket.put(name, data)
    with remote.alone(mirror):
        remote.pull(mirror)
        assert not (mirror / "raw").exists()  # terabytes, perhaps
        for name in ("shards", "fields", "quality"):
            shutil.rmtree(mirror / name)
        remote.clear(mirror)
    assert bucket.objects("set/") == {**here, **others}
