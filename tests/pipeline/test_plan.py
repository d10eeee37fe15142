"""The plan is a function of the rows: stable when they are shuffled, grown, changed or limited."""

import random
import re
import time
from itertools import pairwise

import pytest

from manifests import schema
from pipeline.format import base_name
from pipeline.plan import Plan, guess_note, plan_rows


def rows(count, *, windows=1, splits=lambda file: [], dataset="folder"):
    """Manifest rows: `count` files with some windows each."""
    return schema.table(
        {
            "dataset": dataset, "key": f"{file:06}_{window}", "uri": f"{file:06}.mp4",
            "source_id": str(file), "group_id": str(file), "start_s": window * 10.0,
            "end_s": window * 10.0 + 10, "splits": splits(file), "bytes": 1000,
        }
        for file in range(count) for window in range(windows)
    )  # fmt: skip


def planned(table, *, seconds=60.0, limit=None, before=None):
    done, parts, _ = plan_rows(
        table, seconds_per_shard=seconds, limit=limit, config_hash="c", before=before
    )
    return done, Plan("folder", "glcm", "x", "c", "/", seconds, tuple(parts), len(done))


def fingerprints(table):
    return [shard.fingerprint for shard in planned(table)[1].shards]


def test_the_order_of_the_rows_does_not_matter():
    table = rows(40, windows=3)
    shuffled = table.take(random.Random(1).sample(range(len(table)), len(table)))
    assert planned(table)[0].equals(planned(shuffled)[0])
    assert planned(table)[1] == planned(shuffled)[1]


def test_no_file_is_cut_in_two_and_its_windows_are_in_order():
    table, plan = planned(rows(30, windows=4))
    assert len(plan.shards) > 5
    shard_of: dict[str, set[str]] = {}
    for row in table.to_pylist():
        shard_of.setdefault(row["uri"], set()).add(row["plan_shard"])
    assert {len(shards) for shards in shard_of.values()} == {1}
    uris = table["uri"].to_pylist()
    assert len([1 for a, b in pairwise(uris) if a != b]) == 29
    starts = [row["start_s"] for row in table.to_pylist() if row["uri"] == uris[0]]
    assert starts == sorted(starts)


def test_instances_number_the_rows_and_shards_tile_them():
    table, plan = planned(rows(50))
    assert table["instance"].to_pylist() == list(range(50))
    ends = [shard.first_row + shard.rows for shard in plan.shards]
    assert [shard.first_row for shard in plan.shards] == [0, *ends[:-1]]
    assert ends[-1] == 50


def test_splits_that_share_a_row_share_a_part_and_others_do_not():
    names = {0: ["a:train"], 1: ["a:val"], 2: ["b:fold1"], 3: ["b:fold1", "b:fold2"], 4: []}
    table, plan = planned(rows(50, splits=lambda file: names[file % 5]))
    assert sorted(part.name for part in plan.parts) == ["all", "train", "val"]
    part_of = {(tuple(r["splits"]), r["plan_part"]) for r in table.to_pylist()}
    assert (("b:fold1",), "all") in part_of
    assert (("b:fold1", "b:fold2"), "all") in part_of
    assert len(part_of) == 5


def test_appended_rows_leave_old_shards_and_instances_alone():
    _, first = planned(rows(20))
    fresh = rows(30).slice(20)
    added, grown = planned(fresh, before=first)
    assert added["instance"].to_pylist() == list(range(20, 30))
    names = [shard.name for shard in (*first.shards, *grown.shards)]
    assert len(set(names)) == len(names)
    assert grown.parts[0].name == "all.1"
    assert grown.shards[0].first_row == 20


def test_equal_rows_have_equal_fingerprints_however_they_came_to_be():
    """Arrow keeps something below a null struct, or nothing: no shard is made again for that."""
    table = rows(30)
    assert fingerprints(schema.table(table.to_pylist())) == fingerprints(table)


