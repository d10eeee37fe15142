"""Fields joined to the clips of a set: what the loader and the evaluations see of them."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.add_field import FieldWish, add_field
from pipeline.config import ShardConfig
from pipeline.format import decode_jpeg, decode_npy, read_shard, split_jpegs
from pipeline.job import JobOptions
from stores import open_store
from tests.pipeline.fabricate import make_members, write_set
from tests.pipeline.heads import head_members
from tests.stores.servers import web
from train.cache import Cache
from train.cuts import Reads
from train.dist import Ranks
from train.errors import IncompleteError, ShardError, UsageError
from train.fields import join, names_of, with_members
from train.index import open_shards
from train.loader import ClipLoader
from train.mixture import Mixture, open_mixture, parse_shards
from train.plan import Plan
from train.read import ShardReader
from train.restart import origin_of

HEADS = ShardConfig("glcm", Fraction(10), 128, 22050)
SOUNDING = ShardConfig("avid", Fraction(10), 32, 22050, 24000, 1)
FRAMES, WINDOW = 8, 4


def add(out: Path, field: str, **wish: Any) -> None:
    """Add a field, as the command does."""
    done = add_field(
        out, FieldWish(field, **wish), JobOptions(executor="local", workers=1), lambda *_: None
    )
    assert done.exit_code == 0


def numbers(out: Path, field: str, values: dict[str, float]) -> None:
    """Add a number."""
    table = out.with_suffix(".parquet")
    pq.write_table(pa.table({"key": list(values), field: list(values.values())}), table)
    add(out, field, table=table)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of two clips each, one of which has no face; fields lip and sync."""
    out = tmp_path_factory.mktemp("sets") / "demo-glcm"
    clips = [head_members(HEADS, f"demo/head{n}", n, FRAMES, with_head=n != 3) for n in range(4)]
    write_set(out, HEADS, [clips[:2], clips[2:]])
    add(out, "lip")
    numbers(out, "sync", {"demo/head0": 0.5, "demo/head2": -2.0, "demo/head3": 7.0})
    return out


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with a stored waveform."""
    out = tmp_path_factory.mktemp("sets") / "demo-avid"
    clips = [make_members(SOUNDING, f"demo/{n}", instance=n, face=False) for n in range(2)]
    return write_set(out, SOUNDING, [clips])


def mixture(out: Path | str, *fields: str, cache: Cache | None = None) -> Mixture:
    sources = parse_shards(str(out), Path("data"), allow_http=True, cache=cache)
    return open_mixture(sources, reads=Reads(WINDOW, WINDOW, fields=fields))


def all_clips(chosen: Mixture, workers: int = 0) -> dict[str, Any]:
    """Every clip of an epoch by key: start and fields."""
    loader = ClipLoader(Plan(chosen, 0, 1, 1, 0), workers)
    found = {}
    for batch in loader.one_epoch():
        fields = {name: tensor[0].numpy() for name, tensor in batch.fields.items()}
        found[batch.keys[0]] = {"start": int(batch.start[0]), "mel": batch.mel, **fields}
    return found


def lips_of(out: Path) -> dict[str, list[Any]]:
    """The crops of each clip, read without the trainer."""
    found = {}
    for tar in (out / "fields/lip/shards").glob("*.tar"):
        for _, members in read_shard(tar):
            head = json.loads(members["lip.json"])
            jpegs = split_jpegs(members["lip.mjpeg"], head["jpeg_sizes"]["lip"])
            found[head["key"]] = [decode_jpeg(jpeg) for jpeg in jpegs if jpeg]
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_come_with_the_window_they_belong_to(heads: Path, workers: int) -> None:
    expected = lips_of(heads)
    clips = all_clips(mixture(heads, "lip"), workers)
    assert set(clips) == {"demo/head0", "demo/head1", "demo/head2"}
    for key, clip in clips.items():
        crops = expected[key][clip["start"] : clip["start"] + WINDOW]
        assert (clip["lip"] == np.stack(crops)).all()


def test_clips_without_are_left_out_and_counted(heads: Path) -> None:
    """One has no face, another no number."""
    chosen = mixture(heads, "lip", "sync")
    assert "2 clips without lip or sync are left out" in chosen.lines()[0]
    (facts,) = origin_of(Plan(chosen, 0, 1, 1, 0), Ranks())["sets"].values()
    assert (facts["clips"], facts["lacks_field"]) == (2, 2)
    clips = all_clips(chosen)
    assert {key: float(clip["sync"]) for key, clip in clips.items()} == {
        "demo/head0": 0.5, "demo/head2": -2.0
    }  # fmt: skip


def test_fields_are_part_of_what_a_run_is_of(heads: Path) -> None:
    prints = {mixture(heads, *fields).fingerprint() for fields in ((), ("sync",), ("lip",))}
    assert len(prints) == 3


def test_adding_a_field_makes_no_other_set_of_it(sounding: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(sounding, out)
    before = open_shards(open_store(str(out))).content_sha256, mixture(out).fingerprint()
    add(out, "low", mel_rate_hz=12000)
    assert (open_shards(open_store(str(out))).content_sha256, mixture(out).fingerprint()) == before


def test_a_mel_takes_the_place_of_the_samples_own(sounding: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(sounding, out)
    add(out, "low", mel_rate_hz=12000)
    stored = {}
    for _, members in read_shard(out / "fields/low/shards/train-000000.tar"):
        stored[json.loads(members["low.json"])["key"]] = decode_npy(members["low.npy"])
    for key, clip in all_clips(mixture(out, "low")).items():
        first = 3 * clip["start"]
        assert (clip["mel"][0].numpy() == stored[key][:, first : first + 3 * WINDOW]).all()


def test_features_of_frames_are_cut_like_the_frames(sounding: Path, tmp_path: Path) -> None:
    out, parts = tmp_path / "set", tmp_path / "parts"
    shutil.copytree(sounding, out)
    parts.mkdir()
    (parts / "embed.json").write_text(json.dumps({"per": "frame", "channels": {"fl": 2, "fa": 3}}))
    rows = [
        {"key": f"demo/{n}", "frame": t, "fl": [float(n), float(t)], "fa": None}
        for n in range(2)
        for t in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), parts / "train-000000.parquet")
    add(out, "embed", features=parts)
    for key, clip in all_clips(mixture(out, "embed")).items():
        times = np.arange(clip["start"], clip["start"] + WINDOW)
        assert (clip["embed.fl"][:, 1] == times).all()
        assert (clip["embed.fl"][:, 0] == int(key[-1])).all()
        assert np.isnan(clip["embed.fa"]).all()
        assert clip["embed.fa"].shape == (WINDOW, 3)


def test_crops_that_the_samples_store_are_joined_by_the_same_name(tmp_path: Path) -> None:
    config = replace(HEADS, short_side=32, faces="on", crop_size=16)
    clips = [make_members(config, f"demo/{n}", instance=n, face=n == 0) for n in range(2)]
    for members in clips:
        meta = json.loads(members["json"])
        meta["quality"]["face_rate"] = float(bool(meta["faces"]))
        members["json"] = json.dumps(meta).encode()
    out = write_set(tmp_path / "demo-lips", config, [clips])
    found = all_clips(mixture(out, "lip", "landmarks"))
    assert set(found) == {"demo/0"}
    assert found["demo/0"]["lip"].shape == (WINDOW, 16, 16, 3)
    assert found["demo/0"]["landmarks"].shape == (WINDOW, 68, 2)


def test_they_are_read_from_a_web_server_and_its_cache(heads: Path, tmp_path: Path) -> None:
    local = all_clips(mixture(heads, "lip"))
    with web(heads) as server:
        cache = Cache(tmp_path / "cache", 10**9)
        asked = []
        for _ in range(2):
            clips = all_clips(mixture(server.url, "lip", cache=cache))
            assert all((clips[key]["lip"] == local[key]["lip"]).all() for key in local)
            asked.append(server.count("fields/lip/shards/train-000000.tar"))
    assert asked[0] == asked[1] > 0  # the second epoch has it from the disk


# --- refusals ------------------------------------------------------------------------------------


def test_unknown_fields_are_refused_with_the_command(heads: Path) -> None:
    with pytest.raises(UsageError, match=r"fields: lip, sync. Add it with .*add-field .* gaze"):
        mixture(heads, "gaze")
    with pytest.raises(UsageError, match="expected names of fields"):
        names_of("lip,../../etc")


def with_a_newer_shard(heads: Path, out: Path) -> Path:
    """A copy of the set whose second shard was made again since."""
    shutil.copytree(heads, out)
    index = json.loads((out / "shardindex.json").read_bytes())
    index["shardlist"][1]["sha256"] = "0" * 64
    (out / "shardindex.json").write_text(json.dumps(index))
    return out


def test_a_field_of_an_older_version_is_refused_with_the_command(
    heads: Path, tmp_path: Path
) -> None:
    out = with_a_newer_shard(heads, tmp_path / "set")
    with pytest.raises(
        IncompleteError, match=r"1 of its 2 shards.*train-000001.*add-field .*set lip"
    ):
        mixture(out, "lip")


def test_numbers_of_older_clips_are_not_used_and_the_others_are(
    heads: Path, tmp_path: Path
) -> None:
    """As after a retry: the clips of new shards may be other ones under the same keys."""
    out = with_a_newer_shard(heads, tmp_path / "set")
    chosen = mixture(out, "sync")
    assert chosen.table()["key"].to_pylist() == ["demo/head0"]
    field = chosen.parts[0].shard_set.fields["sync"]
    assert field.numbers is not None and field.numbers[0] == 0.5
    assert np.isnan(field.numbers[1:]).all()
    assert field.why_not("demo/head2") == field.note == field.behind
    assert "1 of its 2 shards, which are new" in chosen.lines()[0]
    again = f"add-field {out} sync --table {heads.with_suffix('.parquet')}`"
    assert f"{again} once the table has the numbers of their clips" in chosen.lines()[0]
    index = json.loads((out / "shardindex.json").read_bytes())
    index["shardlist"][0]["sha256"] = "0" * 64
    (out / "shardindex.json").write_text(json.dumps(index))
    with pytest.raises(IncompleteError, match="2 of its 2 shards"):
        mixture(out, "sync")


def test_a_side_shard_of_other_bytes_is_refused_with_its_name(heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(heads, out)
    tars = [out / f"fields/lip/shards/train-00000{n}.tar" for n in range(2)]
    tars[0].write_bytes(tars[0].read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"fields/lip/shards/train-000000.tar.* the index says"):
        all_clips(mixture(out, "lip"))


def test_an_index_that_leads_elsewhere_is_refused(heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(heads, out)
    places = pq.read_table(out / "fields/lip/samples.parquet")
    at = places.schema.get_field_index("offset")
    far = pa.array([10**9] * len(places), pa.int64())
    pq.write_table(places.set_column(at, "offset", far), out / "fields/lip/samples.parquet")
    with pytest.raises(ShardError, match="points beyond its shards"):
        mixture(out, "lip")


def test_a_side_sample_of_another_clip_is_refused(heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(heads, out)
    places = pq.read_table(out / "fields/lip/samples.parquet").to_pylist()
    places[0]["key"], places[1]["key"] = places[1]["key"], places[0]["key"]
    pq.write_table(pa.Table.from_pylist(places), out / "fields/lip/samples.parquet")
    with pytest.raises(ShardError, match="is not part of the sample"):
        all_clips(mixture(out, "lip"))


def test_a_reader_says_why_a_clip_lacks_a_field(heads: Path) -> None:
    shard_set = join(open_shards(open_store(str(heads))), ["lip"])
    lip = shard_set.fields["lip"]
    there = lip.there.copy()
    there[0] = False
    lacking = replace(lip, there=there, reasons={"demo/head0": "timeout"})
    reader = ShardReader(replace(shard_set, fields={"lip": lacking}))
    with pytest.raises(ShardError, match=r"it has no lip \(timeout\)"):
        reader.read(0, ("json", "lip.mjpeg"))


# --- evaluations ---------------------------------------------------------------------------------


def test_members_that_samples_lack_are_found_beside_them(heads: Path) -> None:
    shard_set = open_shards(open_store(str(heads)))
    assert not with_members(shard_set, ["json", "frames.mjpeg"]).fields
    found = with_members(shard_set, ["json", "lip.mjpeg"])
    assert list(found.fields) == ["lip"]
    assert "stored frames of 128 pixels, enlarged" in found.fields["lip"].note
