"""`train embed` against features computed by hand, window by window."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.add_field import FieldWish, add_field
from pipeline.config import ShardConfig
from pipeline.job import JobOptions
from stores import open_store
from tests.pipeline.fabricate import fabricate, write_set
from tests.pipeline.heads import head_members
from tests.train.apply.conftest import VideoMaker
from tests.train.evaluation.sets import CONFIG, Clip, labelled_set
from train.apply.clips import Sums, covering
from train.apply.embed import EmbedOptions, embed
from train.augment import centre_pictures
from train.errors import UsageError
from train.evaluation.encoders import load_checkpoint
from train.evaluation.labelled import Example
from train.index import open_shards
from train.read import ShardReader

REPOSITORY = Path(__file__).parents[3]
HEADS = ShardConfig("glcm", Fraction(10), 128, 22050)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of three clips of 2 s: 20 frames, windows of 8."""
    config = ShardConfig("glcm", Fraction(10), 32, 22050)
    return fabricate(tmp_path / "set", config, shards=2, samples=3, errors=0)


def options(shards: Path, run: Path, out: Path, **changes: Any) -> EmbedOptions:
    settings = {"workers": 0, "device": "cpu", **changes}
    return EmbedOptions(inputs=(str(shards),), checkpoint=run, out=out, **settings)


def window_features(run: Path, shards: Path, row: int, starts: list[int]) -> dict[str, Any]:
    """By name (windows, T', C), (windows, T, C) and (windows, 3 T, C), without train.apply."""
    encoders = load_checkpoint(run)
    reader = ShardReader(open_shards(open_store(str(shards))))
    clip = reader.read(row)
    found: dict[str, list[np.ndarray]] = {"fg": [], "fl": [], "fa": []}
    for start in starts:
        video = np.empty((1, 8, 32, 32, 3), np.uint8)
        clip.pictures(range(start, start + 8), 0.5, 32, video[0])
        mel = torch.from_numpy(clip.mel(start, 8)[None].astype(np.float32))
        with torch.no_grad():
            features = encoders.features(centre_pictures(torch.from_numpy(video), 28), mel)
        found["fg"].append(features["fg"].mean((3, 4))[0].T.numpy())
        found["fl"].append(features["fl"].mean((3, 4))[0].T.numpy())
        found["fa"].append(features["fa"][0].T.numpy())
    return {name: np.stack(values) for name, values in found.items()}


def test_a_clip_is_the_mean_over_windows_that_cover_it(
    shards: Path, run: Path, tmp_path: Path
) -> None:
    embed(options(shards, run, tmp_path / "out.parquet"))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    keys = open_shards(open_store(str(shards))).keys.to_pylist()
    assert [row["key"] for row in rows] == keys
    for number in (0, 4):
        expected = window_features(run, shards, number, [0, 6, 12])
        for name, values in expected.items():
            assert np.allclose(rows[number][name], values.mean((0, 1)), atol=1e-5), name
        assert rows[number]["windows"] == 3


