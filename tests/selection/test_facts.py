"""`selection.facts`: columns that were added later, joined by key and read only when named."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection import SelectionError
from selection.facts import COLUMNS, SAMPLES, add_columns, passing, read_facts
from selection.where import Where


def parquet(**columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


class Files(dict[str, bytes]):
    """A set in memory that notes what is read."""

    def __init__(self, files):
        super().__init__(files)
        self.read_names: list[str] = []

    def read(self, name):
        self.read_names.append(name)
        if name not in self:
            raise FileNotFoundError(name)
        return self[name]


@pytest.fixture
def files():
    return Files(
        {
            SAMPLES: parquet(key=["a", "b", "c"], frames=[1, 2, 3]),
            COLUMNS: json.dumps({"rank": "groups.parquet", "shift": "shifts.parquet"}).encode(),
            "quality/groups.parquet": parquet(key=["c", "a"], rank=[5, 7]),
            "quality/shifts.parquet": b"broken",
        }
    )


def test_a_column_of_another_table_is_joined_by_key(files):
    facts, mask = passing(Where("rank == 7 or rank == null"), files.read)
    assert mask.tolist() == [True, True, False]
    assert facts.unknown == {"groups.parquet": 1}
    assert "quality/shifts.parquet" not in files.read_names


def test_labels_are_asked_for_by_name(files):
    labels = pa.array([[1], None, [0, 1, 7]], pa.list_(pa.int32()))
    files[SAMPLES] = parquet(key=["a", "b", "c"], labels=labels)
    with pytest.raises(SelectionError, match="pipeline finalize"):
        passing(Where('"drum" in label_names'), files.read)
    files["shardindex.json"] = json.dumps({"labels": ["bell", "drum"]}).encode()
    for where, expected in {
        '"drum" in label_names': [True, False, True],
        '"bell" not in label_names': [True, False, False],
        "label_names == null": [False, True, False],
    }.items():
        assert passing(Where(where), files.read)[1].tolist() == expected
    files["shardindex.json"] = json.dumps({"labels": None}).encode()
    with pytest.raises(SelectionError, match="3 in labels"):
        passing(Where('"drum" in label_names'), files.read)


def test_a_column_that_is_not_made_yet_names_the_command(files):
    with pytest.raises(SelectionError, match="python -m pipeline duplicates"):
        read_facts(["duplicate_rank"], files.read)
    with pytest.raises(SelectionError, match=r"Did you mean shift\?"):
        read_facts(["shifts"], files.read)


def test_tables_that_cannot_be_read_are_named(files):
    with pytest.raises(SelectionError, match=r"shifts\.parquet cannot be read"):
        read_facts(["shift"], files.read)
    files[COLUMNS] = json.dumps({"rank": "../../secret.parquet"}).encode()
    with pytest.raises(SelectionError, match="remove it"):
        read_facts(["rank"], files.read)


def test_a_table_that_is_made_again_replaces_its_columns():
    before = {"old": "groups.parquet", "shift": "shifts.parquet"}
    after = add_columns(before, "groups.parquet", ["rank", "of"])
    assert after == {"shift": "shifts.parquet", "rank": "groups.parquet", "of": "groups.parquet"}
