"""Lost and damaged files of an output folder: verify says what helps, and that helps."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import schema
from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.commands import COMMANDS
from pipeline.format import FormatError
from pipeline.index import finalize
from pipeline.make import finalize_folder, make_shards, write_page
from pipeline.options import ShardsOptions
from pipeline.outputs import NotFinishedError
from pipeline.prepare import Wish, load, prepare
from pipeline.verify import ExitCode, verify
from tests.pipeline.clips import make_clip

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-shortest")
CONFIG = replace(PROFILES["glcm"], faces="off")
FIRST = ("manifest.parquet", "config.json", "labels/folder.json")
"""Written by the plan; `shards` makes them again."""
LAST = ("shardindex.json", "samples.parquet", "errors.parquet")
"""Written from the sidecars; `finalize` makes them again."""
DAMAGES = {
    "lost": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x93\x1b[31m garbage \xff" * 50),
}


def options(root, out, **more):
    return ShardsOptions(
        "folder", root=str(root), out=str(out), faces="off", executor="local", workers=1, **more
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of clips in two classes and of one bad file, and its finished set."""
    place = tmp_path_factory.mktemp("mend")
    for name in ("b/one.mp4", "b/two.mp4", "c/three.mp4"):
        path = place / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, seconds=2, size="64x48", options=X264)
    (place / "raw" / "bad.mp4").write_bytes(b"no video")
    asked = options(place / "raw", place / "out", seconds_per_shard=0.1)
    assert make_shards(asked, lambda line: None).exit_code == 0
    assert len(list((place / "out" / "shards").glob("*.tar"))) > 1
    return place


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made / "out", tmp_path / "out")


def content(out):
    """Everything a set says, apart from times, hosts and the page."""
    tars = {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in out.glob("shards/*")}
    tables = {name: pq.read_table(out / name).to_pylist() for name in (FIRST[0], *LAST[1:])}
    texts = {name: json.loads((out / name).read_bytes()) for name in (*FIRST[1:], LAST[0])}
    return tars, tables, texts


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FIRST)
def test_what_the_plan_wrote_is_made_again_by_shards(made, copy, name, damage):
    whole = content(copy)
    DAMAGES[damage](copy / name)
    if name == "config.json":
        with pytest.raises(
            (NotFinishedError, FormatError), match=r"config\.json .*shards` command"
        ):
            verify(copy, progress=None)
    else:
        for deep in (False, True):
            verdict = verify(copy, deep, progress=None)
            expected = ExitCode.INCOMPLETE if damage == "lost" else ExitCode.CORRUPT
            assert verdict.exit_code == expected
            assert len(verdict.corrupt + verdict.missing) == 1
            assert name in (verdict.corrupt + verdict.missing)[0]
            assert verdict.lines()[-1].endswith(
                "; run the `python -m pipeline shards` command of this set again"
            )
    said: list[str] = []
    outcome = make_shards(options(made / "raw", copy), said.append)
    assert outcome.exit_code == 0
    assert any("shards kept, 0 made" in line for line in outcome.lines)
    assert any("is made again" in line for line in said) == (name != "labels/folder.json")
    assert content(copy) == whole
    assert verify(copy, deep=True, progress=None).exit_code == ExitCode.OK


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", LAST)
def test_what_was_written_last_is_made_again_by_finalize(copy, name, damage):
    whole = content(copy)
    DAMAGES[damage](copy / name)
    verdict = verify(copy, progress=None)
    assert verdict.exit_code == (ExitCode.INCOMPLETE if damage == "lost" else ExitCode.CORRUPT)
    assert name in " ".join(verdict.corrupt + verdict.missing)
    assert verdict.lines()[-1].endswith(f"; run `python -m pipeline finalize {copy}`")
    assert finalize_folder(copy, partial=False).exit_code == 0
    assert content(copy) == whole
    assert verify(copy, deep=True, progress=None).exit_code == ExitCode.OK


def test_a_damaged_shard_and_a_stray_one_have_advice_of_their_own(made, copy):
    tars = sorted(copy.glob("shards/*.tar"))
    tars[0].write_bytes(tars[0].read_bytes()[:-512])
    assert verify(copy, progress=None).lines()[-1] == (
        "corrupt; remove the sidecars of the shards named, then run the `python -m pipeline "
        "shards` command of this set again"
    )
    tars[0].with_suffix(".json").unlink()
    make_shards(options(made / "raw", copy), lambda line: None)
    stray = copy / "shards" / "stray.tar"
    shutil.copy(tars[1], stray)
    said = verify(copy, progress=None).lines()[-1]
    assert said == "corrupt; remove the tars that are not in the plan"
    stray.unlink()
    assert verify(copy, deep=True, progress=None).exit_code == ExitCode.OK


