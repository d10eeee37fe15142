"""The table, its checks, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import UsageError, columns, schema

DOCUMENTED = [
    *("dataset", "key", "source_id", "group_id", "uri", "audio_uri", "container"),
    *("start_s", "end_s", "pre_trimmed", "splits", "labels", "label_names", "segments"),
    *("face_xy", "transcript", "words", "expect", "extra", "anchored", "bytes"),
]


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": "toy",
        "key": f"toy/{number:06d}",
        "source_id": f"toy:{number}",
        "group_id": f"toy:{number}",
        "uri": f"{number}.mp4",
        "labels": [number % 2],
        "label_names": ["ab"[number % 2]],
        "bytes": 1,
        **changes,
    }


def problems(*changes: dict[str, Any]) -> list[str]:
    rows = [row(i, **change) for i, change in enumerate(changes)]
    return schema.validate(schema.table(rows), {"toy": ["a", "b"]})


def test_columns_are_the_documented_ones() -> None:
    assert schema.SCHEMA.names == DOCUMENTED


def test_rows_take_defaults() -> None:
    first = schema.table([row(0)]).to_pylist()[0]
    assert first["start_s"] == 0.0
    assert first["end_s"] is None
    assert first["pre_trimmed"] is True
    assert first["anchored"] is False
    assert first["splits"] == first["segments"] == first["words"] == []
    assert first["extra"] == "{}"


def test_a_table_of_several_pieces_keeps_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_ROWS_PER_PIECE", 3)
    rows = [row(i, dataset="toy" if i < 4 else "other") for i in range(8)]
    table = schema.table(rows)
    assert table["key"].to_pylist() == [r["key"] for r in rows]
    assert table["dataset"].to_pylist() == ["toy"] * 4 + ["other"] * 4


def test_valid_rows_have_no_problems() -> None:
    assert (
        problems({}, {"end_s": 2.5, "face_xy": (0.0, 1.0)}, {"labels": [], "label_names": []}) == []
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "toy/a.b"}, "contain a dot"),
        ({"key": "toy/a b"}, "do not match"),
        ({"key": "/toy"}, "do not match"),
        ({"key": "toy//a"}, "do not match"),
        ({"key": "toy/a\n"}, "do not match"),
        ({"key": ""}, "do not match"),
        ({"key": None}, "do not match"),
        ({"uri": ""}, "uri is empty"),
        ({"uri": None}, "uri is empty"),
        ({"group_id": None}, "group_id is empty"),
        ({"start_s": -0.1}, "start_s is not >= 0"),
        ({"start_s": float("nan")}, "start_s is not >= 0"),
        ({"start_s": float("inf")}, "start_s is not finite"),
        ({"start_s": 3.0, "end_s": 3.0}, "end_s is not after start_s"),
        ({"end_s": 1e308}, "end_s is over 1e+06 s"),
        ({"labels": [2], "label_names": ["c"]}, "outside its vocabulary of 2 classes"),
        ({"labels": [-1], "label_names": ["a"]}, "negative"),
        ({"labels": [0], "label_names": ["b"]}, "are not the vocabulary's names"),
        ({"labels": [0], "label_names": []}, "differ in length"),
        ({"face_xy": (0.5, 1.5)}, "face_xy is outside"),
        ({"splits": None}, "splits is null"),
    ],
)
def test_each_fault_is_named_with_its_row(change: dict[str, Any], words: str) -> None:
    found = problems({}, change)
    assert any(words in sentence and "row 1 " in sentence for sentence in found), found


def test_only_ten_offenders_are_listed() -> None:
    (sentence,) = problems(*[{"start_s": -1.0}] * 25)
    assert sentence.count("row ") == 10
    assert "15 more" in sentence


def test_repeated_keys_are_wrong_and_other_case_is_a_warning() -> None:
    table = schema.table(row(i, key=k) for i, k in enumerate(["t/a", "t/b", "t/a", "t/B"]))
    (sentence,) = schema.validate(table)
    assert "not unique" in sentence and "row 0" in sentence and "row 2" in sentence
    (warning,) = schema.warnings(table)
    assert "row 1" in warning and "row 3" in warning and "row 0" not in warning


def test_missing_doubled_and_mistyped_columns() -> None:
    table = schema.table([row(0)]).drop_columns(["uri", "key"])
    table = table.append_column("start_s", table["start_s"])
    place = table.schema.get_field_index("bytes")
    table = table.set_column(place, "bytes", table["bytes"].cast(pa.string()))
    found = " ".join(schema.validate(table))
    assert "'uri' (string) is missing" in found and "'key' (string) is missing" in found
    assert "'bytes' has type string; expected int64" in found
    assert "'start_s' is there several times" in found


def test_an_empty_manifest_is_wrong() -> None:
    assert "empty" in " ".join(schema.validate(schema.table([])))


def test_two_hundred_thousand_rows_validate() -> None:
    base = schema.table(row(i) for i in range(200_000))
    assert schema.validate(base, {"toy": ["a", "b"]}) == []
    assert schema.warnings(base) == []


def test_round_trip(tmp_path: Path) -> None:
    full = row(
        0,
        key="toy/z",
        end_s=3.0,
        splits=["toy:train"],
        segments=[{"start_s": 0.0, "end_s": 1.0, "label": 1}],
        words=[{"w": "bin", "start_s": 0.92, "end_s": 1.16}],
        face_xy=(0.25, 0.5),
        expect={"video": True, "audio": None, "fps": 25.0, "duration_s": 3.0},
        extra=columns.extra(b=1, a=None, c="\u00e9"),
    )
    out = tmp_path / "sub" / "toy.parquet"
    report = {"dataset": "toy", "rows": 2}
    schema.write(
        schema.table([full, row(1)]),
        out,
        labels=["a", "b"],
        root=tmp_path,
        fingerprint="f",
        report=report,
    )
    table, facts = schema.read(out), schema.read_facts(out)
    assert table["key"].to_pylist() == ["toy/000001", "toy/z"]
    assert table.to_pylist()[1] == {**dict.fromkeys(DOCUMENTED), **columns.DEFAULTS, **full} | {
        "face_xy": [0.25, 0.5],
        "extra": '{"b": 1, "c": "\u00e9"}',
    }
    assert table.schema.equals(schema.SCHEMA)
    assert (facts.root, facts.fingerprint, facts.report) == (str(tmp_path), "f", report)
    assert schema.read_labels(out, "toy") == ["a", "b"]
    assert set(facts.labels_sha1) == {"toy"}
    assert sorted(p.name for p in out.parent.iterdir()) == ["labels", "toy.parquet"]


def test_reading_a_manifest_of_somebody_elses_making(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    table = schema.table([row(0)])
    plain = table.set_column(0, "dataset", table["dataset"].cast(pa.string()))
    pq.write_table(plain.append_column("more", pa.array([1])), path)
    assert schema.read(path).to_pylist() == table.to_pylist()
    assert schema.read_facts(path).root == ""
    wrong = table.set_column(7, "start_s", pa.array(["soon"]))
    pq.write_table(wrong, path)
    with pytest.raises(UsageError, match="'start_s' has type string; expected double"):
        schema.read(path)


@pytest.mark.parametrize("content", [b"", b"text, not Parquet"])
def test_reading_no_parquet_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot be read as a manifest"):
        schema.read(path)


def test_reading_a_manifest_that_lacks_columns_names_them(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(schema.table([row(0)]).drop_columns(["uri", "key"]), path)
    with pytest.raises(UsageError, match="lacks the columns key, uri"):
        schema.read(path)


def test_reading_nothing_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="python -m manifests build"):
        schema.read(tmp_path / "absent.parquet")
