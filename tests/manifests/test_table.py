"""`table`: formats, spellings, times, duplicates, and sentences for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import UsageError
from manifests.build import build
from manifests.dataset import ScanOptions
from manifests.table import root_of


def test_csv_with_everything(tree, scan) -> None:
    csv = (
        "\ufeffFile Path;Start Time;end;Class;Split;Speaker;Text;face-x;face_y;weather\r\n"
        'a.mp4;1.5;0:00:04.25;"yes; sir";train set;bob;hello there;0.25;0.5;rain\r\n'
        "a.mp4;10;;no;val;bob;;;;\r\n"
        "gone.mp4;;;;;;;;;\r\n"
    )
    root = tree({"a.mp4": b"1", "list.csv": csv})
    rows, report = scan("table", root, table=root / "list.csv")
    first = rows["a_mp4-1500-4250"]
    assert (first["start_s"], first["end_s"], first["uri"]) == (1.5, 4.25, "a.mp4")
    assert (first["label_names"], first["labels"]) == (["yes; sir"], [1])
    assert first["splits"] == ["table:train_set"]
    assert first["group_id"] == "table:bob"
    assert first["transcript"] == "hello there"
    assert first["face_xy"] == [0.25, 0.5]
    assert json.loads(first["extra"]) == {"weather": "rain"}
    assert rows["a_mp4-10000-end"]["end_s"] is None
    assert rows["gone_mp4"]["bytes"] is None
    assert rows["gone_mp4"]["labels"] == []
    assert report.leaks == {"table:train_set & table:val": 1}
    assert first["anchored"] is False


def test_jsonl_and_parquet_give_the_same_rows(tree, scan, tmp_path: Path) -> None:
    records = [
        {"video": "a.mp4", "start": 0, "end": 2.5, "label": ["x", "y"]},
        {"video": "b.mp4", "start": None, "end": None, "label": None},
    ]
    root = tree(["a.mp4", "b.mp4"])
    lines, parquet = root / "t.jsonl", root / "t.parquet"
    lines.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(records), parquet)
    one, _ = scan("table", root, table=lines)
    two, _ = scan("table", root, table=parquet)
    assert one == two
    assert one["a_mp4-0-2500"]["labels"] == [0, 1]
    assert "b_mp4" in one


def test_numbers_as_labels_keep_their_order(tree, scan) -> None:
    csv = "path,label\n" + "".join(f"{n}.mp4,{n}\n" for n in range(11))
    root = tree({"t.csv": csv})
    rows, report = scan("table", root, table=root / "t.csv")
    assert report.vocabulary == [str(n) for n in range(11)]
    assert rows["10_mp4"]["labels"] == [10]


def test_duplicates_are_counted_and_left_out(tree, scan) -> None:
    root = tree({"a.mp4": b"1", "t.csv": "path,label\na.mp4,x\na.mp4,y\n./a.mp4,z\n"})
    rows, report = scan("table", root, table=root / "t.csv")
    assert rows["a_mp4"]["label_names"] == ["x"]
    assert report.duplicate_rows == 2


def test_paths_count_from_root_or_from_the_table(tree, scan, tmp_path: Path) -> None:
    root = tree(["sub/a.mp4"])
    csv = tmp_path / "lists" / "t.csv"
    csv.parent.mkdir()
    csv.write_text("path\nsub/a.mp4\n../root/sub/a.mp4\n")
    rows, _ = scan("table", root, table=csv)
    assert {row["uri"] for row in rows.values()} == {"sub/a.mp4"}


def test_without_root_absolute_paths_decide_it(tree, tmp_path: Path) -> None:
    root = tree(["a.mp4", "deep/b.mp4"])
    csv = tmp_path / "lists" / "t.csv"
    csv.parent.mkdir()
    csv.write_text(f"path\n{root}/a.mp4\n{root}/deep/b.mp4\n")
    assert root_of(csv) == tmp_path
    table, report = build("table", None, tmp_path / "m.parquet", ScanOptions(table=csv))
    assert table["uri"].to_pylist() == ["root/a.mp4", "root/deep/b.mp4"]
    assert report.missing_files == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,label\na,b\n", "no column with paths; its columns are name, label"),
        ("", "no column with paths"),
        ("path,start\na.mp4,soon\n", "row 1, column 'start': 'soon' is not seconds"),
        ("path,x,y\na.mp4,left,1\n", "column 'x': 'left' is not a number"),
        ("path,label\n,b\n", "row 1 has no path"),
        ("path,start,end\na.mp4,nan,3\n", "row 1, column 'start': 'nan' is not seconds"),
        ("path,start,end\na.mp4,1,inf\n", "row 1, column 'end': 'inf' is not seconds"),
        ("path,end\na.mp4,1e308\n", "row 1, column 'end': '1e308' is not seconds"),
        ("path,end\na.mp4,1:nan\n", "column 'end': '1:nan' is not seconds"),
        ("path,start\na.mp4,-1\n", "'-1' is not seconds, .*from 0 to 1,000,000"),
        ("path,start\na.mp4,-0:01\n", "column 'start': '-0:01' is not seconds"),
        ("path,start\na.mp4,1:-30\n", "column 'start': '1:-30' is not seconds"),
        ("path,start\na.mp4,1:2:3:4\n", "column 'start': '1:2:3:4' is not seconds"),
        ("path,x,y\na.mp4,nan,1\n", "column 'x': 'nan' is not a number"),
        ("path\n", "has no rows"),
        (b"path\ncaf\xe9.mp4\n", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said(tree, scan, content: str | bytes, words: str) -> None:
    root = tree({"a.mp4": b"1", "t.csv": content})
    with pytest.raises(UsageError, match=words):
        scan("table", root, table=root / "t.csv")


def test_other_kinds_of_tables_are_refused(tree, scan) -> None:
    root = tree({"t.xlsx": b"PK", "t.jsonl": '{"path": "a.mp4"}\n{"path": \n', "t.parquet": b"no"})
    for name, words in [
        ("t.xlsx", "expected .csv"),
        ("t.jsonl", "line 2"),
        ("t.parquet", "Parquet"),
    ]:
        with pytest.raises(UsageError, match=words):
            scan("table", root, table=root / name)
    with pytest.raises(UsageError, match="needs a table"):
        scan("table", root)


def test_numbers_that_are_none_are_refused_in_every_kind_of_table(tree, scan) -> None:
    """JSON knows neither NaN nor infinity, Parquet does; a missing value is null in both."""
    root = tree({"a.mp4": b"1", "t.jsonl": '{"path": "a.mp4", "end": NaN}\n'})
    with pytest.raises(UsageError, match=r"t\.jsonl line 1 .*NaN.*null"):
        scan("table", root, table=root / "t.jsonl")
    (root / "t.jsonl").write_text('{"path": "a.mp4", "end": 1e999}\n')
    with pytest.raises(UsageError, match="row 1, column 'end': inf is not seconds"):
        scan("table", root, table=root / "t.jsonl")
    parquet = root / "t.parquet"
    for value in (float("nan"), float("inf")):
        pq.write_table(pa.table({"path": ["a.mp4"], "end": [value]}), parquet)
        with pytest.raises(UsageError, match=f"row 1, column 'end': {value} is not"):
            scan("table", root, table=parquet)
    pq.write_table(pa.table({"path": ["a.mp4"], "score": [float("inf")]}), parquet)
    with pytest.raises(UsageError, match="row 1, column 'score': inf"):
        scan("table", root, table=parquet)


def test_times_have_up_to_three_parts(tree, scan) -> None:
    root = tree({"a.mp4": b"1", "t.csv": "path,start,end\na.mp4,0:01,1:00:02.5\na.mp4, 7 ,90\n"})
    rows, _ = scan("table", root, table=root / "t.csv")
    found = sorted((row["start_s"], row["end_s"]) for row in rows.values())
    assert found == [(1.0, 3602.5), (7.0, 90.0)]


def test_anchored_rows_are_marked_and_others_are_not(tree, scan) -> None:
    content = "path,anchored\na.mp4,true\nb.mp4,0\nc.mp4,\nd.mp4,TRUE\n"
    root = tree({**dict.fromkeys(("a.mp4", "b.mp4", "c.mp4", "d.mp4"), b"1"), "t.csv": content})
    rows, _ = scan("table", root, table=root / "t.csv")
    found = {row["uri"]: row["anchored"] for row in rows.values()}
    assert found == {"a.mp4": True, "b.mp4": False, "c.mp4": False, "d.mp4": True}
    assert all(row["extra"] == "{}" for row in rows.values())
    (root / "t.csv").write_text("path,anchored\na.mp4,maybe\n")
    with pytest.raises(UsageError, match="column 'anchored': 'maybe' is not true or false"):
        scan("table", root, table=root / "t.csv")
