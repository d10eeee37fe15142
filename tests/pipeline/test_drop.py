"""Clips that were taken back: in no list, never made again, and purged to the last byte."""

import fcntl
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline import fields
from pipeline.drop import Wanted, drop, read_keys
from pipeline.duplicates import duplicates
from pipeline.errors import Reason
from pipeline.format import FormatError
from pipeline.make import finalize_folder, write_page
from pipeline.offsets import offsets
from pipeline.outputs import Outputs
from pipeline.peek import peek
from pipeline.prepare import load, prepare
from pipeline.remote import ALONE_NAME
from pipeline.retry import retry
from pipeline.seen import lines_about_runs
from pipeline.status import status, status_lines
from pipeline.verify import ExitCode, verify
from pipeline.view import facts_of
from stores.local import LocalStore
from tests.pipeline.factory import (
    CLIP_SECONDS,
    JOB,
    Factory,
    clips_in_tars,
    counts,
    factory,
    kept,
    marks,
    rows,
    say,
    table,
)
from tests.pipeline.sides import add
from train.index import open_shards

__all__ = ["factory"]

NAMES = [f"clip{number}" for number in range(7)]
KEYS = {f"demo/{name}" for name in [*NAMES, "bad"]}
GONE = frozenset({"demo/clip2", "demo/bad"})
"""A sample and an error."""


def manifest() -> pa.Table:
    said = rows("clip2", transcript="something private")
    others = [name for name in [*NAMES, "bad"] if name != "clip2"]
    return pa.concat_tables([rows(*others), said])


@pytest.fixture
def made(factory: Factory, tmp_path: Path) -> Path:
    """Seven samples and an error in a few shards."""
    factory.add(*NAMES, "bad")
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    out = tmp_path / "out"
    factory.make(out, manifest())
    assert counts(out) == {"planned": 8, "samples": 7, "errors": 1, "not_run": 0}
    factory.tried.clear()
    return out


def wanted(made: Path, keys: frozenset[str] = GONE, **more: object) -> Wanted:
    return Wanted(keys, runs=made.parent / "runs", **more)  # type: ignore[arg-type]


def assert_gone(out: Path, keys: frozenset[str] = GONE) -> None:
    """From every list there is, with a ledger that closes."""
    samples, errors = table(out, "samples"), table(out, "errors")
    assert not keys & (samples.keys() | errors.keys())
    assert samples.keys() | errors.keys() | keys == KEYS
    clips = open_shards(LocalStore(out))
    assert set(clips.keys.to_pylist()) == samples.keys()
    verdict = verify(out, deep=True, progress=None)
    assert (verdict.corrupt, verdict.missing, verdict.exit_code) == ([], [], ExitCode.OK)
    assert f"+ {len(keys)} dropped: the ledger closes" in verdict.lines()[-2]
    assert counts(out)["dropped"] == len(keys)


def test_a_dropped_clip_is_in_no_list_and_no_tar_is_touched(made, factory):
    before = marks(made)
    outcome = drop(made, wanted(made, reason="asked by mail"))
    assert outcome.exit_code == 0
    assert "8 rows = 6 samples" in outcome.lines[1]
    assert outcome.lines[1].endswith("+ 0 errors + 2 dropped: the ledger closes")
    assert any("still in the tars" in line for line in outcome.lines)
    assert kept(before, made)
    assert_gone(made)
    stones = pq.read_table(made / "dropped.parquet").to_pylist()
    assert {stone["key"]: stone["reason"] for stone in stones} == dict.fromkeys(
        GONE, "asked by mail"
    )
    state = status(made)
    assert (state.samples, state.errors, state.dropped, state.rows) == (6, 0, 2, 8)
    assert state.seconds == 6 * CLIP_SECONDS
    assert any(line.endswith("6 samples, 0 errors, 2 dropped") for line in status_lines(state))
    with pytest.raises(UsageError, match="demo/clip2: dropped from"):
        peek(made, ["demo/clip2"])
    assert "clip2" not in "".join(peek(made, count=32))
    page = write_page(made).read_text()
    assert "clip2" not in page and "The ledger closes" in page
    assert "<b>2</b> dropped" in page


def test_what_was_dropped_can_be_dropped_again_and_more_can_follow(made, factory):
    drop(made, wanted(made))
    stones = pq.read_table(made / "dropped.parquet")
    outcome = drop(made, wanted(made, GONE | {"demo/clip4"}))
    assert outcome.lines[:2] == ["1 clip dropped", "2 were dropped before"]
    after = pq.read_table(made / "dropped.parquet")
    assert after.slice(0, 2).equals(stones)
    assert_gone(made, GONE | {"demo/clip4"})


