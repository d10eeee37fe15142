"""The same batches wherever the shards lie; a guard that keeps ranks together."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from stores.errors import StoreError
from stores.web import HttpStore
from tests.pipeline.fabricate import edit_json
from tests.stores.servers import Web, s3, web
from tests.train.ramps import mel_of, mixture_of, ramp_set
from tests.train.runs import metrics, toy
from train.batch import Batch
from train.cache import Cache
from train.dist import Ranks
from train.errors import ShardError, UsageError
from train.guard import BadClip, Guard
from train.index import open_shards
from train.loader import ClipLoader
from train.mixture import Mixture
from train.plan import Plan
from train.pretrain import COMPLETE, pretrain

REPOSITORY = Path(__file__).parents[2]
MB = 1_000_000


@pytest.fixture
def served(demo: Path) -> Iterator[Web]:
    """The set of `demo` behind a web server."""
    with web(demo) as facts:
        yield facts


def batches(mixture: Mixture, count: int = 6, workers: int = 0, skip: int = 0) -> list[Batch]:
    plan = Plan(mixture, 0, 3)
    loader = ClipLoader(plan, workers=workers)
    return list(islice(loader.batches(plan.position(skip)), count))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys == two.keys
        assert torch.equal(one.instance, two.instance)
        assert torch.equal(one.video, two.video)
        assert torch.equal(mel_of(one), mel_of(two))


# --- the same everywhere ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_http_gives_the_same_batches(served: Web, demo: Path, workers: int) -> None:
    assert_equal(batches(mixture_of(served.url), workers=workers), batches(mixture_of(str(demo))))
    assert not served.sent_whole().keys() & {f"train-00000{n}.tar" for n in range(3)}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", [2 * MB, 400_000])
def test_cached_shards_give_the_same_batches(
    served: Web, demo: Path, tmp_path: Path, workers: int, room: int
) -> None:
    """With room for all shards, and with room for fewer."""
    sizes = [path.stat().st_size for path in (demo / "shards").glob("*.tar")]
    assert max(sizes) < 400_000 < sum(sizes) < 2 * MB
    cache = Cache(tmp_path / "cache", room)
    for _ in range(2):
        ours = batches(mixture_of(served.url, cache=cache), workers=workers)
        assert_equal(ours, batches(mixture_of(str(demo))))
    assert 0 < sum(path.stat().st_size for path in cache.folder.glob("*.tar")) <= room


def test_s3_gives_the_same_batches_also_in_workers_and_cached(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = batches(mixture_of(str(demo)))
    with s3(demo.parents[1], monkeypatch) as facts:
        url = f"s3://{demo.parent.name}/{demo.name}"
        assert_equal(batches(mixture_of(url)), expected)
        assert_equal(batches(mixture_of(url), workers=2), expected)  # forked after the client's use
        cached = mixture_of(url, cache=Cache(tmp_path / "cache", 2 * MB))
        assert_equal(batches(cached, workers=2), expected)
    assert any(asked for path, asked in facts.asked if path.endswith(".tar"))
    assert_equal(batches(cached), expected)  # the server is gone


def test_a_clip_costs_one_request_and_going_on_reads_nothing_before(served: Web) -> None:
    mixture = mixture_of(served.url)
    whole = batches(mixture, 7)
    served.asked.clear()
    assert_equal(batches(mixture, 2, skip=5), whole[5:])
    ranges = [asked for path, asked in served.asked if path.endswith(".tar") and asked]
    opened = ranges.count("bytes=0-0")
    assert opened <= 3
    assert len(ranges) - opened == 6


def test_failures_that_pass_do_not_change_a_batch(served: Web, demo: Path) -> None:
    served.statuses = {"shardindex.json": [503], "samples.parquet": [500, 429], ".tar": [502] * 4}
    served.truncated = {".tar": 4, "samples.parquet": 1}
    assert_equal(batches(mixture_of(served.url)), batches(mixture_of(str(demo))))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lasting_outage_ends_the_run_even_where_bad_shards_are_skipped(
    served: Web, workers: int
) -> None:
    loader = ClipLoader(Plan(mixture_of(served.url), 0, 3), workers, guard=Guard(skips=True))
    served.statuses[".tar"] = [503] * 1000
    with pytest.raises(StoreError, match=r"/shards/train-00000\d.tar could not be read, tried 8"):
        next(loader.batches())


def test_a_server_that_is_down_is_told_in_words(
    demo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with web(demo) as facts:
        url = facts.url  # its port is closed after this
    with pytest.raises(StoreError, match=r"tried 8 times .*the last time: connection refused\."):
        mixture_of(url)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 7
    assert all("connection refused; again in" in line and len(line) < 100 for line in said)


# --- indexes from elsewhere ---------------------------------------------------------------------


def test_no_index_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with web(tmp_path) as facts, pytest.raises(UsageError, match=r"there is no http.*index.json"):
        open_shards(HttpStore(facts.url))


@pytest.mark.parametrize(
    "url", ["../x.tar", "http://other/x.tar", "pipe:cat", "/x.tar", "a/../b.tar"]
)
def test_an_index_from_elsewhere_leads_nowhere_else(tmp_path: Path, url: str) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1)
    edit_json(out / "shardindex.json", shardlist=[{"url": url, "nsamples": 4, "filesize": 1}])
    with web(tmp_path) as facts:
        with pytest.raises(ShardError, match="only tars below the set's own folder"):
            mixture_of(facts.url + "/demo-glcm")
        assert {Path(path).name for path, _ in facts.asked} == {"shardindex.json"}


def test_a_missing_table_is_a_sentence(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1)
    (out / "samples.parquet").unlink()
    with web(out) as facts, pytest.raises(ShardError, match=r"http\S*samples.parquet is missing"):
        mixture_of(facts.url)


# --- the guard ----------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Five shards of four clips; one is cut short, one is gone, one has a bad header."""
    out = ramp_set(tmp_path / "demo-glcm", shards=5, clips=4)
    tars = sorted((out / "shards").glob("*.tar"))
    tars[0].write_bytes(tars[0].read_bytes()[: 2 * tars[0].stat().st_size // 5])
    tars[1].unlink()
    data = tars[2].read_bytes()
    tars[2].write_bytes(data.replace(b"demo--clip009.mel", b"demo--clip009.mal"))
    return out


UNREADABLE = {f"demo/clip{n:03d}" for n in (*range(8), 9)}


def epoch(mixture: Mixture, world: int, rank: int, workers: int = 0) -> tuple[list[Batch], Guard]:
    plan = Plan(mixture, 0, 4 // world, world, rank)
    loader = ClipLoader(plan, workers, guard=Guard(skips=True))
    return list(loader.one_epoch()), loader.guard


def test_every_bad_clip_is_replaced_by_a_good_one(damaged: Path) -> None:
    mixture = mixture_of(str(damaged))
    found, guard = epoch(mixture, 1, 0)
    planned = [
        mixture.parts[0].shard_set.keys[draw.row].as_py()
        for draws in islice(Plan(mixture, 0, 4).batches(Plan(mixture, 0, 4).position(0)), 5)
        for draw in draws
    ]
    taken = [key for batch in found for key in batch.keys]
    assert sorted(planned) == [f"demo/clip{n:03d}" for n in range(20)]
    assert [key for key in planned if key not in UNREADABLE] == [
        ours for ours, key in zip(taken, planned, strict=True) if key not in UNREADABLE
    ]
    assert not set(taken) & UNREADABLE
    assert guard.clips == sum(len(batch.bad) for batch in found) >= len(UNREADABLE)
    assert {Path(name).name for name in guard.shards} == {f"train-00000{n}.tar" for n in range(3)}


def test_ranks_workers_and_resumption_replace_alike(damaged: Path) -> None:
    mixture = mixture_of(str(damaged))
    one, _ = epoch(mixture, 1, 0)
    two = [epoch(mixture, 2, rank, workers=2)[0] for rank in (0, 1)]
    assert len(one) == len(two[0]) == len(two[1]) == 5
    assert [batch.keys for batch in one] == [
        left.keys + right.keys for left, right in zip(*two, strict=True)
    ]
    plan = Plan(mixture, 0, 4)
    later = ClipLoader(plan, guard=Guard(skips=True)).batches(plan.position(3))
    assert_equal(list(islice(later, 2)), one[3:])


def test_http_replaces_alike(damaged: Path) -> None:
    expected, _ = epoch(mixture_of(str(damaged)), 1, 0)
    with web(damaged) as facts:
        assert_equal(epoch(mixture_of(facts.url), 1, 0)[0], expected)


def test_a_shard_with_another_sha256_is_skipped_where_it_is_cached(
    served: Web, demo: Path, tmp_path: Path
) -> None:
    """One byte of a picture, which no reader would notice."""
    copy = ramp_set(tmp_path / "demo-glcm", shards=3, clips=4)
    path = copy / "shards/train-000001.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with web(copy) as facts:
        mixture = mixture_of(facts.url, cache=Cache(tmp_path / "cache", 2 * MB))
        loader = ClipLoader(Plan(mixture, 0, 3), guard=Guard(skips=True))
        keys = {key for batch in loader.one_epoch() for key in batch.keys}
        assert not keys & {f"demo/clip00{n}" for n in range(4, 8)}
        assert [Path(name).name for name in loader.guard.shards] == ["train-000001.tar"]
        assert facts.sent_whole() == {"shardindex.json": 1, "samples.parquet": 1}
        with pytest.raises(ShardError, match=r"fetched 2 times, has \d+ bytes and sha256"):
            batches(mixture)


def test_a_copy_that_the_disk_has_damaged_is_named(served: Web, tmp_path: Path) -> None:
    """It was whole when it was fetched; where it comes from, nothing is wrong."""
    cache = Cache(tmp_path / "cache", 2 * MB)
    good = batches(mixture_of(served.url, cache=cache))
    for copy in cache.folder.glob("*.tar"):
        copy.write_bytes(bytes(copy.stat().st_size))
    with pytest.raises(ShardError, match=r"copy .*\.tar; delete that, and it is fetched") as caught:
        batches(mixture_of(served.url, cache=cache))
    assert "Copy it there" not in str(caught.value)
    for copy in cache.folder.glob("*.tar"):
        copy.unlink()
    assert_equal(batches(mixture_of(served.url, cache=cache)), good)


@dataclass(frozen=True)
class TwoRanks(Ranks):
    """What the other rank says is known beforehand."""

    world: int = 2
    theirs: frozenset[str] = frozenset()

    def all_objects(self, item: Any) -> list[Any]:
        return [item, set(self.theirs)]


def test_bad_shards_are_counted_over_ranks() -> None:
    guard = Guard(skips=True, max_shards=2)
    guard.note((BadClip("a.tar", "a is short"), BadClip("a.tar", "again"), BadClip("b.tar", "b")))
    ranks = TwoRanks(theirs=frozenset({"b.tar"}))
    assert guard.facts(ranks, 2.0) == {"replaced_clips": 4, "bad_shards": 2}
    others = TwoRanks(theirs=frozenset({"b.tar", "c.tar"}))
    assert guard.facts(others, 2.0)["bad_shards"] == 2  # nothing new, nobody is asked
    with pytest.raises(ShardError, match=r"3 shards have .* --max-bad-shards allows 2: a.tar, b"):
        guard.facts(others, 2.5)


@pytest.mark.slow
def test_two_ranks_with_bad_shards_learn_what_one_learns(damaged: Path, tmp_path: Path) -> None:
    """The bad clips of a step fall to the ranks unequally; an unequal batch would hang them."""
    flags = [
        "--method", "toy", "--preset", "toy", "--shards", str(damaged), "--epochs", "2",
        "--workers", "1", "--device", "cpu", "--model.dropout", "0", "--on-bad-shard", "skip",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    train = ["-m", "train", "pretrain", *flags]

    def run(name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "GLAV_PLUGINS": "tests.train.toy", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [*command, "--run-dir", str(tmp_path / name)], cwd=REPOSITORY, env=environment,
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip

    done = run("two", *torchrun, *train, "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    done = run("one", sys.executable, *train, "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 10
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    assert one[-1]["bad_shards"] == two[-1]["bad_shards"] == 3
    assert one[-1]["replaced_clips"] == two[-1]["replaced_clips"] >= 2 * len(UNREADABLE)
    done = run("few", *torchrun, *train, "--batch-size", "2", "--max-bad-shards", "1")
    assert done.returncode != 0
    assert "--max-bad-shards allows 1" in done.stderr


# --- whole runs ---------------------------------------------------------------------------------


def test_a_run_from_a_web_server_learns_the_same(
    ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with web(ten) as facts:
        config = toy(ten, tmp_path / "run", shards=facts.url, allow_http=True, cache_gb=0.002,
                     cache_dir=tmp_path / "cache", max_steps=7)  # fmt: skip
        assert pretrain(config) == COMPLETE
    assert [line["loss"] for line in metrics(tmp_path / "run")] == [
        line["loss"] for line in metrics(undisturbed)[:7]
    ]


def test_skips_are_in_the_metrics_and_bounded(damaged: Path, tmp_path: Path) -> None:
    skipping: dict[str, Any] = {"on_bad_shard": "skip", "epochs": 2}
    assert pretrain(toy(damaged, tmp_path / "run", **skipping)) == COMPLETE
    last = metrics(tmp_path / "run")[-1]
    assert last["bad_shards"] == 3
    assert last["replaced_clips"] >= 2 * len(UNREADABLE) - 4  # two clips a time fill no batch
    with pytest.raises(ShardError, match="--max-bad-shards allows 2"):
        pretrain(toy(damaged, tmp_path / "other", **skipping, max_bad_shards=2))
    with pytest.raises(ShardError, match="--on-bad-shard skip"):
        pretrain(toy(damaged, tmp_path / "third", epochs=2))


def test_no_key_of_s3_is_stored_or_said(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"s3://{ten.parent.name}/{ten.name}"
    with s3(ten.parents[1], monkeypatch), caplog.at_level("DEBUG"):
        keys = [os.environ[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
        assert pretrain(toy(ten, tmp_path / "run", shards=url, max_steps=2)) == COMPLETE
    assert json.loads((tmp_path / "run/config.json").read_text())["shards"] == url
    said = caplog.text + "".join(
        path.read_bytes().decode("latin-1")
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    )
    assert not [key for key in keys if key in said]
