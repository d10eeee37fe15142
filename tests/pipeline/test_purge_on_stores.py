"""`drop --purge` of a set on a store: the bytes of a folder's, and no neighbour lost by a kill."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import remote
from pipeline.drop import Wanted, drop
from pipeline.make import finalize_folder
from pipeline.verify import ExitCode, verify
from tests.pipeline.factory import Factory, factory, rows
from tests.pipeline.shelves import NAMES, Changes, Shelved, Side
from tests.stores.bucket import Bucket, bucket, server

__all__ = ["bucket", "factory", "server"]

pytestmark = pytest.mark.timeout(900)  # many requests, also on busy machines
GONE = ("clip2", "bad")
KEYS = frozenset(f"demo/{name}" for name in GONE)


@pytest.fixture
def shelved(
    bucket: Bucket, factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shelved:
    """A set with a field."""
    made = Shelved(bucket, factory, tmp_path, monkeypatch)
    made.make()
    made.features()
    assert made.add(made.machine()).exit_code == 0
    return made


def said(data: bytes, name: str) -> bytes:
    """What an object says, Parquet as text."""
    if name.endswith(".parquet"):
        return json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode()
    return data


def sound(shelved: Shelved, name: str = "set") -> None:
    """A set with nothing of the clips, as `verify` on another machine has it; the field is due."""
    verdict = verify(shelved.machine(name), progress=None)
    assert verdict.corrupt == []
    assert [text for text in verdict.missing if not text.startswith("field seen is not fin")] == []
    clips = set()
    for key, data in shelved.bucket.objects(f"{name}/shards/").items():
        if key.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                clips |= {member.partition(".")[0] for member in tar.getnames()}
    assert clips == {f"demo--{one}" for one in NAMES if one not in GONE}


def test_the_bytes_are_those_of_a_folder(shelved: Shelved, factory: Factory) -> None:
    here = shelved.folder / "set"
    factory.make(here, rows(*NAMES, "bad"))
    drop(here, Wanted(KEYS, purge=True, runs=shelved.folder))
    outcome = shelved.purge(shelved.machine(), *GONE)
    assert outcome.exit_code == 0
    there = shelved.objects()
    for tar in (here / "shards").glob("*.tar"):
        assert there[f"shards/{tar.name}"] == tar.read_bytes()
        ours, theirs = (
            json.loads(text)
            for text in (there[f"shards/{tar.stem}.json"], tar.with_suffix(".json").read_bytes())
        )
        for fact in ("samples", "errors", "left_out", "sha256", "purged_from"):
            times = {"seconds", "tries"} if fact == "errors" else set()
            assert strip(ours.get(fact, []), times) == strip(theirs.get(fact, []), times)
    stay = ("manifest.parquet", "dropped.parquet")
    for name, data in shelved.bucket.objects("set/").items():
        if not name.endswith(stay) and "/shards/" not in name:
            assert not any(key.encode() in said(data, name) for key in KEYS), name
    assert any(line.startswith("field seen: 1 side shard of") for line in outcome.lines)
    sound(shelved)
    again = Side()
    assert shelved.add(shelved.machine(), again).exit_code == 0
    assert len(again.made) == 1
    assert verify(shelved.machine(), progress=None).exit_code == ExitCode.OK


def strip(facts: object, names: set[str]) -> object:
    if isinstance(facts, list):
        return [strip(fact, names) for fact in facts]
    if isinstance(facts, dict):
        return {name: fact for name, fact in facts.items() if name not in names}
    return facts


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_purge_that_is_killed_goes_on_anywhere_and_loses_no_neighbour(
    shelved: Shelved, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each change of the store in turn; the sources are gone, so nothing can be made."""
    shelved.copy("undisturbed")
    with monkeypatch.context() as patch:
        changes = Changes(patch)
        shelved.purge(shelved.machine("undisturbed"), *GONE)
    wanted = shelved.objects("undisturbed")
    kinds = [change.rpartition(".")[2] for change in changes.done]
    assert {"tar", "next", "json", "parquet"} <= set(kinds)
    for source in factory.root.glob("*.mp4"):
        source.unlink()
    for number, change in enumerate(changes.done):
        shelved.copy(f"k{number}")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            Changes(patch, number)
            shelved.purge(shelved.machine(f"k{number}"), *GONE)
        seen = shelved.objects(f"k{number}")
        if "shardindex.json" in seen:  # whoever trains on it finds the tars that it lists
            assert listed(seen)
            assert all(digests(seen)[url] == sha256 for url, sha256 in listed(seen)), change
        assert shelved.purge(shelved.machine(f"k{number}"), *GONE).exit_code == 0
        assert shelved.objects(f"k{number}") == wanted, change
        assert factory.tried == []
        sound(shelved, f"k{number}")


def listed(seen: dict[str, bytes]) -> list[tuple[str, str]]:
    entries = json.loads(seen["shardindex.json"])["shardlist"]
    return [(entry["url"], entry["sha256"]) for entry in entries]


def digests(seen: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in seen.items()}


@pytest.mark.parametrize("then", ["the job", "finalize"])
def test_another_command_finishes_what_was_stopped_between_tar_and_sidecar(
    shelved: Shelved, factory: Factory, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    with monkeypatch.context() as patch:
        changes = Changes(patch)
        shelved.copy("undisturbed")
        shelved.purge(shelved.machine("undisturbed"), *GONE)
    place = next(n for n, change in enumerate(changes.done) if change.endswith(".tar")) + 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Changes(patch, place)
        shelved.purge(shelved.machine(), *GONE)
    out = shelved.machine()
    verdict = verify(out, progress=None)
    assert "--keys FILE --purge` again" in verdict.advice
    assert "sidecars" not in verdict.advice
    if then == "finalize":
        assert finalize_folder(out, partial=False).exit_code == 0
    else:
        factory.make(out, rows(*NAMES, "bad"))
        with remote.alone(out):
            remote.push(out)
    assert factory.tried == []
    assert not any(name.endswith(".next") for name in shelved.objects())
    assert shelved.purge(shelved.machine(), *GONE).exit_code == 0
    sound(shelved)