def test_unknown_keys_are_refused_with_the_nearest_and_nothing_is_touched(made, factory):
    files = {path: path.read_bytes() for path in made.rglob("*.*") if path.is_file()}
    unknown = frozenset({"demo/clip2", "demo/clpi3", "clip5.mp4", "zzz"})
    with pytest.raises(UsageError, match=r"3 of 4 keys are no rows of") as error:
        drop(made, wanted(made, unknown))
    assert "'demo/clpi3' (nearest: demo/clip3" in str(error.value)
    assert "'clip5.mp4' (nearest: demo/clip5" in str(error.value)  # the file instead of the key
    assert "'zzz' (nearest: none is like it)" in str(error.value)
    assert {path: path.read_bytes() for path in files if path.name != "run.lock"} == {
        path: data for path, data in files.items() if path.name != "run.lock"
    }
    assert not (made / "dropped.parquet").exists()


@pytest.mark.parametrize("purge", [False, True])
def test_no_job_brings_a_dropped_clip_back(made, factory, purge):
    drop(made, wanted(made, purge=purge))
    whole = {name: mark[2] for name, mark in marks(made).items() if name.endswith(".tar")}
    before = marks(made)
    factory.make(made, manifest())
    assert kept(before, made)
    factory.faults = {}
    [line] = retry(made, "open_error", JOB, say).lines
    assert line.startswith("no committed shard has rows that ended as open_error; ")
    for path in (made / "shards").glob("*.tar"):
        path.unlink()
    factory.make(made, manifest())
    assert not GONE & set(factory.tried)
    assert clips_in_tars(made) == dict.fromkeys(KEYS - GONE, 1)
    if purge:  # what a purge leaves is what a job makes
        assert {name: marks(made)[name][2] for name in whole} == whole
    assert_gone(made)


def test_only_overwrite_brings_them_back_and_says_so_with_the_way_out(made, factory):
    drop(made, wanted(made, purge=True))
    note = prepare(made, factory.wish(manifest(), overwrite=True)).note
    assert "2 clips that had been dropped COME BACK" in note
    factory.make(made, manifest())
    assert "demo/clip2" in table(made, "samples")
    assert read_keys(made / "dropped-before.txt") == GONE
    assert str(made / "dropped-before.txt") in note
    drop(made, wanted(made, read_keys(made / "dropped-before.txt")))
    assert_gone(made)


def test_a_purge_leaves_no_byte_and_moves_no_other(made, factory):
    write_page(made)
    before = marks(made)
    members = all_members(made)
    outcome = drop(made, wanted(made, purge=True))
    assert outcome.exit_code == 0
    touched = {name for name, mark in marks(made).items() if before[name] != mark}
    holders = {
        path.stem
        for path in (made / "shards").glob("*.json")
        if GONE & set(json.loads(path.read_text())["left_out"])
    }
    assert {Path(name).stem for name in touched} == holders
    assert len(touched) < len(before)
    assert all_members(made) == {
        name: data for name, data in members.items() if not name.startswith("demo--clip2.")
    }
    stay = {"manifest.parquet", "dropped.parquet"}  # they name the rows that nobody may make again
    for path in made.rglob("*"):
        if path.is_file() and path.name not in stay and path.parent.name != "shards":
            assert not mentioned(path), path
    for path in (made / "shards").glob("*.json"):
        stored = json.loads(path.read_text())
        tar = path.with_suffix(".tar").read_bytes()
        assert stored["sha256"] == hashlib.sha256(tar).hexdigest()
        assert stored["md5"] == hashlib.md5(tar).hexdigest()
        assert (stored["filesize"], len(tar) % tarfile.RECORDSIZE) == (len(tar), 0)
        assert b"private" not in path.read_bytes() + tar
        assert {entry["key"] for entry in stored["samples"] + stored["errors"]}.isdisjoint(GONE)
        for entry in stored["samples"]:
            for extension, (offset, size) in entry["members"].items():
                assert tar[offset : offset + size] == members[f"{entry['base']}.{extension}"]
    assert not list((made / "shards").glob("*tmp*"))
    assert pq.read_table(made / "dropped.parquet")["purged"].to_pylist() == [True, True]
    assert_gone(made)


