"""A bounded folder of whole shards: shared, verified, and careful about what it deletes."""

import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stores.base import ShardFile
from stores.errors import StoreError
from stores.local import LocalFile
from stores.web import HttpFile
from tests.stores.servers import Web, web
from train.cache import Cache, Shard
from train.errors import ShardError, UsageError

SIZE = 100_000
MB = 1_000_000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Web]:
    """Five shards a.tar .. e.tar of 0.1 MB."""
    folder = tmp_path / "far"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.tar").write_bytes(os.urandom(SIZE))
    with web(folder) as facts:
        yield facts


def shard(served: Web, name: str, sha256: str | None = None) -> Shard:
    data = (served.folder / f"{name}.tar").read_bytes()
    digest = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    return Shard(f"{served.url}/{name}.tar", len(data), digest)


def opened(cache: Cache, served: Web, name: str, **options: Any) -> ShardFile:
    wanted = shard(served, name, **options)
    return cache.open(wanted, lambda: HttpFile(wanted.url))


def content(file: ShardFile) -> bytes:
    return b"".join(file.pieces())


def use(cache: Cache, served: Web, name: str) -> bool:
    """Read it whole and close it; whether it came from the disk."""
    file = opened(cache, served, name)
    assert content(file) == (served.folder / f"{name}.tar").read_bytes()
    file.close()
    return isinstance(file, LocalFile)


def kept(cache: Cache, served: Web) -> str:
    """Letters of the shards that are there."""
    return "".join(n for n in "abcde" if (cache.folder / f"{shard(served, n).id}.tar").exists())


# --- fetching -----------------------------------------------------------------------------------


