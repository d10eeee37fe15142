"""Writing, listing and copying: against a real server, looked at by another client."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from platform import node
from typing import IO

import pytest

from stores import is_remote, open_objects, retry
from stores.copies import Copies
from stores.errors import AddressError, RefusedStoreError, StoreError
from stores.objects import ObjectStore
from stores.scratch import folder_for, scratch_folder, workplace
from tests.stores.bucket import SECRET, Bucket, Fault, bucket, server

__all__ = ["bucket", "server"]

REPOSITORY = Path(__file__).parents[2]
PART_BYTES = 10 << 20
"""pyarrow's: a larger object is uploaded in parts."""


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    return open_objects(bucket.url("set"), what="--out")


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 70_000, 2 * PART_BYTES + 12_345])
def test_what_is_put_is_there_whole_and_comes_back(
    store: ObjectStore, bucket: Bucket, tmp_path: Path, size: int
) -> None:
    (tmp_path / "a").write_bytes(data := os.urandom(size))
    listed = store.put(tmp_path / "a", "shards/a.tar")
    assert bucket.objects() == {"set/shards/a.tar": data}
    assert (listed.name, listed.size) == ("shards/a.tar", size)
    assert store.facts("shards/a.tar") == listed
    store.fetch("shards/a.tar", tmp_path / "deep/er/b")
    assert (tmp_path / "deep/er/b").read_bytes() == data
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["b"]
    if size:
        assert store.read_range("shards/a.tar", size - 1, 10) == data[-1:]


def test_an_upload_that_fails_in_the_middle_leaves_nothing_under_the_name(
    store: ObjectStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "TRIES", 2)
    (tmp_path / "a").write_bytes(data := os.urandom(2 * PART_BYTES + 12_345))
    bucket.proxy.faults.append(Fault("PUT", r"a\.tar.*partNumber=2"))
    with pytest.raises(StoreError, match=r"a\.tar could not be written, tried 2 times"):
        store.put(tmp_path / "a", "a.tar")
    assert bucket.proxy.count(r"PUT .*partNumber=1") > 0
    assert bucket.objects() == {}
    bucket.proxy.heal()
    store.put(tmp_path / "a", "a.tar")
    assert bucket.objects() == {"set/a.tar": data}