def test_a_purge_takes_the_pages_that_show_the_clips(made, factory):
    """`make demo` puts one beside the report."""
    peek(made, ["demo/clip2", "demo/clip1"], html=made / "peek.html")
    peek(made, ["demo/clip1"], html=made / "others.html")
    outcome = drop(made, wanted(made, purge=True))
    assert not (made / "peek.html").exists()
    assert (made / "others.html").exists()
    assert "removed, because they showed clips of these: peek.html" in outcome.lines
    assert any("pages that peek and leaks wrote elsewhere" in line for line in outcome.lines)


def test_a_purged_clip_that_a_late_worker_brings_back_is_found(made, factory):
    """One that was given its task before the purge, as by a job array on a store."""
    [shard] = [p.stem for p in (made / "shards").glob("*.json") if b"demo/clip2" in p.read_bytes()]
    names = (f"{shard}.tar", f"{shard}.json")
    files = {name: (made / "shards" / name).read_bytes() for name in names}
    drop(made, wanted(made, purge=True))
    for name, data in files.items():
        (made / "shards" / name).write_bytes(data)
    factory.make(made, manifest())
    verdict = verify(made, progress=None)
    assert f"{shard}: 1 sample in its tar should be purged" in verdict.corrupt
    assert f"run `python -m pipeline drop {made} --keys FILE --purge` again" in verdict.advice
    drop(made, wanted(made, purge=True))
    assert_gone(made)
    assert "demo/clip2" not in clips_in_tars(made)


