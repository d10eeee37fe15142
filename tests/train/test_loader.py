"""Pictures and sound cut at the same time, exact resumption, damage refused."""

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.ramps import GRAY_STEP, SIDE, mel_of, mixture_of, ramp, ramp_set, ramp_set_of
from train.batch import Batch
from train.errors import ShardError
from train.loader import MAX_WORKERS, ClipLoader, default_workers
from train.plan import Plan, Position
from train.read import ShardReader, StoredClip

FRAMES = 8


def keys(batches: Iterator[Batch], count: int) -> list[tuple[str, ...]]:
    return [batch.keys for batch in islice(batches, count)]


# --- reading ------------------------------------------------------------------------------------


def test_pictures_and_mel_are_cut_at_the_same_time(demo: Path) -> None:
    starts = set()
    loader = ClipLoader(Plan(mixture_of(str(demo)), 0, 4))
    for batch in islice(loader.batches(), 6):
        assert batch.video.shape == (4, FRAMES, SIDE, SIDE, 3)
        for video, mel, start in zip(batch.video, mel_of(batch), batch.start.tolist(), strict=True):
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
        assert torch.equal(mel_of(one), mel_of(two))


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


@pytest.mark.parametrize(
    ("cores", "processes", "workers"),
    [(16, 1, 15), (16, 8, 1), (64, 2, MAX_WORKERS), (1, 1, 1), (4, 0, 3), (2, 10_000, 1)],
)
def test_ranks_of_a_host_share_its_cores(
    cores: int, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.loader.usable_cores", lambda: cores)
    assert default_workers(processes) == workers


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