def test_an_upload_whose_process_is_killed_leaves_the_old_object(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    store.write("a.tar", b"old")
    (tmp_path / "a").write_bytes(os.urandom(2 * PART_BYTES + 12_345))
    bucket.proxy.faults.append(Fault("PUT", r"partNumber=3", 200, delay_seconds=60))
    code = (
        "from pathlib import Path; from stores import open_objects\n"
        f"open_objects({bucket.url('set')!r}, what='').put(Path({str(tmp_path / 'a')!r}), 'a.tar')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    assert bucket.proxy.hit.wait(100)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert bucket.objects() == {"set/a.tar": b"old"}


@pytest.mark.parametrize("status", [500, 503])
def test_writing_is_tried_again(store: ObjectStore, bucket: Bucket, status: int) -> None:
    bucket.proxy.faults.append(Fault("PUT|POST", "x", status, times=2))
    store.write("x", b"data")
    assert bucket.objects() == {"set/x": b"data"}


def test_a_refusal_is_said_at_once_without_the_secret(store: ObjectStore, bucket: Bucket) -> None:
    bucket.proxy.faults.append(Fault("PUT|POST", ".", 403))
    with pytest.raises(RefusedStoreError, match=r"s3://\S+/set/x cannot be written") as caught:
        store.write("x", b"data")
    assert SECRET not in str(caught.value)
    assert bucket.proxy.count("PUT|POST") == 1


def test_deleting(store: ObjectStore, bucket: Bucket) -> None:
    store.write("x", b"1")
    store.delete("x")
    store.delete("x")
    assert bucket.objects() == {}


# --- listing --------------------------------------------------------------------------------------


def test_a_listing_has_names_sizes_and_times(store: ObjectStore, bucket: Bucket) -> None:
    for name, size in {"set/b": 2, "set/a/c d.mp4": 3, "settled/x": 1, "set/ü#?%20": 4}.items():
        bucket.put(name, bytes(size))
    listed = store.list()
    assert [(entry.name, entry.size) for entry in listed] == [("a/c d.mp4", 3), ("b", 2),
                                                              ("ü#?%20", 4)]  # fmt: skip
    assert all(abs(entry.mtime_ns / 1e9 - time.time()) < 3600 for entry in listed)


def test_names_that_no_file_can_have_are_not_listed_and_told(
    store: ObjectStore, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("set/a//b", "set/../c", "set/./d", "set/folder/", "set/good"):
        bucket.put(name, b"" if name.endswith("/") else b"1")
    assert [entry.name for entry in store.list()] == ["good"]
    [line] = caplog.messages
    assert "3 objects are left out" in line and "/set/" in line


def test_an_empty_place_is_no_error_and_a_missing_bucket_is_one(bucket: Bucket) -> None:
    assert open_objects(bucket.url("nothing"), what="").list() == []
    nowhere = open_objects("s3://not-a-bucket-of-ours/set", what="")
    for action in (nowhere.list, lambda: nowhere.facts("x"), lambda: nowhere.write("x", b"1")):
        with pytest.raises(RefusedStoreError, match="not-a-bucket-of-ours"):
            action()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://host/set", "is on a web server"),
        ("https://me:sesame@host/set", "AWS_PROFILE"),
        ("s3://AKIA:sesame@bucket/set", "AWS_PROFILE"),
        ("ftp://host/set", "expected a folder"),
        ("/folder", "expected s3://"),
    ],
)
def test_only_buckets_are_written(address: str, said: str) -> None:
    with pytest.raises(AddressError, match=said) as caught:
        open_objects(address, what="--out")
    assert "sesame" not in str(caught.value)


def test_what_is_remote() -> None:
    assert [is_remote(place) for place in ("s3://a/b", "gs://a", "/a", "a/b", "file:///a")] == [
        True, True, False, False, False,
    ]  # fmt: skip


# --- copies ---------------------------------------------------------------------------------------


def refresh(store: ObjectStore, folder: Path) -> None:
    Copies(store, folder).refresh(store.list(), lambda name: name == "own")


def test_only_what_changed_is_fetched(store: ObjectStore, bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        bucket.put(f"set/{name}", name.encode())
    refresh(store, tmp_path)
    assert (tmp_path / "c/d").read_bytes() == b"c/d"
    bucket.proxy.asked.clear()
    refresh(store, tmp_path)
    assert bucket.proxy.count(r"(GET|HEAD) /\S+/set/") == 0
    bucket.put("set/a", b"longer")
    bucket.remove("set/b")
    (tmp_path / "c/d").write_text("changed here")
    (tmp_path / "own").write_text("stays")
    refresh(store, tmp_path)
    there = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: there[name] for name in there if not name.startswith(".")} == {
        "a": "longer", "d": "c/d", "own": "stays",
    }  # fmt: skip


def test_only_what_changed_is_uploaded(store: ObjectStore, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("set/a", b"old")
    refresh(store, tmp_path)
    copies = Copies(store, tmp_path)
    copies.push("a")
    assert bucket.proxy.count("PUT|POST") == 0
    (tmp_path / "a").write_text("newer")
    copies.push("a")
    assert bucket.objects() == {"set/a": b"newer"}
    asked = len(bucket.proxy.asked)
    Copies(store, tmp_path).push("a")
    assert len(bucket.proxy.asked) == asked
    Copies(store, tmp_path).forget(["a"])
    assert bucket.objects() == {} and not (tmp_path / "a").exists()


def test_a_copy_that_cannot_be_fetched_leaves_the_old_one(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("set/a", b"old")
    refresh(store, tmp_path)
    bucket.put("set/a", b"newer")
    bucket.proxy.faults.append(Fault("GET", "/set/a"))
    with pytest.raises(StoreError, match="tried 8 times"):
        refresh(store, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"old"
    bucket.proxy.heal()
    refresh(store, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"newer"


# --- scratch --------------------------------------------------------------------------------------


def test_a_folder_that_is_just_being_made_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock file is there before its lock: another process must not take it for a dead one's."""
    lock = fcntl.flock
    others: list[threading.Thread] = []

    def slow(file: IO[bytes] | int, how: int) -> None:
        if not isinstance(file, int) and how == fcntl.LOCK_EX and not others:
            others.append(threading.Thread(target=lambda: workplace(tmp_path).__enter__()))
            others[0].start()
            others[0].join(0.5)
        lock(file, how)

    monkeypatch.setattr("stores.scratch.fcntl.flock", slow)
    with workplace(tmp_path) as mine:
        others[0].join()
        assert mine.is_dir()


def test_fetching_what_is_not_wanted_any_more_leaves_no_file(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("set/a", b"1234")
    with pytest.raises(StoreError, match="set/a was not read through: it was stopped"):
        store.fetch("a", tmp_path / "a", lambda: False)
    assert list(tmp_path.iterdir()) == []


def test_many_are_forgotten_in_order_and_noted_once(
    store: ObjectStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        bucket.put(f"set/{name}", b"1")
    refresh(store, tmp_path)
    bucket.proxy.asked.clear()
    copies, written = Copies(store, tmp_path), []
    monkeypatch.setattr(copies, "_write", lambda: written.append(sorted(copies._record)))
    copies.forget(["c", "a", "b"])
    assert written == [["d"]]
    deleted = [asked for asked in bucket.proxy.asked if asked.startswith("DELETE")]
    assert re.findall(r"/set/(\w)", " ".join(deleted)) == ["c", "a", "b"]
    assert bucket.objects() == {"set/d": b"1"}


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from stores.scratch import workplace\n"
        "with workplace(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'big').write_bytes(bytes(1000)); print(folder, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    with workplace(tmp_path) as mine:
        assert (left / "big").exists() and mine != left
    process.kill()
    process.wait()
    assert (left / "big").exists()
    with workplace(tmp_path):
        assert not left.exists()
    assert list((tmp_path / "live").iterdir()) == []


def test_what_a_kill_left_without_its_lock_is_removed_too(tmp_path: Path) -> None:
    """The lock is one of the files that a removal takes away, and the media may come after it."""
    here, elsewhere = (tmp_path / "live" / f"{host}-12-0123abcd" for host in (node(), "other"))
    for folder in (here, elsewhere):
        folder.mkdir(parents=True)
        (folder / "big").touch()
    with workplace(tmp_path):
        assert not here.exists()
        assert elsewhere.exists()  # its owner may be about to make the lock


def test_where_scratch_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAV_SCRATCH", str(tmp_path / "by-environment"))
    assert scratch_folder(tmp_path / "named") == tmp_path / "named"
    assert scratch_folder() == tmp_path / "by-environment"
    one, other = (folder_for(tmp_path, "sets", f"s3://{b}/set") for b in ("a", "b"))
    assert one != other and one == folder_for(tmp_path, "sets", "s3://a/set")
    (tmp_path / "file").write_text("")
    with pytest.raises(AddressError, match=r"cannot be made .*--scratch"):
        scratch_folder(tmp_path / "file" / "below")
    monkeypatch.setattr("stores.scratch.os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(AddressError, match=r"cannot be written .*--scratch"):
        scratch_folder(tmp_path / "of-somebody-else")