@pytest.mark.parametrize("damage", ["empty", "garbage"])
def test_a_damaged_plan_says_what_helps_and_that_helps(made, copy, damage):
    whole = content(copy)
    DAMAGES[damage](copy / "plan.json")
    again = options(made / "raw", copy)
    for command in (
        lambda: verify(copy, progress=None),
        lambda: load(copy),
        lambda: make_shards(again, lambda line: None),
    ):
        with pytest.raises(FormatError, match=r"plan\.json is not JSON.*remove it and run"):
            command()
    (copy / "plan.json").unlink()
    asked = options(made / "raw", copy, seconds_per_shard=0.1)
    assert make_shards(asked, lambda line: None).exit_code == 0
    assert content(copy) == whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["plan.json", *FIRST, *LAST])
def test_no_command_ends_in_a_traceback(copy, name, damage):
    """Every command says a sentence that names the file, or does without it."""
    DAMAGES[damage](copy / name)
    calls: dict[str, dict[str, Any]] = {
        "status": {}, "verify": {}, "peek": {}, "errors": {}, "report": {}, "finalize": {},
        "retry": {"reason": "no_audio", "executor": "local", "workers": 1},
    }  # fmt: skip
    commands: dict[str, Any] = dict(COMMANDS)
    for command, arguments in calls.items():
        try:
            commands[command](str(copy), **arguments)
        except (UsageError, FormatError, NotFinishedError) as error:
            assert name in str(error), command
            assert max(Counter(str(error).split("; ")).values()) == 1  # nothing is advised twice
            assert str(error).isprintable()


