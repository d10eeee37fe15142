"""A mirror's files on their way to the store: in which order, and what a failure leaves there."""

from pathlib import Path

import pytest

from pipeline import remote
from pipeline.mirror import store_of
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
