"""Exact epochs, equal batches, exact resumption; pictures and sound cut at the same time."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline.fabricate import Members
from tests.train.ramps import GRAY_STEP, SIDE, ramp, ramp_set, ramp_set_of
from train.batch import Batch
from train.errors import ShardError, UsageError
from train.loader import ClipLoader, default_workers, usable_cores
from train.mixture import Mixture, Source, open_mixture, parse_shards
from train.plan import Plan, Position, seed_of, shuffled
from train.read import ShardReader, StoredClip

FRAMES = 8


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ramp_set(tmp_path_factory.mktemp("sets") / "demo-glcm", shards=3, clips=4)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "other-glcm"
    return ramp_set(folder, shards=1, clips=6, frames=12, name="other")


def mixture_of(text: str, frames: int = FRAMES, **options: int) -> Mixture:
    return open_mixture(parse_shards(text, Path("data")), frames=frames, **options)  # type: ignore[arg-type]


def keys(batches: Iterator[Batch], count: int) -> list[tuple[str, ...]]:
    return [batch.keys for batch in islice(batches, count)]


# --- plan -------------------------------------------------------------------------------------


def test_the_shuffle_is_the_same_on_every_machine() -> None:
    assert seed_of(0, 1, "order") == 5940432003484249562
    assert shuffled(8, 7).tolist() == [1, 5, 7, 0, 4, 6, 3, 2]
    assert sorted(shuffled(1000, 3)) == list(range(1000))


@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (2, 2), (3, 2), (2, 3)])
def test_every_clip_comes_once_an_epoch_over_all_ranks(
    demo: Path, world: int, batch_size: int
) -> None:
    mixture = mixture_of(str(demo))
    plans = [Plan(mixture, 5, batch_size, world, rank) for rank in range(world)]
    drawn = [
        draw.row
        for plan in plans
        for batch in islice(plan.batches(Position(3)), plan.batches_per_epoch)
        for draw in batch
    ]
    assert {plan.batches_per_epoch for plan in plans} == {12 // (world * batch_size)}
    assert sorted(drawn) == list(range(12))


def test_what_fills_no_batch_is_left_out_of_the_epoch_on_all_ranks_alike(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    plans = [Plan(mixture, 0, 5, 2, rank) for rank in range(2)]
    epochs = [list(islice(plan.batches(Position()), 3)) for plan in plans]
    assert [len(batch) for batches in epochs for batch in batches] == [5] * 6
    assert [[batch[0].epoch for batch in batches] for batches in epochs] == [[0, 1, 2]] * 2
    first = [draw.row for batches in epochs for draw in batches[0]]
    assert len(set(first)) == 10


def test_two_ranks_see_what_one_rank_with_twice_the_batch_sees(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    one = list(islice(Plan(mixture, 1, 4).batches(Position()), 6))
    two = [list(islice(Plan(mixture, 1, 2, 2, rank).batches(Position()), 6)) for rank in (0, 1)]
    assert one == [left + right for left, right in zip(*two, strict=True)]


def test_epochs_and_seeds_differ_and_repeat(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    order = [Plan(mixture, seed, 4).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    again = [Plan(mixture, seed, 4).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert order == again
    assert len({str(rows) for rows in order}) == 4


def test_too_few_clips_for_a_batch_is_said(demo: Path) -> None:
    with pytest.raises(UsageError, match=r"12 clips an epoch do not fill one batch of 7 on 2"):
        Plan(mixture_of(str(demo)), 0, 7, 2)


# --- mixtures -----------------------------------------------------------------------------------


def test_subsets_and_weights_count_as_written(demo: Path, other: Path) -> None:
    mixture = mixture_of(f"{demo}@n=5,{other}@w=0.5")
    assert [part.clips_per_epoch for part in mixture.parts] == [5, 3]
    counts = [Counter(row[0] for row in Plan(mixture, 0, 2).order(e).tolist()) for e in range(3)]
    assert counts == [{0: 5, 1: 3}] * 3


def test_a_subset_is_frozen_and_a_weight_draws_anew(demo: Path, other: Path) -> None:
    plan = Plan(mixture_of(f"{demo}@n=5,{other}@w=0.5"), 0, 2)
    epochs = [{tuple(row[:2]) for row in plan.order(e).tolist()} for e in range(12)]
    assert len({frozenset(x for x in rows if x[0] == 0) for rows in epochs}) == 1
    assert len({x for rows in epochs for x in rows if x[0] == 1}) == 6


def test_a_weight_over_one_brings_clips_back_with_other_windows(other: Path) -> None:
    plan = Plan(mixture_of(f"{other}@w=2.5", frames=4), 0, 3)
    order = plan.order(0).tolist()
    assert sorted(Counter(row for _, row, _ in order).values()) == [2, 2, 2, 3, 3, 3]
    assert {visit for _, _, visit in order} == {0, 1, 2}
    starts: dict[str, set[int]] = {}
    for batch in ClipLoader(plan).one_epoch():
        for key, start in zip(batch.keys, batch.start.tolist(), strict=True):
            starts.setdefault(key, set()).add(start)
    assert max(map(len, starts.values())) > 1


def test_subsets_are_nested_and_have_their_own_seed(demo: Path) -> None:
    rows = [set(mixture_of(f"{demo}@n={n}").parts[0].rows.tolist()) for n in (3, 6, 12)]
    assert rows[0] < rows[1] < rows[2]
    assert rows[1] != set(mixture_of(f"{demo}@n=6", subset_seed=1).parts[0].rows.tolist())


def test_a_subset_larger_than_the_set_is_the_set(
    demo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert mixture_of(f"{demo}@n=99").clips_per_epoch == 12
    assert "has 12 clips, 99 were asked for" in caplog.text


def test_instance_ids_of_the_second_set_follow_the_first(demo: Path, other: Path) -> None:
    mixture = mixture_of(f"{demo},{other}")
    assert mixture.first_instances() == {"demo-glcm": 0, "other-glcm": 12}
    assert mixture.instances == 18
    table = mixture.table()
    assert table["instance"].to_pylist() == list(range(18))
    assert table["key"].to_pylist()[12] == "other/clip000"


def test_clips_shorter_than_the_window_are_left_out_and_counted(demo: Path, tmp_path: Path) -> None:
    clips = [ramp(f"demo/c{i}", i, frames) for i, frames in enumerate((10, 20, 30))]
    mixture = mixture_of(str(ramp_set_of(tmp_path / "demo-glcm", [clips])), frames=16)
    assert mixture.parts[0].too_short == 1
    assert "2 an epoch; 1 shorter than 16 frames left out" in mixture.lines()[0]
    with pytest.raises(UsageError, match="the longest has 30"):
        mixture_of(str(demo), frames=31)


@pytest.mark.parametrize("entry", ["a@n=0", "a@n=1.5", "a@w=0", "a@x=1", "@n=4", "a@n=1@w=1"])
def test_entries_that_cannot_be_read_are_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        parse_shards(entry, Path("data"))


@pytest.mark.parametrize("entry", ["pipe:cat x", "s3://bucket/set@n=4"])
def test_addresses_that_are_no_paths_are_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="no local path"):
        parse_shards(entry, Path("data"))


def test_default_sets_are_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"make shards DATASET=kinetics .*SHARDS="):
        parse_shards("", tmp_path)
    kinetics, avspeech = (tmp_path / "shards" / f"{n}-glcm" for n in ("kinetics400", "avspeech"))
    avspeech.mkdir(parents=True)
    (avspeech / "plan.json").touch()
    assert parse_shards("", tmp_path) == [Source(avspeech)]
    kinetics.mkdir()
    (kinetics / "plan.json").touch()
    assert parse_shards("", tmp_path) == [Source(kinetics, 120_000), Source(avspeech, 120_000)]


# --- reading ------------------------------------------------------------------------------------


def test_pictures_and_mel_are_cut_at_the_same_time(demo: Path) -> None:
    starts = set()
    loader = ClipLoader(Plan(mixture_of(str(demo)), 0, 4))
    for batch in islice(loader.batches(), 6):
        assert batch.video.shape == (4, FRAMES, SIDE, SIDE, 3)
        for video, mel, start in zip(batch.video, batch.mel, batch.start.tolist(), strict=True):
            starts.add(start)
            gray = video.float().mean((1, 2, 3))
            assert torch.allclose(gray, GRAY_STEP * (start + torch.arange(8.0)), atol=1)
            assert torch.equal(mel[0].float(), 3 * start + torch.arange(24.0))
    assert min(starts) < 4
    assert max(starts) > 18
    assert max(starts) <= 22


def test_middle_windows_do_not_move(demo: Path) -> None:
    loader = ClipLoader(Plan(mixture_of(str(demo)), 0, 4), random_windows=False)
    assert {start for batch in loader.one_epoch() for start in batch.start.tolist()} == {11}


def test_windows_differ_by_epoch_and_repeat(demo: Path) -> None:
    loader = ClipLoader(Plan(mixture_of(str(demo)), 0, 12))

    def starts() -> list[dict[str, int]]:
        batches = islice(loader.batches(), 2)
        return [dict(zip(b.keys, b.start.tolist(), strict=True)) for b in batches]

    first, second = starts()
    assert [first, second] == starts()
    assert first.keys() == second.keys()
    assert first != second


def test_the_order_does_not_depend_on_the_number_of_workers(demo: Path) -> None:
    plan = Plan(mixture_of(str(demo)), 0, 3)
    alone = list(islice(ClipLoader(plan).batches(), 6))
    shared = list(islice(ClipLoader(plan, workers=2).batches(), 6))
    for one, two in zip(alone, shared, strict=True):
        assert one.keys == two.keys
        assert torch.equal(one.video, two.video)
        assert torch.equal(one.mel, two.mel)


def test_going_on_gives_the_same_batches_without_reading_those_before(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(mixture_of(str(demo)), 0, 3)
    undisturbed = keys(ClipLoader(plan).batches(), 11)
    read: list[int] = []
    original = ShardReader.read

    def counted(self: ShardReader, row: int, wanted: tuple[str, ...]) -> StoredClip:
        read.append(row)
        return original(self, row, wanted)

    monkeypatch.setattr(ShardReader, "read", counted)
    assert keys(ClipLoader(plan).batches(plan.position(7)), 4) == undisturbed[7:]
    assert len(read) == 12
    assert plan.position(7) == Position(1, 3)


def test_labels_and_instances_belong_to_their_clips(demo: Path, other: Path) -> None:
    mixture = mixture_of(f"{demo},{other}")
    numbers = dict(zip(*mixture.table().select(["key", "instance"]), strict=True))
    known = {key.as_py(): number.as_py() for key, number in numbers.items()}
    for batch in ClipLoader(Plan(mixture, 0, 6)).one_epoch():
        assert [known[key] for key in batch.keys] == batch.instance.tolist()
        assert all(isinstance(label, tuple) for label in batch.labels)


def test_workers_follow_the_cores() -> None:
    assert usable_cores() >= 1
    assert default_workers(10_000) == 1


# --- damage -------------------------------------------------------------------------------------


def damaged(tmp_path: Path, where: str, change: "slice | bytes", *, clips: int = 2) -> Path:
    out = ramp_set(tmp_path / "demo-glcm", shards=1, clips=clips)
    path = out / "shards/train-000000.tar"
    data = bytearray(path.read_bytes())
    if isinstance(change, slice):
        data = data[change]
    else:
        place = data.index(where.encode())
        data[place : place + len(change)] = change
    path.write_bytes(bytes(data))
    return out


def load_all(out: Path, workers: int = 0, frames: int = FRAMES) -> None:
    plan = Plan(mixture_of(str(out), frames=frames), 0, 2)
    list(ClipLoader(plan, workers=workers).one_epoch())


def test_a_short_tar_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"the tar has \d+ bytes, the index says \d+.*verify"):
        load_all(damaged(tmp_path, "", slice(0, -5000)))


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"clip 'demo/clip00[01]'"):
        load_all(damaged(tmp_path, "demo--clip001.frames", b"\xff\xfe\xfd"))


def test_a_lost_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no tar header"):
        load_all(damaged(tmp_path, "ustar", b"xxxxx"))


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1, clips=2)
    path = out / "shards/train-000000.tar"
    data = path.read_bytes()
    start = data.index(b"\xff\xd8\xff")
    path.write_bytes(data[:start] + bytes(4000) + data[start + 4000 :])
    with pytest.raises(ShardError, match=r"train-000000.tar, clip 'demo/clip000'"):
        load_all(out, frames=30)


def test_a_sample_of_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="its JSON has key 'demo/clip991', the index"):
        load_all(damaged(tmp_path, "demo/clip001", b"demo/clip991"))


def with_member(members: Members, name: str, data: bytes) -> Members:
    return {"json": members["json"], name: data, **members}


@pytest.mark.parametrize("name", ["evil.pkl", "frames.pyd", "jpg"])
def test_members_that_are_not_of_the_format_are_refused(tmp_path: Path, name: str) -> None:
    clips = [with_member(ramp(f"demo/c{i}", i, 10), name, b"cos\nsystem\n") for i in range(2)]
    out = ramp_set_of(tmp_path / "demo-glcm", [clips])
    with pytest.raises(ShardError, match="is not part of the sample"):
        load_all(out)


def test_a_mel_of_another_length_is_refused(tmp_path: Path) -> None:
    clips = [ramp(f"demo/c{i}", i, 10) for i in range(2)]
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((80, 29), np.float16))
    clips[0]["mel.npy"] = buffer.getvalue()
    with pytest.raises(ShardError, match=r"mel is float16 \(80, 29\), expected float16 \(80, 30\)"):
        load_all(ramp_set_of(tmp_path / "demo-glcm", [clips]))


def test_an_error_in_a_worker_is_the_same_sentence(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"^\S*train-000000.tar, clip") as caught:
        load_all(damaged(tmp_path, "demo--clip001.frames", b"\xff\xfe\xfd"), workers=1)
    assert "Traceback" not in str(caught.value)


def test_a_set_is_read_where_the_table_says(tmp_path: Path) -> None:
    """Junk between samples is never looked at: offsets and sizes are the index's."""
    out = ramp_set(tmp_path / "demo-glcm", shards=1, clips=2)
    with tarfile.open(out / "shards/train-000000.tar", "a") as tar:
        entry = tarfile.TarInfo("demo--clip000.evil.pkl")
        tar.addfile(entry, io.BytesIO(b""))
    load_all(out)