def test_the_command_line_says_it_in_one_line(copy):
    (copy / "errors.parquet").write_bytes(b"garbage")
    command = [sys.executable, "-m", "pipeline", "errors", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith(f"error: {copy}/errors.parquet cannot be read")
    assert done.stderr.rstrip().endswith(f"`python -m pipeline finalize {copy}` writes it")
    assert done.stderr.count("\n") == 1


def test_a_lost_manifest_and_other_data_are_refused(made, copy, tmp_path):
    (copy / "manifest.parquet").unlink()
    raw = shutil.copytree(made / "raw", tmp_path / "raw")
    (raw / "b" / "two.mp4").unlink()
    with pytest.raises(UsageError, match=r"manifest\.parquet is not there.*--overwrite"):
        make_shards(options(raw, copy), lambda line: None)
    assert not (copy / "manifest.parquet").exists()


def test_a_lost_config_and_another_one_are_refused(made, copy):
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json is not there.*repeat the flags"):
        make_shards(options(made / "raw", copy, fps="25"), lambda line: None)
    assert not (copy / "config.json").exists()


def test_lost_class_names_keep_their_numbers(made, copy, tmp_path):
    """A class that sorts before the others came later: its number is the last one."""
    raw = shutil.copytree(made / "raw", tmp_path / "raw")
    (raw / "a").mkdir()
    shutil.copy(raw / "b" / "one.mp4", raw / "a" / "four.mp4")
    make_shards(options(raw, copy), lambda line: None)
    whole = content(copy)
    for lost in (["labels/folder.json"], ["labels/folder.json", "shardindex.json"],
                 ["labels/folder.json", "manifest.parquet"]):  # fmt: skip
        for name in lost:
            (copy / name).unlink()
        make_shards(options(raw, copy), lambda line: None)
        assert content(copy) == whole, lost
    assert json.loads((copy / "labels/folder.json").read_bytes()) == ["b", "c", "a"]


# --- plans that grew --------------------------------------------------------------------------


def rows(numbers, **more):
    """Two windows of each file."""
    return schema.table(
        {
            "dataset": "folder", "key": f"{n}_{window}", "uri": f"{n}.mp4", "source_id": str(n),
            "group_id": str(n), "start_s": 10.0 * window, "end_s": 10.0 * window + 10,
            "bytes": 1000, "splits": [f"x:{('train', 'val')[n % 2]}"], **more,
        }
        for n in numbers for window in range(2)
    )  # fmt: skip


def wish(table, **more):
    return Wish(table, "folder", "/raw", "", (), CONFIG, **{"seconds_per_shard": 40.0, **more})


def commit(out, shard):
    """A sidecar as the job leaves one, every second row an error."""
    prepared = load(out)
    planned = prepared.rows.read(shard.first_row, shard.rows)
    empty = {"samples": [], "errors": [{"key": row["key"]} for row in planned[1::2]]}
    sidecar = {
        "schema": 1, "shard": shard.name, "url": f"{shard.name}.tar", "rows": shard.rows,
        "nsamples": 0, "filesize": 0, "md5": "", "sha256": "", "fingerprint": shard.fingerprint,
        "config_hash": prepared.config_hash, "seconds": 0.0, "run": {}, **empty,
        "samples": [{"key": row["key"]} for row in planned[::2]],
    }  # fmt: skip
    (out / "shards" / f"{shard.name}.json").write_text(json.dumps(sidecar))
    (out / "shards" / f"{shard.name}.tar").touch()


def keys_of(out, shard):
    return [row["key"] for row in load(out).rows.read(shard.first_row, shard.rows, ["key"])]


def test_the_manifest_of_a_plan_nobody_has_begun_is_the_same_again(tmp_path):
    for limit in (None, 12):
        out = tmp_path / str(limit)
        prepare(out, wish(rows(range(20)), limit=limit))
        before = pq.read_table(out / "manifest.parquet")
        (out / "manifest.parquet").unlink()
        again = prepare(out, wish(rows(range(20)), limit=limit))
        planned = again.plan.rows_in_shards
        after = pq.read_table(out / "manifest.parquet")
        assert after.slice(0, planned).equals(before.slice(0, planned))
        assert sorted(after["key"].to_pylist()) == sorted(before["key"].to_pylist())
        assert "shards have other rows" not in again.note


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_that_grew_keeps_every_committed_shard(tmp_path, seed):
    """Whatever was committed, in whatever order the set grew: its rows stay, none is lost."""
    chance = random.Random(seed)
    prepare(tmp_path, wish(rows(range(10)), limit=8))
    prepare(tmp_path, wish(rows(range(10)), limit=None))
    plan = prepare(tmp_path, wish(rows(range(17)))).plan
    done = [shard for shard in plan.shards if chance.random() < (0.5, 1.0)[seed % 2]]
    for shard in done:
        commit(tmp_path, shard)
    kept = {shard.name: keys_of(tmp_path, shard) for shard in done}
    (tmp_path / "manifest.parquet").unlink()
    more = range(17 + chance.choice((0, 3)))
    again = prepare(tmp_path, wish(rows(more)))
    marks = {shard.name: shard.fingerprint for shard in again.plan.shards}
    assert {shard.name: marks[shard.name] for shard in done} == {
        shard.name: shard.fingerprint for shard in done
    }
    of_name = {shard.name: shard for shard in again.plan.shards}
    assert {name: keys_of(tmp_path, of_name[name]) for name in kept} == kept
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert sorted(table["key"].to_pylist()) == sorted(rows(more)["key"].to_pylist())
    assert table["instance"].to_pylist() == list(range(len(table)))
    for shard in again.plan.shards:
        splits = table.slice(shard.first_row, shard.rows)["splits"].to_pylist()
        assert {split for row in splits for split in row} == {f"x:{shard.name.split('-')[0]}"}
    assert prepare(tmp_path, wish(rows(more))).plan == again.plan


def test_rows_that_changed_since_are_made_again(tmp_path):
    plan = prepare(tmp_path, wish(rows(range(8)))).plan
    for shard in plan.shards:
        commit(tmp_path, shard)
    (tmp_path / "manifest.parquet").unlink()
    changed = pa.concat_tables([rows(range(7)), rows([7], transcript="new")])
    again = prepare(tmp_path, wish(changed.unify_dictionaries()))
    pairs = zip(plan.shards, again.plan.shards, strict=True)
    assert sum(a.fingerprint != b.fingerprint for a, b in pairs) == 1
    assert "1 shards have other rows" in again.note


def test_finalize_of_an_unfinished_set_without_its_manifest_says_what_helps(tmp_path):
    prepare(tmp_path, wish(rows(range(8))))
    (tmp_path / "manifest.parquet").write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"manifest\.parquet is lost or damaged.*shards` command"):
        finalize(load(tmp_path), partial=True)


def test_the_page_of_a_set_without_its_index_names_finalize(copy):
    (copy / "shardindex.json").unlink()
    with pytest.raises(NotFinishedError, match="finalize"):
        write_page(copy)
