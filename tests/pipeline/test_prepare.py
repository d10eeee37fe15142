"""What is refused before any work, in words: flags, manifests, other configurations, no data."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.options import ShardsOptions
from pipeline.prepare import Wish, load, prepare
from pipeline.settings import job_options, shard_config
from tests.pipeline.clips import make_clip
from tests.pipeline.rows import manifest as rows

CONFIG = replace(PROFILES["glcm"], faces="off")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-shortest")


def wish(table, **more):
    return Wish(table, "folder", "/raw", "", (), CONFIG, **{"seconds_per_shard": 1.0, **more})


# --- flags ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"profile": "x"}, "unknown profile 'x'; known: glcm, loc, lips"),
        ({"fps": "12"}, "mel_rate_hz is 22050 Hz.*--fps takes 1, 2, 3, 5, 6, 7, 10,"),
        ({"fps": "0"}, "fps is 0"),
        ({"fps": "ten"}, "--fps is 'ten'; expected frames a second"),
        ({"fps": "1/0"}, "--fps is '1/0'; expected frames a second"),
        ({"min_seconds": "0"}, "min_seconds is 0; expected a length above 0 s"),
        ({"min_seconds": "short"}, "--min-seconds is 'short'; expected seconds above 0"),
        ({"faces": "maybe"}, "expected one of .*auto.*on.*off"),
        ({"dataset": "nosuch"}, "unknown data set 'nosuch'; known: .*kinetics400"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_what_can(flags, words):
    with pytest.raises(UsageError, match=words):
        shard_config(ShardsOptions(**{"dataset": "folder", **flags}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"executor": "dask"}, "expected ray or local"),
        ({"workers": 0}, "at least 1"),
        ({"task": "4/4"}, "I from 0 to N-1"),
        ({"task": "x"}, "I/N"),
        ({"max_error_rate": 1.5}, "0 to 1"),
        ({"limit": 0}, "--limit 0"),
        ({"limit": -3}, "--limit -3"),
        ({"seconds_per_shard": 0.0}, "--seconds-per-shard 0.0"),
        ({"seconds_per_shard": float("nan")}, "--seconds-per-shard nan"),
        ({"timeout": -1.0}, "--timeout -1.0"),
        ({"max_clip_seconds": float("inf")}, "--max-clip-seconds inf"),
    ],
)
def test_a_job_that_cannot_be_is_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        job_options(ShardsOptions("folder", **flags))


def test_the_shortest_clip_is_a_setting_of_the_set():
    usual = shard_config(ShardsOptions("folder"))
    assert usual == shard_config(ShardsOptions("folder", min_seconds="1"))
    assert shard_config(ShardsOptions("folder", min_seconds="0.4")).min_seconds == Fraction(2, 5)


# --- what was planned before ------------------------------------------------------------------


def test_another_config_is_refused_with_both_values_and_touches_nothing(tmp_path):
    prepare(tmp_path, wish(rows("a", "b")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = replace(wish(rows("a", "b")), config=replace(CONFIG, short_side=96, jpeg_quality=80))
    with pytest.raises(UsageError, match=r"short_side: 128 -> 96; jpeg_quality: 90 -> 80"):
        prepare(tmp_path, other)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_another_data_set_is_refused_and_touches_nothing(tmp_path):
    prepare(tmp_path, wish(rows("a", "b")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = replace(wish(rows("c", dataset="table")), dataset="table")
    with pytest.raises(UsageError, match="holds folder, not table"):
        prepare(tmp_path, other)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_overwrite_starts_anew(tmp_path):
    prepare(tmp_path, wish(rows("a", "b")))
    (tmp_path / "shards" / "all-000000.tar").write_bytes(b"old")
    other = replace(wish(rows("a")), config=replace(CONFIG, short_side=96), overwrite=True)
    assert prepare(tmp_path, other).config.short_side == 96
    assert not list((tmp_path / "shards").iterdir())


def test_the_same_wish_changes_nothing(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c")))
    stamp = (tmp_path / "plan.json").stat().st_mtime_ns
    again = prepare(tmp_path, wish(rows("a", "b", "c")))
    assert again.plan == first.plan
    assert (tmp_path / "plan.json").stat().st_mtime_ns == stamp


def test_appended_rows_are_new_shards_with_new_instances(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c")))
    grown = prepare(tmp_path, wish(rows("a", "b", "c", "d", "e")))
    assert grown.plan.shards[: len(first.plan.shards)] == first.plan.shards
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert table["instance"].to_pylist() == list(range(5))
    assert set(table["key"].to_pylist()[3:]) == {"d", "e"}


def test_the_rows_keep_what_the_manifest_says_of_its_making(tmp_path):
    def said(text):
        return rows(*"abc"[: len(text)]).replace_schema_metadata({"glav": text})

    def kept():
        return pq.read_schema(tmp_path / "manifest.parquet").metadata[b"glav"]

    prepare(tmp_path, wish(said("1")))
    assert kept() == b"1"
    prepare(tmp_path, wish(said("12")))
    assert kept() == b"12"
    changed = rows("a", "b", transcript="new").replace_schema_metadata({"glav": "changed"})
    prepare(tmp_path, wish(changed))
    assert kept() == b"changed"


def test_a_changed_row_marks_its_own_shard_only(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c", "d")))
    changed = pa.concat_tables([rows("a", "b", "c"), rows("d", transcript="new")])
    grown = prepare(tmp_path, wish(changed.unify_dictionaries()))
    pairs = zip(first.plan.shards, grown.plan.shards, strict=True)
    assert sum(a.fingerprint != b.fingerprint for a, b in pairs) == 1
    assert "rows have changed: 1 shard" in grown.note
    again = prepare(tmp_path, wish(changed.unify_dictionaries()))
    assert again.plan == grown.plan


def test_vanished_rows_stay_planned_and_are_said(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c")))
    less = prepare(tmp_path, wish(rows("a", "c")))
    assert less.plan == first.plan
    assert "1 planned row no longer in the manifest" in less.note


def test_class_names_outlive_their_last_row(tmp_path):
    named = wish(rows("a", labels=[0], label_names=["cat"]))
    prepare(tmp_path, replace(named, labels=("cat",)))
    prepare(tmp_path, wish(rows("b")))
    assert (tmp_path / "labels" / "folder.json").read_text() == '["cat"]'


def test_a_limit_can_be_lifted_step_by_step(tmp_path):
    names = [f"k{number}" for number in range(9)]
    counts = []
    for limit in (3, 5, None):
        prepared = prepare(tmp_path, wish(rows(*names), limit=limit))
        counts.append(prepared.plan.rows_in_shards)
        assert prepared.plan.planned_rows == 9
    assert counts == [3, 5, 9]
    assert pq.read_table(tmp_path / "manifest.parquet")["instance"].to_pylist() == list(range(9))


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ({}, {"seconds_per_shard": 6.0}, r"shards of 1 s, not 6 \(--seconds-per-shard\)"),
        ({"seconds_per_shard": None}, {"seconds_per_shard": 6.0}, r"shards of 20 s, not 6"),
        ({}, {"limit": 2}, r"plans 3 clips, more than --limit 2"),
        (
            {"limit": 2},
            {"limit": 1},
            r"plans 2 clips, more than --limit 1\..* give --limit 2 or more, or none for all",
        ),
    ],
)
def test_another_cut_of_the_same_rows_is_refused_and_touches_nothing(tmp_path, first, then, words):
    prepare(tmp_path, wish(rows("a", "b", "c"), **first))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=words) as refused:
        prepare(tmp_path, wish(rows("a", "b", "c", "d"), **first | then))
    assert "--overwrite" in str(refused.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_cut_that_is_not_named_again_stays_as_it_is(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c"), seconds_per_shard=6.0))
    again = prepare(tmp_path, wish(rows("a", "b", "c"), seconds_per_shard=None))
    assert again.plan == first.plan


def test_other_limits_of_made_shards_are_said_with_the_way_to_apply_them(tmp_path):
    prepare(tmp_path, wish(rows("a", "b"), limits=Limits(max_clip_seconds=20.0)))
    again = prepare(tmp_path, wish(rows("a", "b"), limits=Limits(max_clip_seconds=30.0)))
    assert "max_clip_seconds 20.0 -> 30.0" in again.note
    assert "`python -m pipeline retry" in again.note


def test_new_rows_under_a_limit_wait_with_the_others(tmp_path):
    first = prepare(tmp_path, wish(rows("a", "b", "c"), limit=2))
    grown = prepare(tmp_path, wish(rows("a", "b", "c", "d"), limit=2))
    assert grown.plan.shards == first.plan.shards
    assert grown.plan.planned_rows == 4


def test_a_folder_without_a_plan_says_what_makes_one(tmp_path):
    with pytest.raises(UsageError, match=r"no plan\.json.*python -m pipeline shards"):
        load(tmp_path)


# --- manifests and the command line -----------------------------------------------------------


def shards(tmp_path, *flags):
    command = [
        sys.executable, "-m", "pipeline", "shards", "--data", tmp_path / "data",
        "--executor", "local", "--faces", "off", *flags,
    ]  # fmt: skip
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=280)


def test_a_manifest_of_ones_own_is_used_as_it_is(tmp_path):
    make_clip(tmp_path / "a.mp4", seconds=1.5, size="64x48", options=X264)
    pq.write_table(rows("a", "gone"), tmp_path / "m.parquet")
    flags = ("--manifest", tmp_path / "m.parquet", "--root", tmp_path, "--out", tmp_path / "out")
    done = shards(tmp_path, "--dataset", "folder", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()
    assert [(row["key"], row["reason"]) for row in errors] == [("gone", "missing_file")]


def test_without_data_the_command_teaches(tmp_path):
    done = shards(tmp_path, "--dataset", "kinetics")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in ("kinetics400", "make shards DATASET=kinetics400 ROOT=", str(tmp_path / "data")):
        assert words in done.stderr


def test_without_a_data_set_the_command_says_that_it_needs_one(tmp_path):
    done = shards(tmp_path)
    assert done.returncode == 2
    assert "--dataset" in done.stderr


def test_plan_says_by_which_reason_rows_without_a_file_will_fail(tmp_path):
    """Its reasons are those that `shards` then gives."""
    make_clip(tmp_path / "a.mp4", seconds=1.5, size="64x48", options=X264)
    table = tmp_path / "t.csv"
    table.write_text("path\na.mp4\ngone.mp4\nalso/gone.mp4\nhttp://host/x.mp4\n../up.mp4\n")
    flags = ("--dataset", "table", "--table", table, "--root", tmp_path, "--out", tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "plan", *map(str, flags), "--faces", "off"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "will fail for want of a file: bad_path 2, missing_file 2\n" in done.stdout, done.stderr
    done = shards(tmp_path, *flags)
    assert "rows without file (will end as missing_file, odd paths as bad_path): 4" in done.stdout
    errors = pq.read_table(tmp_path / "out" / "errors.parquet")["reason"].to_pylist()
    assert sorted(errors) == ["bad_path"] * 2 + ["missing_file"] * 2
