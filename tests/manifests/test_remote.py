"""Roots in a bucket: the manifest is that of the same files in a folder."""

import signal
from pathlib import Path

import pytest

from manifests import build, dataset
from manifests.__main__ import main
from manifests.dataset import ScanOptions
from manifests.errors import UsageError
from manifests.remote import local_copy, located
from manifests.schema import read_facts
from stores.errors import StoreError
from tests.manifests.test_esc50 import CSV
from tests.manifests.test_grid import ALIGN
from tests.stores.bucket import Bucket, Fault, bucket, server

__all__ = ["bucket", "server"]

CLIPS_CSV = (
    "path,start,end,label,split\na/1.mp4,0,2,x,train\nb ü/2.mp4,1,3,y,val\nnone.mp4,0,1,x,\n"
)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "folder",
            ("a/1.mp4", "a/1.json", "ü/2 b.MKV", "3.mov", "._3.mov", ".git/x.mp4", "4.mp4.part"),
        ),
        ("esc50", {"audio/1-100032-A-0.wav": b"123", "meta/esc50.csv": CSV}),
        ("grid", {"s1/bbaf2n.mpg": b"1", "align/s1/bbaf2n.align": ALIGN}),
        ("grid", {"video/lgaz9s.mp4": b"1", "align/lgaz9s.align": "0 25000 lay\n"}),
    ],
)
def test_the_manifest_is_that_of_a_folder(
    bucket: Bucket, tree, tmp_path: Path, name: str, files
) -> None:
    root = tree(files).rename(tmp_path / "grid-s7-h264")  # a name from which GRID knows a speaker
    bucket.upload(root, "raw/grid-s7-h264")
    address = bucket.url("raw/grid-s7-h264")
    here, _ = build.build(name, root, tmp_path / "here.parquet")
    folder, listing = located(dataset(name), address)
    options = ScanOptions(listing=listing)
    there, report = build.build(name, folder, tmp_path / "there.parquet", options)
    assert there.replace_schema_metadata(None).equals(here.replace_schema_metadata(None))
    assert report.rows > 0
    assert read_facts(tmp_path / "there.parquet").root == address
    assert bucket.proxy.count(r"GET .*\.(mp4|mkv|mov|wav|mpg)") == 0
    again = build.ensure(name, folder, tmp_path / "there.parquet", options)
    assert again.rebuilt == (name == "folder")


def test_a_table_knows_the_sizes_of_files_in_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    for name, size in {"raw/a/1.mp4": 5, "raw/b ü/2.mp4": 7}.items():
        bucket.put(name, bytes(size))
    bucket.put("raw/clips.csv", CLIPS_CSV.encode())
    table = local_copy(bucket.url("raw/clips.csv"), "--table")
    folder, listing = located(dataset("table"), bucket.url("raw"))
    options = ScanOptions(table=table, listing=listing)
    rows, report = build.build("table", folder, tmp_path / "m.parquet", options)
    sizes = dict(zip(rows["uri"].to_pylist(), rows["bytes"].to_pylist(), strict=True))
    assert sizes == {"a/1.mp4": 5, "b ü/2.mp4": 7, "none.mp4": None}
    assert report.missing_files == 1


def test_annotations_are_fetched_again_only_when_they_change(bucket: Bucket) -> None:
    bucket.put("raw/meta/esc50.csv", CSV.encode())
    bucket.put("raw/audio/1-100032-A-0.wav", b"123")
    address = bucket.url("raw")
    folder, _ = located(dataset("esc50"), address)
    assert (folder / "meta/esc50.csv").read_text() == CSV
    bucket.proxy.asked.clear()
    located(dataset("esc50"), address)
    assert bucket.proxy.count("esc50.csv$") == 0
    bucket.put("raw/meta/esc50.csv", (CSV + "x\n").encode())
    located(dataset("esc50"), address)
    assert (folder / "meta/esc50.csv").read_text() == CSV + "x\n"


def test_what_is_wrong_is_a_sentence_with_the_address(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("raw/notes.md", b"1")
    with pytest.raises(UsageError, match="s3://bucket-of-nobody/raw"):
        located(dataset("folder"), "s3://bucket-of-nobody/raw")
    with pytest.raises(UsageError, match=r"--table s3://\S+/raw/none.csv does not exist"):
        local_copy(bucket.url("raw/none.csv"), "--table")
    with pytest.raises(UsageError, match="is on a web server"):
        located(dataset("folder"), "https://host/raw")
    folder, listing = located(dataset("esc50"), bucket.url("raw"))
    with pytest.raises(UsageError, match=f"in {bucket.url('raw')}"):
        build.build("esc50", folder, tmp_path / "m.parquet", ScanOptions(listing=listing))
    folder, listing = located(dataset("folder"), bucket.url("raw"))
    with pytest.raises(UsageError, match="asks every file for its length"):
        build.build("folder", folder, tmp_path / "m.parquet",
                    ScanOptions(listing=listing, window_seconds=2))  # fmt: skip
    bucket.proxy.faults.append(Fault("GET", "."))
    with pytest.raises(StoreError, match="could not be listed, tried 8 times"):
        located(dataset("folder"), bucket.url("raw"))


def test_the_command_takes_an_address(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    bucket.put("raw/a/1.mp4", b"12345")
    out = tmp_path / "m.parquet"
    words = ["build", "--dataset", "folder", "--root", bucket.url("raw"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["manifests", *words])
    assert main() == 0
    # Or a connection that breaks would end the process, and nobody would hear why.
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    assert f"ROOT={bucket.url('raw')}" in capsys.readouterr().out
    assert read_facts(out).root == bucket.url("raw")
