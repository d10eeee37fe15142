"""`selection.facts`: columns that were added later, joined by key and read only when named."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection import SelectionError
from selection.facts import (
    COLUMNS,
    INDEX,
    SAMPLES,
    add_columns,
    passing,
    read_facts,
    with_bases,
)
from selection.where import Where

BASES = {"s0": "00", "s1": "11"}


def parquet(bases=BASES, **columns):
    out = io.BytesIO()
    pq.write_table(with_bases(pa.table(columns), bases), out)
    return out.getvalue()


def index(**hashes):
    listed = [{"url": f"shards/{name}.tar", "sha256": sha256} for name, sha256 in hashes.items()]
    return json.dumps({"shardlist": listed}).encode()


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
            SAMPLES: parquet(key=["a", "b", "c"], frames=[1, 2, 3], shard=["s0", "s1", "s1"]),
            INDEX: index(**BASES),
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


def test_clips_of_a_shard_that_was_made_again_are_unknown(files):
    """A clip with the same key may be another one."""
    files[INDEX] = index(s0="00", s1="22")
    facts, mask = passing(Where("rank == 5 or rank == 7"), files.read)
    assert mask.tolist() == [True, False, False]
    assert facts.unknown == {"groups.parquet": 2}
    assert facts.notes == [
        "quality/groups.parquet does not know 2 clips as they are now; they have null there: make "
        "it again"
    ]
    files["quality/groups.parquet"] = parquet({}, key=["a"], rank=[7])  # does not say of which
    assert read_facts(["rank"], files.read).unknown == {"groups.parquet": 3}


def test_ranks_among_clips_that_are_gone_are_told(files):
    files[COLUMNS] = json.dumps({"duplicate_rank": "duplicate_groups.parquet"}).encode()
    rows = parquet(key=["a", "b", "c", "dropped"], duplicate_rank=[1, 0, 0, 0])
    files["quality/duplicate_groups.parquet"] = rows
    facts = read_facts(["duplicate_rank"], files.read)
    assert facts.unknown == {}
    assert facts.notes == [
        "quality/duplicate_groups.parquet ranks clips among 1 that are no longer there: `python -m "
        "pipeline duplicates OUT` makes it again"
    ]


def test_a_set_without_an_index_is_refused_where_tables_are_named(files):
    del files[INDEX]
    read_facts(["frames"], files.read)
    with pytest.raises(SelectionError, match=r"no shardindex\.json.*finalize"):
        read_facts(["rank"], files.read)
    files[INDEX] = b"[]"
    with pytest.raises(SelectionError, match=r"shardindex\.json lists no shards"):
        read_facts(["rank"], files.read)


def test_labels_are_asked_for_by_name(files):
    labels = pa.array([[1], None, [0, 1, 7]], pa.list_(pa.int32()))
    files[SAMPLES] = parquet(key=["a", "b", "c"], labels=labels)
    del files[INDEX]
    with pytest.raises(SelectionError, match="pipeline finalize"):
        passing(Where('"drum" in label_names'), files.read)
    files[INDEX] = json.dumps({"labels": ["bell", "drum"]}).encode()
    for where, expected in {
        '"drum" in label_names': [True, False, True],
        '"bell" not in label_names': [True, False, False],
        "label_names == null": [False, True, False],
    }.items():
        assert passing(Where(where), files.read)[1].tolist() == expected
    files[INDEX] = json.dumps({"labels": None}).encode()
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
