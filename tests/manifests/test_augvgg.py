"""AugVGG: a view over the held-out clips of VGG-Sound, four recipes each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manifests import ScanOptions, UsageError
from manifests.build import build, default_root
from manifests.recipes import SETS, recipe_of

CSV = (
    "---g-f_I2yQ,1,people marching,test\n"
    "--0PQM4-hqg,30,waterfall burbling,train\n"
    '--56QUhyDQM,185,"cat, meowing",test\n'
)
FILES = {
    "video/---g-f_I2yQ_000001.mp4": b"1",
    "video/--0PQM4-hqg_000030.mp4": b"1",
    "vggsound.csv": CSV,
}


def facts(row: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(row["extra"]))


def test_each_test_clip_is_a_query_of_each_set(tree, scan) -> None:
    rows, report = scan("augvgg", tree(FILES))
    clips = ("---g-f_I2yQ_000001", "--56QUhyDQM_000185")
    assert set(rows) == {f"augvgg-{name}/{clip}" for name in SETS for clip in clips}
    row = rows["augvgg-C/---g-f_I2yQ_000001"]
    assert (row["dataset"], row["splits"]) == ("augvgg", ["augvgg:C"])
    assert row["uri"] == "video/---g-f_I2yQ_000001.mp4"
    assert (row["start_s"], row["end_s"], row["group_id"]) == (0, 10, "yt:---g-f_I2yQ")
    assert row["label_names"] == ["people marching"]
    assert facts(row)["reference_key"] == "vggsound/---g-f_I2yQ_000001"
    assert facts(row)["seed"] == 0
    assert [t["name"] in ("speed", "trim") for t in facts(row)["transforms"]] == [True] + [
        False
    ] * 4
    assert rows["augvgg-T/--56QUhyDQM_000185"]["bytes"] is None
    assert report.missing_files == 4
    assert report.splits["augvgg:IP"] == [2, 1]
    assert report.official == {f"augvgg:{name}": 15446 for name in SETS}
    assert report.leaks == {}


def test_a_recipe_depends_on_seed_set_and_clip_alone(tree, scan) -> None:
    few, _ = scan("augvgg", tree({**FILES, "vggsound.csv": CSV.splitlines()[0]}))
    many, _ = scan("augvgg", tree(FILES))
    other, _ = scan("augvgg", tree(FILES), recipe_seed=1)
    recipes = [facts(row)["transforms"] for row in many.values()]
    for key, row in few.items():
        assert row["extra"] == many[key]["extra"]
        assert facts(other[key])["seed"] == 1
        assert facts(other[key])["transforms"] != facts(row)["transforms"]
    assert all(recipes.count(recipe) == 1 for recipe in recipes)


def test_without_a_csv_every_clip_is_a_query(tree, scan) -> None:
    rows, report = scan("augvgg", tree(["video/glLQrEijrKg_000300.mp4"]))
    assert "augvgg-S/glLQrEijrKg_000300" in rows
    assert any("none says to be of a test" in note for note in report.notes)


def test_any_collection_can_be_the_reference(tree, scan) -> None:
    rows, report = scan("augvgg", tree(["cats/a.mp4"]), reference="folder")
    assert report.official == {}
    assert set(rows) == {f"augvgg-{name}/cats/a_mp4" for name in SETS}
    row = rows["augvgg-IP/cats/a_mp4"]
    assert facts(row)["reference_key"] == "cats/a_mp4"
    assert (row["label_names"], row["group_id"]) == (["cats"], "folder:cats/a_mp4")


def test_the_validation_split_stands_in_for_a_missing_test_split(tree, scan) -> None:
    csv = "label,youtube_id,time_start,time_end,split\nbowling,aaaaaaaaaaa,0,10,train\n"
    files = {
        "annotations/all.csv": csv + "bowling,bbbbbbbbbbb,0,10,val\n",
        "val/bbbbbbbbbbb_000000_000010.mp4": b"1",
    }
    rows, _ = scan("augvgg", tree(files), reference="kinetics400")
    assert set(rows) == {f"augvgg-{name}/k400/bbbbbbbbbbb_000000_000010" for name in SETS}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "table"}, "carry recipes of its own"),
        ({"reference": "augvgg"}, "expected a data set of clips"),
        ({"reference": "vgsound"}, "Did you mean 'vggsound'"),
        ({"window_seconds": 10.0}, "vggsound .* has no option window_seconds"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(tree, tmp_path, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        build("augvgg", tree(FILES), tmp_path / "m.parquet", ScanOptions(**options))


def test_other_data_sets_have_no_recipes(tree, tmp_path) -> None:
    with pytest.raises(UsageError, match="vggsound has no option recipe_seed"):
        build("vggsound", tree(FILES), tmp_path / "m.parquet", ScanOptions(recipe_seed=3))


def test_a_table_may_carry_recipes_of_its_own(tree, tmp_path) -> None:
    recipe = [{"name": "rotate", "degrees": 90}]
    record = {"path": "a.mp4", "reference_key": "a", "transforms": recipe, "seed": 7}
    root = tree({"a.mp4": b"1", "good.jsonl": json.dumps(record)})
    rows, _ = build("table", root, tmp_path / "m", ScanOptions(table=root / "good.jsonl"))
    made = recipe_of("key", json.loads(rows["extra"][0].as_py()))
    assert (made.transforms, made.identity) == (tuple(recipe), "7\nkey")
    bad = root / "bad.jsonl"
    bad.write_text(json.dumps({**record, "transforms": [{"name": "rotate", "degrees": 400}]}))
    with pytest.raises(UsageError, match="rotate with degrees 400; expected -180 to 180"):
        build("table", root, tmp_path / "m", ScanOptions(table=bad))


def test_the_files_are_looked_for_where_the_reference_has_them() -> None:
    assert default_root("augvgg") == Path("data/raw/vggsound")
    assert default_root("augvgg", reference="kinetics") == Path("data/raw/kinetics400")
    assert default_root("kinetics_sounds", reference="folder") == Path("data/raw/kinetics400")
