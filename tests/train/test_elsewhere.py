"""Runs and checkpoints on a store: a copy that a fresh machine goes on from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from stores.errors import AddressError, StoreError
from stores.objects import ObjectStore
from tests.stores.bucket import Bucket, Fault, bucket as a_bucket, server
from tests.train.runs import assert_like, toy, weights
from train import checkpoint, trackers
from train.elsewhere import RunCopy, address_of, local
from train.errors import UsageError
from train.pretrain import COMPLETE, pretrain

__all__ = ["a_bucket", "server"]


@pytest.fixture
def bucket(a_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    return a_bucket


def names(bucket: Bucket) -> set[str]:
    return {name.removeprefix("runs/first/") for name in bucket.objects("runs/first")}


def test_a_fresh_machine_goes_on_from_the_copy(
    bucket: Bucket, ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    there = bucket.url("runs/first")
    here = tmp_path / "here"
    assert pretrain(toy(ten, here, max_steps=10, keep=2, copy_to=there)) == COMPLETE
    assert names(bucket) == {
        "checkpoints/step-00000008.pt", "checkpoints/step-00000010.pt", "checkpoints/last",
        "config.json", "origin.json", "clips.parquet", "metrics.jsonl",
    }  # fmt: skip
    for name, data in bucket.objects("runs/first/checkpoints").items():
        assert (here / name.removeprefix("runs/first/")).read_bytes() == data
    elsewhere = tmp_path / "elsewhere"
    assert pretrain(toy(ten, elsewhere, keep=2, copy_to=there)) == COMPLETE
    assert_like(elsewhere, undisturbed)
    assert "finished.json" in names(bucket)
    stored = checkpoint.load(local(Path(there)))["model"]
    assert all(torch.equal(stored[name], weights(undisturbed)[name]) for name in stored)


def test_a_checkpoint_on_a_store_is_read_like_one_here(
    bucket: Bucket, undisturbed: Path, ten: Path, tmp_path: Path
) -> None:
    bucket.upload(undisturbed, "runs/first")
    last = (undisturbed / "checkpoints/last").read_text().strip()
    for place in ("runs/first", f"runs/first/checkpoints/{last}"):
        address = Path(bucket.url(place))
        assert checkpoint.chosen(address).name == last
        ours = checkpoint.load(address)["model"]
        assert all(torch.equal(ours[name], weights(undisturbed)[name]) for name in ours)
    asked = len(bucket.proxy.asked)
    checkpoint.load(Path(bucket.url("runs/first")))
    new = bucket.proxy.asked[asked:]
    assert not [said for said in new if said.startswith("GET") and ".pt" in said]  # kept here
    started = toy(ten, tmp_path / "second", init=Path(bucket.url("runs/first")), max_steps=1)
    assert pretrain(started) == COMPLETE


def test_ranks_that_ask_for_the_same_copy_at_once_fetch_it_once(
    bucket: Bucket, undisturbed: Path
) -> None:
    """The second one neither fetches it again nor removes what the first is writing."""
    bucket.upload(undisturbed, "runs/first")
    last = (undisturbed / "checkpoints/last").read_text().strip()
    bucket.proxy.faults.append(Fault("GET", r"\.pt$", status=200, delay_seconds=3.0))
    address = Path(bucket.url("runs/first"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(local, address)
        assert bucket.proxy.hit.wait(60)
        second = pool.submit(local, address)
    for folder in (first.result(), second.result()):
        ours, theirs = (one / "checkpoints" / last for one in (folder, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes()
    assert bucket.proxy.count(rf"GET .*{last}$") == 1


def test_what_is_not_there_and_what_is_no_address(bucket: Bucket) -> None:
    for place in ("runs/none", "runs/first/checkpoints/step-00000001.pt"):
        with pytest.raises(UsageError, match=f"no checkpoint {bucket.url(place)}"):
            checkpoint.load(Path(bucket.url(place)))
    with pytest.raises(AddressError, match="AWS_PROFILE"):
        checkpoint.load(Path("s3://key:secret@shelf/run"))
    assert address_of(Path("gs://shelf/run")) == "gs://shelf/run"
    assert address_of(Path("/data/s3:/run")) is None


def test_a_fetch_that_was_killed_goes_on_at_the_newest_checkpoint_and_uploads_nothing(
    bucket: Bucket, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(undisturbed, "runs/first")
    steps = sorted(path.name for path in undisturbed.glob("checkpoints/step-*.pt"))[-2:]
    bucket.put("runs/first/checkpoints/best", steps[0].encode())
    here = tmp_path / "here"
    fetch = ObjectStore.fetch

    class KilledError(BaseException):
        """As far as files go."""

    def until_the_newest(self: ObjectStore, name: str, local: Path) -> None:
        if name.endswith(steps[1]):
            raise KilledError
        fetch(self, name, local)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "fetch", until_the_newest)
        with pytest.raises(KilledError):
            RunCopy(bucket.url("runs/first"), here).fetch()
    assert [path.name for path in here.glob("checkpoints/step-*.pt")] == [steps[0]]
    assert (here / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    copy = RunCopy(bucket.url("runs/first"), here)
    copy.fetch()
    assert sorted(path.name for path in here.glob("checkpoints/step-*.pt")) == steps
    asked = len(bucket.proxy.asked)
    copy.close()
    uploaded = [said for said in bucket.proxy.asked[asked:] if said.startswith(("PUT", "POST"))]
    assert {said.rpartition("/")[2] for said in uploaded} == {"", "best", "last"}  # "": the folder


def test_a_fetched_run_goes_on_here_and_is_not_fetched_again(
    bucket: Bucket, undisturbed: Path, tmp_path: Path
) -> None:
    bucket.upload(undisturbed, "runs/first")
    copy = RunCopy(bucket.url("runs/first"), tmp_path)
    copy.fetch()
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "checkpoints" / "step-99999999.pt").write_bytes(b"newer")  # `last` not yet
    copy.fetch()
    assert (tmp_path / "metrics.jsonl").read_text() == "{}"


def test_an_outage_stops_no_training_and_is_said_in_the_end(
    bucket: Bucket, ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    there = bucket.url("runs/first")
    bucket.proxy.faults.append(Fault("PUT|POST", r"\.pt"))
    with pytest.raises(StoreError, match=r"complete here, but its copy is behind: .*tried 8 times"):
        pretrain(toy(ten, tmp_path / "run", copy_to=there))
    assert_like(tmp_path / "run", undisturbed)
    assert "checkpoints/last" not in names(bucket)
    bucket.proxy.heal()
    assert pretrain(toy(ten, tmp_path / "run", copy_to=there)) == COMPLETE
    assert {"checkpoints/last", "finished.json"} <= names(bucket)


def test_a_copy_that_is_refused_stops_the_run_before_it_begins(
    bucket: Bucket, ten: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="no bucket"):
        pretrain(toy(ten, tmp_path / "run", copy_to="s3://bucket-of-nobody/run"))
    assert not (tmp_path / "run").exists()
