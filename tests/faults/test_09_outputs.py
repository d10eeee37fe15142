"""Cases 9, 10, 16 and 24: other settings, more rows, damaged shards, too many bad files."""

import json
import shutil
import subprocess
import sys

import pyarrow.parquet as pq

from tests.faults.jobs import committed, run, times
from tests.faults.sets import hashes


def pipeline(*arguments, code):
    """Another command of the pipeline; what it said."""
    words = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == code, done.stdout
    return done.stdout


def set_times(out):
    """When the set's own files were written: not the locks, nor what the last scan found."""
    return {path: when for path, when in times(out).items() if
            path.suffix != ".lock" and out / "scan" not in path.parents}  # fmt: skip


def test_09_config_changed(clips, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    before = set_times(out)
    said = run(clips, out, "--fps", "25", code=2)
    assert "fps: 10/1 -> 25/1" in said
    assert "--overwrite" in said
    assert set_times(out) == before
    run(clips, out, "--fps", "25", "--overwrite")
    assert json.loads((out / "config.json").read_text())["config"]["fps"] == "25/1"
    assert pq.read_table(out / "samples.parquet")["fps"].unique().to_pylist() == [25.0]


def test_10_rows_appended(clips, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for path in sorted(clips.glob("label1/*")):
        shutil.copy(path, raw)
    run(raw, out)
    old, kept = hashes(out), times(out / "shards")
    shutil.copy(clips / "clip0.mp4", raw / "another.mp4")
    assert "1 row appended as new shards" in run(raw, out)
    assert old.items() < hashes(out).items()
    assert kept.items() < times(out / "shards").items()
    rows = pq.read_table(out / "samples.parquet", columns=["instance"])["instance"].to_pylist()
    assert sorted(rows) == list(range(len(list(raw.iterdir()))))


def test_16_sidecar_truncated_tar_grown_tar_deleted(clips, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    tars = sorted((out / "shards").glob("*.tar"))
    tars[0].unlink()
    with tars[1].open("ab") as file:
        file.write(b"grown")
    tars[2].with_suffix(".json").write_text('{"shard":')
    kept = {path: when for path, when in times(out / "shards").items() if path.stem not in
            {tar.stem for tar in tars[:3]}}  # fmt: skip
    assert kept
    assert f"resumed: {len(committed(whole)) - 3} shards kept, 3 made" in run(clips, out)
    assert hashes(out) == hashes(whole)
    assert kept.items() < times(out / "shards").items()


def test_16_one_byte_flipped(clips, whole, tmp_path):
    """Sizes do not tell; `verify` does, and says what to do, and that helps."""
    out = shutil.copytree(whole, tmp_path / "out")
    tar = sorted((out / "shards").glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    said = pipeline("verify", out, code=5)
    assert f"{tar.stem}: sha256 is" in said
    assert "remove the sidecars of the shards named" in said
    tar.with_suffix(".json").unlink()
    assert f"{len(committed(whole)) - 1} shards kept, 1 made" in run(clips, out)
    assert hashes(out) == hashes(whole)
    pipeline("verify", out, "--deep", code=0)


def test_24_too_many_bad_files(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for number in range(230):
        (raw / f"{number:03}.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 100)
    said = run(raw, out, code=3)
    assert "--max-error-rate allows 5 %" in said
    assert "open_error" in said
    assert "230 rows = 0 samples" in said
    assert not (out / "shardindex.json").exists()
    assert "open_error (" in pipeline("errors", out, code=0)


def test_24_nothing_but_bad_files_is_no_success(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "empty.mp4").touch()
    said = run(raw, tmp_path / "out", code=3)
    assert "empty_file" in said
    assert "Not a single clip" in said
