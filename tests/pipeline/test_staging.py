"""Raw media on the way from a bucket to the decoder."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ClipError, ShardError
from pipeline.item import Item
from pipeline.paths import resolve
from pipeline.staging import staged
from stores.errors import StoreError
from tests.stores.bucket import Bucket, Fault, bucket, server

__all__ = ["bucket", "server"]


class Decoder:
    """Decodes nothing."""

    stopped = False


def item(root: str, uri: str, audio: str | None = None, container: str | None = None) -> Item:
    row: dict[str, Any] = {"uri": uri, "audio_uri": audio, "container": container}
    return Item(root, (row,))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_local_root_is_left_alone(tmp_path: Path) -> None:
    items = [item(str(tmp_path), "a.mp4")]
    with staged(str(tmp_path), iter(items), "", Decoder()) as here:
        assert list(here) == items


def test_each_item_has_its_files_and_never_are_more_than_two_here(
    bucket: Bucket, tmp_path: Path
) -> None:
    contents = {f"deep/er/{number}.mp4": bytes([number]) * 1000 for number in range(6)}
    for name, data in contents.items():
        bucket.put(f"raw/{name}", data)
    bucket.put("raw/sound.wav", b"sound")
    root = bucket.url("raw")
    items = [item(root, name, "sound.wav") for name in contents]
    seen = []
    with staged(root, iter(items), str(tmp_path), Decoder()) as here:
        for one in here:
            folder = Path(one.root)
            assert resolve(folder, one.uri).read_bytes() == contents[one.uri]
            assert resolve(folder, "sound.wav").read_bytes() == b"sound"
            media = [path for path in files_in(tmp_path) if path.suffix == ".mp4"]
            assert len(media) <= 2
            seen.append(one.uri)
    assert seen == list(contents)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("none.mp4", "missing_file"),
        ("../secret.mp4", "bad_path"),
        ("a/../../secret.mp4", "bad_path"),
        ("/etc/passwd", "bad_path"),
        ("http://127.0.0.1:1/x.mp4", "bad_path"),
        ("bytes:%FF.mp4", "bad_path"),
        ("x" * 300 + ".mp4", "bad_path"),
        ("empty.mp4", "empty_file"),
    ],
)
def test_what_cannot_be_had_is_the_rows_fault(
    bucket: Bucket, tmp_path: Path, uri: str, reason: str
) -> None:
    """As `resolve` says it of the same name below a folder."""
    bucket.put("secret.mp4", b"of somebody else")
    bucket.put("raw/empty.mp4", b"")
    bucket.put(f"raw/{'x' * 300}.mp4", b"longer than a file name may be")
    root = bucket.url("raw")
    with staged(root, iter([item(root, uri)]), str(tmp_path), Decoder()) as here:
        for one in here:
            with pytest.raises(ClipError) as caught:
                resolve(Path(one.root), uri)
            assert str(caught.value.reason) == reason
    assert bucket.proxy.count(r"GET .*(secret|passwd)") == 0


def test_archives_are_not_fetched(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("raw/a.zip", b"1")
    root = bucket.url("raw")
    items = iter([item(root, "a.zip", container="zip")])
    with staged(root, items, str(tmp_path), Decoder()) as here:
        assert len(list(here)) == 1
    assert bucket.proxy.count("a.zip") == 0


@pytest.mark.parametrize("fault", [Fault("GET", "a.mp4"), Fault("GET|HEAD", "a.mp4", 403)])
def test_a_store_that_fails_is_nobodys_fault_but_the_stores(
    bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    bucket.put("raw/a.mp4", b"1")
    bucket.proxy.faults.append(fault)
    root = bucket.url("raw")
    with (
        pytest.raises(StoreError, match=r"raw/a.mp4"),
        staged(root, iter([item(root, "a.mp4")]), str(tmp_path), Decoder()) as here,
    ):
        list(here)
    assert files_in(tmp_path) == []


def test_a_bucket_that_vanishes_makes_no_file_missing(bucket: Bucket, tmp_path: Path) -> None:
    root = "s3://bucket-of-nobody/raw"
    with (
        pytest.raises(StoreError, match="no bucket"),
        staged(root, iter([item(root, "a.mp4")]), str(tmp_path), Decoder()) as here,
    ):
        list(here)


def test_a_full_disk_is_said_as_such(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("raw/a.mp4", bytes(100))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stores.objects.os.replace", full)
    root = bucket.url("raw")
    with (
        pytest.raises(ShardError, match=r"No space left on the disk for .a\.mp4. below"),
        staged(root, iter([item(root, "a.mp4")]), str(tmp_path), Decoder()) as here,
    ):
        list(here)