def mentioned(path: Path) -> bool:
    """Whether a file has a dropped clip's name or words in it, compressed tables unpacked."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        data = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
    return any(word in data for word in (b"clip2", b"bad.mp4", b"private"))


def all_members(out: Path) -> dict[str, bytes]:
    """Every member of every tar, as tarfile reads them."""
    found: dict[str, bytes] = {}
    for path in (out / "shards").glob("*.tar"):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            found |= {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    return found


def purge_killed_before(made, keys, last, monkeypatch):
    """A purge that ends before the first file with this ending is put in its place."""
    replace = os.replace

    def killed(source, target):
        if str(target).endswith(last):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            drop(made, wanted(made, keys, purge=True))


@pytest.mark.parametrize("then", ["the job", "finalize", "retry", "the same command"])
@pytest.mark.parametrize("last", [".tar", ".json"])
def test_a_purge_that_is_killed_loses_no_neighbour(made, factory, monkeypatch, then, last):
    """Before the tar is replaced, or between tar and sidecar; nothing may be decoded again."""
    clip = frozenset({"demo/clip2"})
    purge_killed_before(made, clip, last, monkeypatch)
    assert not (made / "shardindex.json").exists()  # nobody trains on the old one meanwhile
    factory.tried.clear()
    if then == "the job":
        factory.make(made, manifest())
    elif then == "finalize":
        finalize_folder(made, partial=False)
    elif then == "retry":
        retry(made, "crash", JOB, say)
    assert drop(made, wanted(made, clip, purge=True)).exit_code == 0
    assert factory.tried == []
    assert_gone(made, clip)
    assert "demo/clip2" not in clips_in_tars(made)
    assert list((made / "shards").glob("*.next")) == []


@pytest.mark.parametrize("command", ["finalize", "retry", "drop"])
def test_what_was_interrupted_is_finished_by_one_process_at_a_time(
    made, factory, monkeypatch, command
):
    """The tasks of a job array start together."""
    modules = {"finalize": "make", "retry": "retry", "drop": "drop"}
    seen = []

    def finishing(out):
        with open(out / ALONE_NAME, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(out)

    monkeypatch.setattr(f"pipeline.{modules[command]}.finish_interrupted", finishing)
    {
        "finalize": lambda: finalize_folder(made, partial=False),
        "retry": lambda: retry(made, "open_error", JOB, say),
        "drop": lambda: drop(made, wanted(made)),
    }[command]()
    assert seen == [made]


def test_verify_sends_who_was_stopped_in_a_purge_back_to_it(made, factory, monkeypatch):
    """To make the shard again, as for other damage, needs the source, which may be gone."""
    clip = frozenset({"demo/clip2"})
    purge_killed_before(made, clip, ".json", monkeypatch)
    verdict = verify(made, progress=None)
    assert verdict.exit_code == ExitCode.CORRUPT
    said = f"corrupt; run `python -m pipeline drop {made} --keys FILE --purge` again"
    assert verdict.lines()[-1] == said
    assert any("a purge was stopped between its tar and its sidecar" in m for m in verdict.missing)
    assert drop(made, wanted(made, clip, purge=True)).exit_code == 0
    assert_gone(made, clip)


def test_what_is_known_of_the_others_outlives_a_purge(made, factory, monkeypatch):
    """Fingerprints and offsets of clips that stay are those of their shards, as they are now."""
    duplicates([made]), offsets(made)
    before = quality(made)
    assert before["fingerprints"].keys() == before["av_offsets"].keys() == KEYS - {"demo/bad"}
    outcome = drop(made, wanted(made, purge=True))
    assert not (made / "quality/duplicates.parquet").exists()
    [told] = [line for line in outcome.lines if "ranks change with a clip" in line]
    assert "duplicate_groups.parquet, duplicates.parquet," in told and f"duplicates {made}" in told
    assert "offsets" not in told  # which stay
    columns = json.loads((made / "quality/columns.json").read_text())
    assert set(columns.values()) == {"av_offsets.parquet"}
    after = quality(made)
    for name in ("fingerprints", "av_offsets"):
        stay = {key: row for key, row in before[name].items() if key not in GONE}
        assert without_hash(after[name]) == without_hash(stay)
    assert facts_of(made, ("av_offset_from",)).notes == []
    monkeypatch.setattr("pipeline.prints._of_shard", lambda *_: pytest.fail("read a shard again"))
    duplicates([made])
    assert facts_of(made, ("duplicate_rank",)).notes == []
    assert_gone(made)


def test_what_still_counts_a_dropped_clip_is_named_with_the_command(made, factory):
    offsets(made)
    assert not any("still count" in line for line in drop(made, wanted(made)).lines)
    duplicates([made])
    keys, numbers = sorted(KEYS - GONE), made.parent / "numbers.parquet"
    pq.write_table(pa.table({"key": keys, "score": [1.0] * len(keys)}), numbers)
    assert add(made, "score", table=numbers).exit_code == 0
    told = drop(made, wanted(made, frozenset({"demo/clip4"}))).lines
    assert f"field score still counts them: `{fields.command(made, 'score')}` again" in told
    assert any("ranks of duplicates still count them" in line for line in told)
    missing = verify(made, progress=None).missing
    assert [line.split()[:2] for line in missing] == [
        ["field", "score"],
        ["quality/duplicate_groups.parquet", "ranks"],
    ]


def test_a_table_of_quality_that_cannot_be_read_goes_with_a_purge(made):
    (made / "quality").mkdir()
    (made / "quality/fingerprints.parquet").write_bytes(b"of demo/clip2")
    outcome = drop(made, wanted(made, frozenset({"demo/clip2"}), purge=True))
    assert not list((made / "quality").glob("*.parquet"))
    [told] = [line for line in outcome.lines if "cannot be read" in line]
    assert "quality/: fingerprints.parquet, " in told and f"duplicates {made}" in told


def quality(out: Path) -> dict[str, dict[str, dict[str, object]]]:
    """The rows of the tables of quality/ by key, that of pairs left out."""
    tables = {path.stem: pq.read_table(path) for path in (out / "quality").glob("*.parquet")}
    return {
        name: {row["key"]: row for row in table.to_pylist()}
        for name, table in tables.items()
        if name != "duplicates"
    }


def without_hash(rows: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {key: row | {"shard_sha256": None} for key, row in rows.items()}


def test_a_purge_says_where_the_names_stay(made, factory):
    factory.faults = {}
    retry(made, "open_error", JOB, say)  # the patch names its row in plan.json
    (made / "scan").mkdir()
    pq.write_table(manifest(), made / "scan/manifest.parquet")
    [said] = [line for line in drop(made, wanted(made, purge=True)).lines if "keeps" in line]
    holders = {
        "shards/*.json" if path.parent.name == "shards" else str(path.relative_to(made))
        for path in made.rglob("*")
        if path.is_file() and path.suffix != ".tar" and named_in(path)
    }
    assert holders == {"manifest.parquet", "scan/manifest.parquet", "dropped.parquet", "plan.json",
                       "shards/*.json"}  # fmt: skip
    assert all(name in said for name in holders)


def named_in(path: Path) -> bool:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        data = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
    return any(key.encode() in data for key in GONE)


def test_a_damaged_tar_is_not_given_new_hashes(made, factory):
    shard = table(made, "samples")["demo/clip2"]["shard"]
    tar = made / "shards" / f"{shard}.tar"
    data = bytearray(tar.read_bytes())
    data[-12_000] ^= 1
    tar.write_bytes(data)
    outcome = drop(made, wanted(made, purge=True))
    assert outcome.exit_code == 5
    assert f"{tar} is not the one its sidecar describes" in outcome.lines[-1]
    assert tar.read_bytes() == bytes(data)
    assert not any(pq.read_table(made / "dropped.parquet")["purged"].to_pylist())
    for path in (tar, tar.with_suffix(".json")):
        path.unlink()
    factory.make(made, manifest())
    assert drop(made, wanted(made, purge=True)).exit_code == 0
    assert_gone(made)


def test_a_shard_without_its_tar_is_named_as_damaged(made, factory):
    shard = table(made, "samples")["demo/clip2"]["shard"]
    tar = made / "shards" / f"{shard}.tar"
    tar.unlink()
    outcome = drop(made, wanted(made, purge=True))
    assert outcome.exit_code == 5
    said = f"{tar} is gone, so nothing could be purged from it: run the `python -m"
    assert outcome.lines[-1].startswith(said)
    assert not any(pq.read_table(made / "dropped.parquet")["purged"].to_pylist())


def test_a_patched_clip_can_be_purged(made, factory):
    factory.faults = {}
    retry(made, "open_error", JOB, say)
    assert table(made, "samples")["demo/bad"]["shard"] == "train-p000000"
    drop(made, wanted(made, purge=True))
    assert clips_in_tars(made) == dict.fromkeys(KEYS - GONE, 1)
    assert_gone(made)


def test_the_source_may_go_too_and_nothing_is_made_again(made, factory):
    drop(made, wanted(made, purge=True))
    before = marks(made)
    without = manifest().filter(pa.compute.not_equal(manifest()["key"], "demo/clip2"))
    for later in (without, pa.concat_tables([without, rows("clip2", transcript="")])):
        prepared = prepare(made, factory.wish(later))
        assert prepared.note == ""
        factory.make(made, later)
        assert kept(before, made)
    assert_gone(made)


def test_a_clip_that_was_never_reached_can_be_dropped_and_stays_away(factory, tmp_path):
    factory.add(*NAMES, "bad")
    out = tmp_path / "out"
    factory.make(out, manifest(), limit=3)
    waiting = sorted(KEYS - set(factory.tried))[0]
    outcome = drop(out, wanted(out, frozenset({waiting})))
    assert "+ 4 not run + 1 dropped: the ledger closes" in outcome.lines[1]
    factory.make(out, manifest())
    assert waiting not in factory.tried
    assert_gone(out, frozenset({waiting}))


def test_an_unfinished_set_stays_unfinished(made, factory):
    lost = next(iter(sorted((made / "shards").glob("*.json"))))
    lost.unlink()
    (made / "shardindex.json").unlink()
    drop(made, wanted(made))
    assert not (made / "shardindex.json").exists()
    assert verify(made, progress=None).exit_code == ExitCode.INCOMPLETE
    factory.make(made, manifest())
    assert_gone(made)


def test_lost_tombstones_are_not_taken_for_none(made, factory):
    drop(made, wanted(made))
    (made / "dropped.parquet").write_bytes(b"garbage")
    for command in (lambda: factory.make(made, manifest()), lambda: status(made),
                    lambda: drop(made, wanted(made))):  # fmt: skip
        with pytest.raises(FormatError, match=r"dropped\.parquet cannot be read.*from a copy"):
            command()
    verdict = verify(made, progress=None)
    assert any("dropped.parquet" in said for said in verdict.corrupt)


def test_runs_that_saw_a_clip_are_listed(made, factory):
    runs = made.parent / "runs"
    for name, keys in (("first", ["demo/clip1", "demo/clip2"]), ("second", ["demo/clip3"])):
        (runs / name / "checkpoints").mkdir(parents=True)
        (runs / name / "checkpoints" / "step-00000001.pt").touch()
        clips = {"set": ["demo-glcm"] * len(keys), "key": keys, "instance": range(len(keys))}
        pq.write_table(pa.table(clips), runs / name / "clips.parquet")
    (runs / "second/eval/classify").mkdir(parents=True)
    result = {"shards": {"path": str(made), "name": "demo-glcm"}}
    (runs / "second/eval/classify/result.json").write_text(json.dumps(result))
    (runs / "third").mkdir()
    (runs / "third" / "clips.parquet").write_bytes(b"garbage")
    lines = drop(made, wanted(made)).lines
    about = lines[lines.index(f"runs in {runs} that saw of the 2 clips:") + 1 :]
    assert about[0] == "  first: trained on 1 of them, in demo-glcm; 1 checkpoint"
    assert "third" in about[1] and "cannot be read" in about[1]
    assert about[2].startswith("  second: classify was evaluated on this set")
    assert len(about) == 3


def evaluated(runs: Path, task: str, text: str) -> None:
    folder = runs / "first/eval" / task
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)


def test_evaluations_of_sets_on_stores_are_listed(made, factory):
    runs = made.parent / "runs"
    there = "s3://bucket/sets/demo"
    for task, path, name in [
        ("classify", there, "demo-glcm"),
        ("retrieve", f"{there}/", "demo-glcm"),
        ("detect", "s3://bucket/sets/other", "other-glcm"),
    ]:
        evaluated(runs, task, json.dumps({"shards": {"path": path, "name": name}}))
    copied = "\n".join(lines_about_runs(runs, made, GONE))
    assert f"first: classify was evaluated on {there}, which this set may be a copy of" in copied
    assert "detect" not in copied
    (made / ".store").write_text(there)  # the mirror of that set
    mirrored = lines_about_runs(runs, made, GONE)
    assert [line.split(";")[0] for line in mirrored[1:]] == [
        "  first: classify was evaluated on this set",
        "  first: retrieve was evaluated on this set",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": {"path": 3, "name": "x"}}'])
def test_an_evaluation_that_cannot_be_read_is_named(made, factory, text):
    runs = made.parent / "runs"
    evaluated(runs, "classify", text)
    [_, line] = lines_about_runs(runs, made, GONE)
    path = runs / "first/eval/classify/result.json"
    assert line.startswith(f"  first: {path} cannot be read (")
    assert line.endswith("so it may have seen some: look yourself")


def test_a_run_goes_on_with_the_same_numbers_and_says_that_the_order_is_another(
    made, factory, caplog
):
    from tests.train.ramps import mixture_of
    from train.plan import Plan
    from train.restart import batches_used

    before = mixture_of(str(made))
    numbers = dict(zip(before.keys().to_pylist(), before.chosen_instances(), strict=False))
    saved = {
        "first_instances": before.first_instances(), "fingerprint": before.fingerprint(),
        "position": {"epoch": 2, "clips": 4},
    }  # fmt: skip
    drop(made, wanted(made))
    after = mixture_of(str(made))
    assert (before.instances, after.instances) == (8, 8)  # memories keep their sizes
    table_before, table_after = before.table().to_pylist(), after.table().to_pylist()
    assert table_after == [row for row in table_before if row["key"] not in GONE]
    assert len(numbers) == 7
    plan = Plan(after, seed=0, batch_size=2)
    assert batches_used(saved, plan) == 3 * plan.batches_per_epoch
    assert "the order of the clips in an epoch is another one now" in caplog.text


def test_an_evaluation_says_that_a_test_clip_was_dropped(made, factory):
    from train.errors import UsageError as TrainUsageError
    from train.evaluation.labelled import open_labelled, require_whole

    drop(made, wanted(made))
    labelled = open_labelled(LocalStore(made))
    assert labelled.missing(["train"]) == dict.fromkeys(GONE, "dropped")
    with pytest.raises(TrainUsageError, match="demo/clip2: dropped"):
        require_whole(labelled, ["train"], allow_missing=False)
    assert require_whole(labelled, ["train"], allow_missing=True) == 8


@pytest.mark.parametrize("text", ["", "\n# nothing\n\n"])
def test_a_file_without_a_key_is_refused(tmp_path, text):
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(UsageError, match="has no line with a key"):
        read_keys(tmp_path / "keys.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "nothing.txt")


def test_the_whole_command(made, factory, monkeypatch, capsys):
    from pipeline.__main__ import main

    keys = made.parent / "keys.txt"
    keys.write_text("# asked by mail\ndemo/clip2\n\n  demo/bad \ndemo/clip2\n")
    arguments = ["drop", str(made), "--keys", str(keys), "--purge", "--runs", str(made.parent)]
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "2 clips dropped" in capsys.readouterr().out
    assert load(made).account.dropped == GONE
    assert Outputs(made).index()["complete"]