def test_a_shard_is_fetched_once(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    assert use(cache, served, "a")
    asked = len(served.asked)
    assert use(cache, served, "a")
    assert use(Cache(tmp_path / "cache", MB), served, "a")  # another process, another run
    assert len(served.asked) == asked
    names = sorted(path.suffix for path in cache.folder.iterdir())
    assert names == ["", ".json", ".tar"]


def test_without_a_sha256_bytes_are_compared(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    file = opened(cache, served, "a", sha256="")
    assert isinstance(file, LocalFile)
    assert content(file) == (served.folder / "a.tar").read_bytes()


def test_other_bytes_are_refused_and_not_kept(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    wrong = "ab" * 32
    with pytest.raises(ShardError, match=rf"a.tar, fetched 2 times, .*expected .*{wrong}"):
        opened(cache, served, "a", sha256=wrong)
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]


def test_an_answer_that_breaks_off_is_fetched_again(served: Web, tmp_path: Path) -> None:
    served.truncated["a.tar"] = 3
    served.statuses["a.tar"] = [500]
    assert use(Cache(tmp_path / "cache", MB), served, "a")


def test_an_answer_that_breaks_off_without_ranges_too(served: Web, tmp_path: Path) -> None:
    served.ranges = False
    served.truncated["a.tar"] = 2
    assert use(Cache(tmp_path / "cache", MB), served, "a")


def test_a_damaged_copy_is_fetched_anew(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    use(cache, served, "a")
    os.truncate(cache.folder / f"{shard(served, 'a').id}.tar", SIZE - 1)
    assert use(cache, served, "a")


def _read_in_a_process(folder: Path, wanted: Shard, start: Any, results: Any) -> None:
    cache = Cache(folder, MB)
    start.wait()
    file = cache.open(wanted, lambda: HttpFile(wanted.url))
    results.put(hashlib.sha256(content(file)).hexdigest())


def test_processes_share_it(served: Web, tmp_path: Path) -> None:
    """Without ranges nobody can read from afar meanwhile: there is one fetch, and it is awaited."""
    served.ranges = False
    wanted = shard(served, "a")
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    arguments = (tmp_path / "cache", wanted, start, results)
    readers = [context.Process(target=_read_in_a_process, args=arguments) for _ in range(4)]
    for reader in readers:
        reader.start()
    start.set()
    assert {results.get(timeout=280) for _ in readers} == {wanted.sha256}
    for reader in readers:
        reader.join()
    assert served.sent_whole()["a.tar"] == 1


@pytest.mark.parametrize("sha256", [None, "ab" * 32], ids=["fetched", "refused"])
def test_names_change_only_under_the_lock(
    served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None
) -> None:
    """Or another process, which looks twice under the lock, finds neither the part nor the tar."""
    unlocked: list[str] = []
    replace, unlink = os.replace, Path.unlink

    def note(path: Path) -> None:
        with (path.parent / "lock").open("a") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.append(path.suffix)

    def noted_replace(old: Path, new: Path) -> None:
        note(old)
        replace(old, new)

    def noted_unlink(path: Path, missing_ok: bool = False) -> None:
        note(path)
        unlink(path, missing_ok)

    cache = Cache(tmp_path / "cache", MB)
    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(Path, "unlink", noted_unlink)
    with suppress(ShardError):
        opened(cache, served, "a", sha256=sha256)
    assert unlocked == []


def test_while_another_process_fetches_a_shard_is_read_from_afar(
    served: Web, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache", MB)
    use(cache, served, "a")
    paths = [cache.folder / f"{shard(served, 'a').id}.{kind}" for kind in ("tar", "part")]
    paths[0].rename(paths[1])
    with paths[1].open() as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert not use(cache, served, "a")
    assert use(cache, served, "a")  # what a killed process left is fetched anew


# --- room ---------------------------------------------------------------------------------------


def test_what_was_unused_for_longest_makes_room(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    for name in "abc":
        assert use(cache, served, name)
    use(cache, served, "a")
    assert use(cache, served, "d")
    assert kept(cache, served) == "acd"
    assert use(cache, served, "e")
    assert kept(cache, served) == "ade"


def test_uses_in_quick_succession_keep_their_order(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 5 * SIZE)
    for name in "abcde":
        use(cache, served, name)
    order = "edcbaadcebbecda"
    for name in order:  # all within one tick of the kernel's clock
        assert cache._touch(shard(served, name))
    receipts = {n: cache.folder / f"{shard(served, n).id}.json" for n in "abcde"}
    found = sorted(receipts, key=lambda name: receipts[name].stat().st_mtime_ns)
    assert "".join(found) == "becda"
    assert len({path.stat().st_mtime_ns for path in receipts.values()}) == len(receipts)


def test_a_smaller_bound_is_reached_with_the_next_shard(served: Web, tmp_path: Path) -> None:
    for name in "abcd":
        use(Cache(tmp_path / "cache", MB), served, name)
    smaller = Cache(tmp_path / "cache", 2 * SIZE)
    assert use(smaller, served, "e")
    assert kept(smaller, served) == "de"


def test_shards_of_this_run_do_not_push_each_other_out(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2 * SIZE)
    use(cache, served, "e")
    cache.wanted = {shard(served, name).id for name in "abc"}
    assert [use(cache, served, name) for name in "abc"] == [True, True, False]
    assert kept(cache, served) == "ab"


def test_without_ranges_they_must(served: Web, tmp_path: Path) -> None:
    served.ranges = False
    cache = Cache(tmp_path / "cache", 2 * SIZE)
    cache.wanted = {shard(served, name).id for name in "abc"}
    assert [use(cache, served, name) for name in "abc"] == [True] * 3
    assert kept(cache, served) == "bc"


def test_what_is_open_stays(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2 * SIZE)
    held = opened(cache, served, "a")
    use(cache, served, "b")
    assert use(cache, served, "c")
    assert kept(cache, served) == "ac"
    both = opened(cache, served, "c")
    assert not use(cache, served, "d")  # no room: both are open
    assert content(held) == (served.folder / "a.tar").read_bytes()
    held.close()
    both.close()
    assert use(cache, served, "d")


def test_a_handle_lives_on_when_somebody_deletes_the_file(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    held = opened(cache, served, "a")
    (cache.folder / f"{shard(served, 'a').id}.tar").unlink()
    assert content(held) == (served.folder / "a.tar").read_bytes()
    assert use(cache, served, "a")


def test_foreign_files_are_never_deleted_nor_overwritten(served: Web, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    foreign = {
        "holiday.tar": b"mine" * SIZE,
        f"{'f' * 64}.tar": b"also mine" * SIZE,
        f"{shard(served, 'c').id}.tar": b"same name",
        "notes.json": b"{}",
        "half.part": b"x",
    }
    for name, data in foreign.items():
        (folder / name).write_bytes(data)
    cache = Cache(folder, 2 * SIZE)
    assert [use(cache, served, name) for name in "abcde"] == [True, True, False, True, True]
    assert kept(cache, served) == "cde"
    assert {name: (folder / name).read_bytes() for name in foreign} == foreign


RECEIPT = {"fetched_by": "glav", "url": "http://x/a.tar", "bytes": 9, "sha256": "f" * 64}


@pytest.mark.parametrize(
    "receipt",
    [
        {},
        [],
        "notes",
        {**RECEIPT, "fetched_by": "another program"},
        {**RECEIPT, "sha256": "e" * 64},
        {**RECEIPT, "bytes": "many"},
        {name: value for name, value in RECEIPT.items() if name != "url"},
    ],
)
@pytest.mark.parametrize("kind", ["tar", "part"])
def test_a_json_beside_it_does_not_make_a_file_ours(
    served: Web, tmp_path: Path, receipt: Any, kind: str
) -> None:
    """Only a receipt that this cache wrote about this very file does."""
    folder = tmp_path / "cache"
    folder.mkdir()
    name = "f" * 64
    foreign = {f"{name}.{kind}": b"mine" * SIZE, f"{name}.json": json.dumps(receipt).encode()}
    for file, data in foreign.items():
        (folder / file).write_bytes(data)
    cache = Cache(folder, SIZE)
    assert [use(cache, served, name) for name in "ab"] == [True, True]  # foreign bytes do not count
    assert {file: (folder / file).read_bytes() for file in foreign} == foreign


def test_a_json_of_the_name_of_a_receipt_is_not_overwritten(served: Web, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    wanted = shard(served, "a")
    paths = {kind: folder / f"{wanted.id}.{kind}" for kind in ("json", "tar")}
    paths["json"].write_text('{"my": "notes"}')
    cache = Cache(folder, MB)
    assert not use(cache, served, "a")
    paths["tar"].write_bytes(bytes(SIZE))  # as long as the shard, but something else
    assert not use(cache, served, "a")
    assert paths["json"].read_text() == '{"my": "notes"}'
    assert paths["tar"].read_bytes() == bytes(SIZE)


def test_our_own_receipt_makes_it_ours(served: Web, tmp_path: Path) -> None:
    """The bytes that are to be deleted in the tests above are deleted with a true receipt."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / f"{'f' * 64}.tar").write_bytes(b"x" * SIZE)
    (folder / f"{'f' * 64}.json").write_text(json.dumps({**RECEIPT, "bytes": SIZE}))
    assert use(Cache(folder, SIZE), served, "a")
    assert not (folder / f"{'f' * 64}.tar").exists()


def test_a_shard_larger_than_the_cache_is_read_from_afar(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", SIZE - 1)
    assert not use(cache, served, "a")
    served.ranges = False
    with pytest.raises(StoreError, match=r"no room \(--cache-gb 0.0001\), and its server"):
        opened(cache, served, "a")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_said_and_shards_are_read_from_afar(
    served: Web,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    cache = Cache(tmp_path / "cache", MB)
    with caplog.at_level("INFO"):
        assert [use(cache, served, name) for name in "ab"] == [False, False]
    assert caplog.text.count("is full (No space left on device)") == 1
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--cache-dir .*name a folder"):
        Cache(tmp_path / "file/cache", MB)


def test_a_folder_that_vanishes_does_not_end_the_run(served: Web, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MB)
    (cache.folder / "lock").unlink()
    cache.folder.rmdir()
    assert not use(cache, served, "a")
