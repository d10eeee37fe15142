"""Rows that are tried again go into shards of their own: each counts once, no old byte moves."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest

from manifests import schema
from pipeline.errors import Reason
from pipeline.make import finalize_folder, write_page
from pipeline.outputs import Outputs
from pipeline.peek import peek
from pipeline.prepare import prepare
from pipeline.retry import retry
from pipeline.status import status
from pipeline.verify import ExitCode, verify
from stores.local import LocalStore
from tests.pipeline.factory import (
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
from train.index import open_shards

__all__ = ["factory"]

GOOD = [f"clip{number}" for number in range(6)]
ALL = {f"demo/{name}" for name in [*GOOD, "slow1", "slow2", "bad", "held1", "held2"]}


def manifest():
    import pyarrow as pa

    train = rows(*GOOD, "slow1", "slow2", "bad")
    return pa.concat_tables([train, rows("held1", "held2", split="val")])


@pytest.fixture
def made(factory: Factory, tmp_path: Path) -> Path:
    """Two rows of train and one of val ran into the time limit; one is no video."""
    factory.add(*GOOD, "slow1", "slow2", "bad", "held1", "held2")
    slow = dict.fromkeys(("demo/slow1", "demo/slow2", "demo/held2"), Reason.TIMEOUT)
    factory.faults = {**slow, "demo/bad": Reason.OPEN_ERROR}
    out = tmp_path / "out"
    ledger = factory.make(out, manifest())
    assert (ledger.samples, ledger.reasons) == (7, {"timeout": 3, "open_error": 1})
    factory.tried.clear()
    return out


def is_sound(out: Path) -> bool:
    verdict = verify(out, deep=True, progress=None)
    assert not verdict.corrupt
    return verdict.exit_code == ExitCode.OK


def test_what_succeeds_now_is_in_new_shards_and_the_old_ones_are_untouched(made, factory):
    before, numbers = marks(made), pq.read_table(made / "manifest.parquet")
    factory.faults = {"demo/slow2": Reason.CRASH, "demo/bad": Reason.OPEN_ERROR}
    outcome = retry(made, "timeout", JOB, say)
    assert outcome.exit_code == 0
    assert "of the rows tried again 2 are samples now and 1 failed again" in outcome.lines
    assert kept(before, made)
    assert sorted(factory.tried) == ["demo/held2", "demo/slow1", "demo/slow2"]
    new = {name for name in marks(made) if name not in before}
    assert new == {
        f"{split}-p000000.{kind}" for split in ("train", "val") for kind in ("tar", "json")
    }
    samples, errors = table(made, "samples"), table(made, "errors")
    assert samples.keys() | errors.keys() == ALL and not samples.keys() & errors.keys()
    assert {key: (row["reason"], row["shard"]) for key, row in errors.items()} == {
        "demo/slow2": ("crash", "train-p000000"),
        "demo/bad": ("open_error", errors["demo/bad"]["shard"]),
    }
    assert errors["demo/slow2"]["tries"] == 2
    assert clips_in_tars(made) == dict.fromkeys(samples, 1)
    instance_of = dict(
        zip(numbers["key"].to_pylist(), numbers["instance"].to_pylist(), strict=True)
    )
    assert {key: row["instance"] for key, row in samples.items()} == {
        key: instance_of[key] for key in samples
    }
    assert counts(made) == {"planned": 11, "samples": 9, "errors": 2, "not_run": 0}
    assert pq.read_table(made / "manifest.parquet").equals(numbers)
    assert is_sound(made)


def test_those_who_only_look_count_every_row_once(made, factory):
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    state = status(made)
    assert (state.samples, state.errors, state.rows, state.planned_rows) == (10, 1, 11, 11)
    assert state.reasons == {"open_error": 1}
    assert (state.shards, state.seconds) == (state.planned_shards, 10.0)
    assert "slow1" in peek(made, ["demo/slow1"])[0]
    page = write_page(made).read_text()
    assert "The ledger closes" in page
    assert "timeout" not in page
    clips = open_shards(LocalStore(made))
    assert sorted(clips.keys.take(clips.in_split("val")).to_pylist()) == [
        "demo/held1",
        "demo/held2",
    ]
    assert sorted(clips.instance.tolist()) == sorted(
        row["instance"] for row in table(made, "samples").values()
    )


def test_a_second_retry_patches_again_and_a_third_has_nothing_to_do(made, factory):
    factory.faults = {"demo/slow2": Reason.TIMEOUT, "demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    before = marks(made)
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    assert kept(before, made)
    assert table(made, "samples")["demo/slow2"]["shard"] == "train-p000001"
    assert counts(made) == {"planned": 11, "samples": 10, "errors": 1, "not_run": 0}
    assert is_sound(made)
    everything = marks(made)
    outcome = retry(made, "timeout", JOB, say)
    assert outcome.exit_code == 0
    assert outcome.lines[0].startswith("no committed shard has rows that ended as timeout; `python")
    assert marks(made) == everything


@pytest.mark.parametrize("shard", ["train-p000000", "val-p000000"])
@pytest.mark.parametrize("again", ["shards", "retry"])
def test_a_retry_that_is_killed_is_ended_by_any_job(made, factory, shard, again):
    before = marks(made)
    factory.faults, factory.stops_before = {"demo/bad": Reason.OPEN_ERROR}, shard
    with pytest.raises(KeyboardInterrupt):
        retry(made, "timeout", JOB, say)
    assert kept(before, made)
    verdict = verify(made, progress=None)
    assert (verdict.corrupt, verdict.exit_code) == ([], ExitCode.INCOMPLETE)
    assert status(made).rows < 11
    finalize_folder(made, partial=True)
    assert counts(made)["not_run"] == 11 - counts(made)["samples"] - 1
    assert sum(counts(made)[name] for name in ("samples", "errors")) == 11
    factory.stops_before = ""
    if again == "shards":
        factory.make(made, manifest())
    else:
        assert retry(made, "timeout", JOB, say).exit_code == 0
    assert kept(before, made)
    assert sorted(factory.tried) == ["demo/held2", "demo/slow1", "demo/slow2"]
    assert counts(made) == {"planned": 11, "samples": 10, "errors": 1, "not_run": 0}
    assert is_sound(made)


def test_a_retry_that_is_killed_behind_its_last_patch_is_ended_by_itself(
    made, factory, monkeypatch
):
    """There is no row left to try, but index and tables know nothing of the patches."""
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.retry.write_tables", Mock(side_effect=KeyboardInterrupt))
        retry(made, "timeout", JOB, say)
    outcome = retry(made, "timeout", JOB, say)
    assert outcome.exit_code == 0
    assert outcome.lines[0].startswith("index and tables lacked what an earlier retry had made")
    assert counts(made) == {"planned": 11, "samples": 10, "errors": 1, "not_run": 0}
    assert is_sound(made)
    assert len(retry(made, "timeout", JOB, say).lines) == 1


def test_an_old_shard_that_is_made_again_leaves_patched_rows_alone(made, factory):
    before = marks(made)
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    for name in before:
        if name.endswith(".tar"):
            (made / "shards" / name).unlink()
    factory.make(made, manifest())
    tars = {name: mark[2] for name, mark in before.items() if name.endswith(".tar")}
    assert {name: mark[2] for name, mark in marks(made).items() if name in tars} == tars
    assert clips_in_tars(made) == dict.fromkeys(ALL - {"demo/bad"}, 1)
    assert is_sound(made)


def test_rows_appended_later_come_behind_and_touch_neither_shards_nor_patches(made, factory):
    import pyarrow as pa

    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    before = marks(made)
    factory.add("new1", "new2")
    factory.make(made, pa.concat_tables([manifest(), rows("new1", "new2")]))
    assert kept(before, made)
    samples = table(made, "samples")
    assert {samples[f"demo/new{n}"]["instance"] for n in (1, 2)} == {11, 12}
    assert counts(made) == {"planned": 13, "samples": 12, "errors": 1, "not_run": 0}
    assert is_sound(made)


def test_a_changed_row_of_a_patch_is_made_again_there(made, factory):
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    factory.tried.clear()
    changed = manifest().to_pylist()
    for row in changed:
        row["transcript"] = "said" if row["key"] == "demo/slow1" else row["transcript"]
    factory.make(made, schema.table(changed))
    assert "demo/slow1" in factory.tried and "demo/held2" not in factory.tried
    assert table(made, "samples")["demo/slow1"]["shard"] == "train-p000000"
    assert clips_in_tars(made) == dict.fromkeys(ALL - {"demo/bad"}, 1)
    assert is_sound(made)


@pytest.mark.parametrize("touched", [False, True])
def test_a_mended_file_that_was_tried_again_is_left_to_its_patch(made, factory, touched):
    """Unless it has changed once more since."""
    factory.faults = {}
    (factory.root / "bad.mp4").write_bytes(b"mended")
    retry(made, "open_error", JOB, say)
    before = marks(made)
    factory.tried.clear()
    size = len(b"mended") + touched
    (factory.root / "bad.mp4").write_bytes(b"m" * size)
    changed = manifest().to_pylist()
    for row in changed:
        row["bytes"] = size if row["key"] == "demo/bad" else row["bytes"]
    for _ in range(2):
        factory.make(made, schema.table(changed))
    assert ("demo/bad" in factory.tried) == touched
    assert kept(before, made) != touched
    assert table(made, "samples")["demo/bad"]["shard"] == "train-p000000"
    assert is_sound(made)


def test_a_lost_manifest_is_the_same_again(made, factory):
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    (made / "shards/train-000000.json").unlink()
    factory.make(made, manifest())  # this sidecar names rows that a patch has
    before = pq.read_table(made / "manifest.parquet")
    files = marks(made)
    (made / "manifest.parquet").unlink()
    factory.make(made, manifest())
    assert pq.read_table(made / "manifest.parquet").equals(before)
    assert kept(files, made)
    assert is_sound(made)


def test_a_lost_manifest_makes_no_shard_of_a_mended_file_again(made, factory):
    """What its row said of it before is known nowhere else."""
    factory.faults = {}
    (factory.root / "bad.mp4").write_bytes(b"mended")
    retry(made, "open_error", JOB, say)
    before, files = pq.read_table(made / "manifest.parquet"), marks(made)
    today = [
        {**row, "bytes": len(b"mended") if row["key"] == "demo/bad" else row["bytes"]}
        for row in manifest().to_pylist()
    ]
    factory.tried.clear()
    (made / "manifest.parquet").unlink()
    factory.make(made, schema.table(today))
    assert factory.tried == []
    assert kept(files, made)
    assert pq.read_table(made / "manifest.parquet").equals(before)
    assert is_sound(made)


def test_a_damaged_patch_is_found_and_made_again(made, factory):
    factory.faults = {"demo/bad": Reason.OPEN_ERROR}
    retry(made, "timeout", JOB, say)
    whole = marks(made)["train-p000000.tar"][2]
    tar = made / "shards/train-p000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    verdict = verify(made, progress=None)
    assert verdict.exit_code == ExitCode.CORRUPT
    assert "train-p000000" in verdict.corrupt[0]
    tar.with_suffix(".json").unlink()
    factory.make(made, manifest())
    assert marks(made)["train-p000000.tar"][2] == whole
    assert is_sound(made)


def test_a_sidecar_that_left_out_a_row_nobody_has_is_found_and_made_again(made, factory):
    """As after the loss of a plan: the row must not vanish from both sides of the ledger."""
    path = next(p for p in sorted((made / "shards").glob("train-0*.json"))
                if b'"demo/slow1"' in p.read_bytes())  # fmt: skip
    stored = json.loads(path.read_text())
    stored["errors"] = [error for error in stored["errors"] if error["key"] != "demo/slow1"]
    path.write_text(json.dumps({**stored, "left_out": ["demo/slow1"]}, separators=(",", ":")))
    verdict = verify(made, progress=None)
    assert any("which no patch has and nobody took back" in said for said in verdict.corrupt)
    factory.faults.pop("demo/slow1")
    ledger = factory.make(made, manifest())
    assert ledger.closes
    assert "demo/slow1" in table(made, "samples")


def test_a_plan_without_patches_says_nothing_of_them(made, factory):
    """So that sets made before are read, and these by programs of before."""
    assert "patches" not in json.loads((made / "plan.json").read_text())
    retry(made, "timeout", JOB, say)
    stored = json.loads((made / "plan.json").read_text())
    assert [patch["keys"] for patch in stored["patches"]][1] == ["demo/held2"]
    assert Outputs(made).plan == prepare(made, factory.wish(manifest())).plan


def test_the_whole_command(made, factory, monkeypatch, capsys):
    from pipeline.__main__ import main

    factory.faults = {}
    arguments = ["retry", str(made), "--reason", "timeout", "--executor", "local"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "trying again 3 rows that failed, in 2 new shards" in capsys.readouterr().out