def test_a_frame_is_the_mean_over_the_windows_that_show_it(
    shards: Path, run: Path, tmp_path: Path
) -> None:
    """Starts 0, 4, 8, 12; frame 9 is place 9, 5 and 1 of the windows at 0 (not), 4 and 8."""
    embed(options(shards, run, tmp_path / "out.npz", per="frame"))
    found = np.load(tmp_path / "out.npz")
    assert len(found["frame"]) == 6 * 20
    assert np.allclose(found["time_seconds"][:3], [0.55, 0.65, 0.75])  # t0 is 0.5, no stream starts
    windows = window_features(run, shards, 1, [0, 4, 8, 12])
    row = 20 + 9
    assert found["key"][row] == "demo/clip001"
    slow = {start: windows["fg"][start // 4][(9 - start) // 4] for start in (4, 8)}
    assert np.allclose(found["fg"][row], (slow[4] + slow[8]) / 2, atol=1e-5)
    fast = [windows["fl"][1][5], windows["fl"][2][1]]
    assert np.allclose(found["fl"][row], np.mean(fast, 0), atol=1e-5)
    sound = [windows["fa"][1][15:18].mean(0), windows["fa"][2][3:6].mean(0)]
    assert np.allclose(found["fa"][row], np.mean(sound, 0), atol=1e-5)


def test_what_is_interrupted_goes_on_and_ends_the_same(
    shards: Path, run: Path, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    embed(options(shards, run, whole))
    names = sorted(path.name for path in whole.iterdir())
    embed(options(shards, run, resumed))
    (resumed / names[-1]).unlink()
    kept = (resumed / names[1]).stat().st_mtime_ns
    embed(options(shards, run, resumed))
    assert sorted(path.name for path in resumed.iterdir()) == names
    assert (resumed / names[1]).stat().st_mtime_ns == kept
    for name in names:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_features_of_another_kind_are_not_mixed_in(shards: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(options(shards, run, out))
    with pytest.raises(UsageError, match="with another channels, settings; give another --out"):
        embed(options(shards, run, out, features="g"))
    embed(options(shards, run, out, features="g", overwrite=True))
    columns = pq.read_table(sorted(out.glob("*.parquet"))[0]).column_names
    assert "fg" in columns
    assert "fl" not in columns
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds other files"):
            embed(options(shards, run, tmp_path / "mine", overwrite=overwrite))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_silence_in_place_of_sound_gives_no_feature(run: Path, tmp_path: Path) -> None:
    def mute(clip: Clip, members: dict[str, bytes]) -> dict[str, bytes]:
        meta = json.loads(members["json"])
        meta["padded"] = [[0.0, 1.0]] if clip.label else [[0.0, 0.5]]
        return {**members, "json": json.dumps(meta).encode()}

    clips = [Clip("demo/a", 0), Clip("demo/b", 1)]
    shards = labelled_set(tmp_path / "set", clips, CONFIG, edit=mute)
    outcome = embed(options(shards, run, tmp_path / "out.parquet"))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["has_sound"] for row in rows] == [True, False]
    assert [row["fa"] is None for row in rows] == [False, True]
    assert all(row["fg"] is not None for row in rows)
    assert "without sound, whose features are null: 1 (demo/b.mp4)" in outcome.lines
    embed(options(shards, run, tmp_path / "att.parquet", pooling="full_attention"))
    rows = pq.read_table(tmp_path / "att.parquet").to_pylist()
    assert [row["fg"] is None for row in rows] == [False, True]  # no map without sound


def test_clips_without_a_field_that_is_read_are_told_with_their_reasons(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    write_set(out, HEADS, [[head_members(HEADS, f"demo/head{n}", n, 12) for n in range(2)]])
    add_field(out, FieldWish("lip"), JobOptions(executor="local", workers=1), lambda *_: None)
    features = tmp_path / "lips.npz"
    wish = options(out, run, features, modality="V", pictures="lip")
    embed(wish)
    assert np.load(features)["key"].tolist() == ["demo/head0", "demo/head1"]
    lose(out / "fields/lip", "demo/head1")
    outcome = embed(wish)
    assert np.load(features)["key"].tolist() == ["demo/head0"]
    told = "without the field lip, and so without features: 1 (decode_error: 1)"
    assert told in outcome.lines
    lose(out / "fields/lip", "demo/head0")
    with pytest.raises(
        UsageError, match=r"no clip of .*; without .* features: 2 .*decode_error: 2"
    ):
        embed(wish)


def lose(field: Path, key: str) -> None:
    """One of its samples becomes an error row, as of stored frames that could not be decoded."""
    samples = pq.read_table(field / "samples.parquet")
    pq.write_table(samples.filter(pc.not_equal(samples["key"], key)), field / "samples.parquet")
    errors = pq.read_table(field / "errors.parquet")
    row = {"key": key, "reason": "decode_error"}
    more = pa.Table.from_pylist([{**dict.fromkeys(errors.column_names), **row}], errors.schema)
    pq.write_table(pa.concat_tables([errors, more]), field / "errors.parquet")


def test_windows_reach_from_the_first_frame_to_the_last() -> None:
    examples = [Example("a", 0, None, "a", 0, frames) for frames in (3, 8, 9, 100)]
    for overlap in (0.0, 0.3, 0.75):
        looks = covering(examples, 8, overlap)
        for number, example in enumerate(examples):
            starts = [look.start for look in looks if look.example == number]
            assert starts[0] == 0
            assert starts[-1] == max(example.frames - 8, 0)
            assert all(b - a <= 8 * (1 - overlap) for a, b in pairwise(starts))
    assert len(covering(examples, 8, 0.0, crops=3)) == 3 * len(covering(examples, 8, 0.0))


def test_sums_average_and_know_what_was_not_seen() -> None:
    sums = Sums(3, (2,))
    sums.add(np.array([0, 1, 0]), np.array([[1, 2], [3, 4], [5, 6]]))
    assert sums.mean()[:2].tolist() == [[3, 4], [3, 4]]
    assert np.isnan(sums.mean()[2]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overlap": 1.0}, "--overlap is 1.0; expected"),
        ({"inputs": ()}, "name videos, or a shard set"),
        ({"inputs": ("no.mp4",)}, "there is no file no.mp4"),
        ({"inputs": (str(REPOSITORY / "train"),)}, "is a folder without shardindex.json"),
        ({"inputs": (str(REPOSITORY / "README.md"),), "out": Path("x.csv")}, "expected a file"),
        ({"crops": 2}, "crops is 2"),
    ],
)
def test_what_is_wrong_is_said(run: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        embed(EmbedOptions(**{"inputs": ("x.mp4",), "checkpoint": run, "device": "cpu", **changes}))


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(shards: Path, run: Path, tmp_path: Path) -> None:
    arguments = ["-m", "train", "embed", str(shards), "--checkpoint", str(run), "--workers", "0",
                 "--threads", "1"]  # fmt: skip
    environment = {**os.environ, "GLAV_PLUGINS": "tests.train.apply.nano"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for out, launcher in (("one", []), ("two", torchrun)):
        subprocess.run(
            [sys.executable, *launcher, *arguments, "--out", str(tmp_path / out)], check=True,
            cwd=REPOSITORY, env=environment,
        )  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
def test_videos_of_all_kinds(run: Path, video: VideoMaker, tmp_path: Path) -> None:
    """In the user's order and under the user's names; what fails is told."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    paths = [video("voice.wav", pictures=False), video("both.mp4"), broken,
             video("mute.mp4", sound=False)]  # fmt: skip
    out = tmp_path / "out.parquet"
    given = EmbedOptions(inputs=tuple(map(str, paths)), checkpoint=run, out=out, workers=0,
                         device="cpu")  # fmt: skip
    outcome = embed(given)
    assert outcome.exit_code == 3
    assert any(f"no features of {broken}: " in line for line in outcome.lines)
    rows = pq.read_table(out).to_pylist()
    assert [row["uri"] for row in rows] == [str(paths[place]) for place in (0, 1, 3)]
    known = [[row[name] is not None for name in ("fg", "fl", "fa")] for row in rows]
    assert known == [[False, False, True], [True, True, True], [True, True, False]]
    assert [row["seconds"] for row in rows] == [3.0, 3.0, 3.0]


@pytest.mark.slow
def test_a_video_gives_what_its_shard_gives(run: Path, video: VideoMaker, tmp_path: Path) -> None:
    """The other way round: shards by `make shards DATASET=folder`, features of the set."""
    folder = tmp_path / "raw"
    path = video("raw/clip.mp4", seconds=2.0)
    command = ["-m", "pipeline", "shards", "--dataset", "folder", "--root", str(folder), "--out",
               str(tmp_path / "set"), "--executor", "local"]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True, cwd=REPOSITORY, capture_output=True)
    embed(options(tmp_path / "set", run, tmp_path / "set.parquet"))
    embed(options(path, run, tmp_path / "video.parquet"))
    ours, theirs = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist()[0]
                    for name in ("video", "set"))  # fmt: skip
    for name in ("fg", "fl", "fa"):
        assert np.allclose(ours[name], theirs[name], atol=1e-5)


def test_features_become_a_field_of_the_set(shards: Path, run: Path, tmp_path: Path) -> None:
    """What the side shards hold is what the Parquet files say; a second call makes nothing."""
    from pipeline.format import decode_npy, read_shard

    out = tmp_path / "parts"
    outcome = embed(options(shards, run, out, into_set="embed"))
    assert any("6 samples = 6 with embed + 0 errors" in line for line in outcome.lines)
    tables = [pq.read_table(path) for path in sorted(out.glob("*.parquet"))]
    rows = {row["key"]: row for table in tables for row in table.to_pylist()}
    found = {}
    for tar in sorted((shards / "fields/embed/shards").glob("*.tar")):
        for _, members in read_shard(tar):
            found[json.loads(members["embed.json"])["key"]] = members
    assert found.keys() == rows.keys()
    for key, members in found.items():
        for name in ("fg", "fl", "fa"):
            vector = decode_npy(members[f"embed.{name}.npy"])
            assert vector.tolist() == np.array(rows[key][name], np.float32).tolist()
    again = embed(options(shards, run, out, into_set="embed"))
    assert any("2 shards kept, 0 made" in line for line in again.lines)