def test_a_changed_row_changes_the_fingerprint_of_its_shard_alone():
    table = rows(30)
    at = table["key"].to_pylist().index("000007_0")
    changed = table.to_pylist()
    changed[at]["label_names"] = ["other"]
    marks = [fingerprints(table), fingerprints(schema.table(changed))]
    assert sum(a != b for a, b in zip(*marks, strict=True)) == 1


def test_the_limit_plans_that_many_rows_and_keeps_the_rest():
    table, plan = planned(rows(30), limit=7)
    assert (plan.rows_in_shards, len(table)) == (7, 30)
    assert table["plan_shard"].null_count == 23
    everything = planned(rows(30))[0]
    assert set(table["key"].to_pylist()[:7]) == set(everything["key"].to_pylist()[:7])


def test_a_limited_plan_has_the_shards_of_the_whole_one():
    table = rows(200, splits=lambda file: [("a:train", "a:val")[file % 10 == 0]])
    whole, parts, seconds = plan_rows(table, seconds_per_shard=None, limit=None, config_hash="c")
    some, first, same = plan_rows(table, seconds_per_shard=None, limit=90, config_hash="c")
    assert seconds == same == 2000 / 16
    for part in first:
        full = next(other for other in parts if other.name == part.name)
        last = len(part.shards) - 1
        assert [shard.rows for shard in part.shards[:last]] == [
            shard.rows for shard in full.shards[:last]
        ]
        assert part.shards[last].rows <= full.shards[last].rows
    shard_of = dict(zip(whole["key"].to_pylist(), whole["plan_shard"].to_pylist(), strict=True))
    limited = some.slice(0, 90)
    assert {key: shard_of[key] for key in limited["key"].to_pylist()} == dict(
        zip(limited["key"].to_pylist(), limited["plan_shard"].to_pylist(), strict=True)
    )


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((10, 20), ""),
        ((10, None), " (estimated for 1 of 2)"),
        ((None, None), " (estimated)"),
    ],
)
def test_lengths_that_are_guesses_are_counted(ends, said):
    table = schema.table(
        {"dataset": "folder", "key": f"k{end}{n}", "uri": "x.mp4", "end_s": end}
        for n, end in enumerate(ends)
    )
    assert guess_note(table) == said
    promised = {"duration_s": 4.0}
    assert guess_note(schema.table([{"key": "a", "uri": "a.mp4", "expect": promised}])) == ""


def test_a_plan_survives_being_stored():
    _, plan = planned(rows(10))
    assert Plan.from_dict(plan.as_dict()) == plan


def test_two_hundred_thousand_rows_are_planned_quickly():
    table = rows(100_000, windows=2, splits=lambda file: ["k:train" if file % 10 else "k:val"])
    started = time.process_time()
    _, plan = planned(table, seconds=1000.0)
    assert time.process_time() - started < 20
    assert plan.rows_in_shards == 200_000


KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def random_keys(count):
    """Keys as the schema allows them, those that are easily mistaken for each other included."""
    chance = random.Random(0)
    yield from ("a/b", "a--b", "a/-b", "a-/b", "a-b", "a/b--c", "a--b/c", "x" * 80, "x" * 81)
    yield from ("/".join(["ab"] * 27), "/".join(["ab"] * 40), "a" * 300, "-", "--", "-/-")
    for _ in range(count):
        yield "".join(chance.choices("ab-/_0", k=chance.randint(1, 120)))


def test_base_names_differ_have_no_dot_and_fit_a_tar():
    keys = {key for key in random_keys(20_000) if KEY.fullmatch(key)}
    names = [base_name(key) for key in keys]
    assert len(keys) > 500
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,85}", name) for name in names)


@pytest.mark.parametrize(("key", "name"), [("grid/s1/bbaf2n", "grid--s1--bbaf2n"), ("a", "a")])
def test_plain_keys_stay_readable(key, name):
    assert base_name(key) == name
