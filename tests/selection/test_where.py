"""`selection.where`: the language against plain Python over the rows, one at a time."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from selection import SelectionError
from selection.where import Where

ROWS: list[dict[str, Any]] = [
    {"key": "a/1", "silent": False, "rate": 0.98, "frames": 100, "splits": ["x:train"], "no": None},
    {"key": "a/2", "silent": True, "rate": 0.5, "frames": 30, "splits": [], "no": None},
    {"key": "b/1", "silent": None, "rate": None, "frames": 10, "splits": None, "no": None},
    {"key": "b/2", "silent": False, "rate": None, "frames": 7, "splits": ["x:val"], "no": None},
]
TABLE = pa.table(
    {
        "key": pa.array([row["key"] for row in ROWS]),
        "silent": pa.array([row["silent"] for row in ROWS]),
        "rate": pa.array([row["rate"] for row in ROWS], pa.float32()),
        "frames": pa.array([row["frames"] for row in ROWS], pa.int32()),
        "splits": pa.array([row["splits"] for row in ROWS], pa.list_(pa.string())),
        "no": pa.nulls(len(ROWS)),
    }
)
KNOWN = "rate is not None"
MEANINGS = {  # what it says: what it must give, as Python over a row
    "silent == false and rate > 0.8": f"row['silent'] is False and {KNOWN} and rate > 0.8",
    "not silent": "row['silent'] is False",
    "silent": "row['silent'] is True",
    "silent != true": "row['silent'] is False",
    "rate == 0.98": f"{KNOWN} and rate == 0.98",
    "rate != 0.98": f"{KNOWN} and rate != 0.98",
    "not rate > 0.6": f"{KNOWN} and not rate > 0.6",
    "rate == null": "rate is None",
    "rate is not null": KNOWN,
    "silent == null or rate == null": "row['silent'] is None or rate is None",
    "rate > 0.6 or frames == 7": f"({KNOWN} and rate > 0.6) or row['frames'] == 7",
    "10 <= frames < 100": "10 <= row['frames'] < 100",
    "frames in [7, 30]": "row['frames'] in (7, 30)",
    "frames not in (7, 30)": "row['frames'] not in (7, 30)",
    "rate in [0.98]": f"{KNOWN} and rate == 0.98",
    "rate not in [0.98]": f"{KNOWN} and rate != 0.98",
    "key in ['a/1', \"b/2\"]": "row['key'] in ('a/1', 'b/2')",
    "'x:train' in splits": "row['splits'] is not None and 'x:train' in row['splits']",
    "'x:train' not in splits": "row['splits'] is not None and 'x:train' not in row['splits']",
    "'a/' in key": "'a/' in row['key']",
    "startswith(key, 'b')": "row['key'].startswith('b')",
    "not endswith(key, '1')": "not row['key'].endswith('1')",
    "abs(frames - 20) <= 10": "abs(row['frames'] - 20) <= 10",
    "frames * 2 + 1 > 60 / 2": "row['frames'] * 2 + 1 > 60 / 2",
    "-frames < -50": "-row['frames'] < -50",
    "frames / 0 > 1": "False",
    "key > 'a/9'": "row['key'] > 'a/9'",
    "no == null": "True",
    "no == 3 or no in ['a'] or no": "False",
    "rate > no": "False",
    "not rate > no": "False",
    "not 3 == no": "False",
    "not 0 < no < 5": "False",
    "not 0 < frames < no": "False",
    "not 20 < frames < no": "row['frames'] <= 20",
    "not no < frames": "False",
    "true": "True",
    "null": "False",
}


@pytest.mark.parametrize("text", MEANINGS)
def test_an_expression_means_what_python_says_of_each_row(text):
    expected = [eval(MEANINGS[text], {"row": row, "rate": row["rate"]}) for row in ROWS]
    assert Where(text).passes(TABLE).tolist() == expected


BEYOND = 2**53  # the first integer whose neighbour a double cannot tell from it
LARGE = pa.table(
    {
        "bytes": pa.array([BEYOND, BEYOND + 1, 2**63 - 1, 3, None], pa.int64()),
        "single": pa.array([2.0**53, 2.0**53, 2.0**63, 3.5, 3.0], pa.float32()),
        "double": pa.array([2.0**53, 2.0**53, 2.0**63, 3.5, 3.0], pa.float64()),
        "sizes": pa.array([[BEYOND], [BEYOND + 1], [], [3], None], pa.list_(pa.int64())),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (f"bytes == {BEYOND}", [0]),
        (f"bytes == {BEYOND + 1}", [1]),
        (f"bytes > {BEYOND}", [1, 2]),
        (f"bytes in [{BEYOND + 1}, 3]", [1, 3]),
        (f"bytes not in [{BEYOND + 1}, 3]", [0, 2]),
        (f"bytes in [3.0, {BEYOND}]", [0, 1, 3]),  # 3.0 makes it a question of doubles
        (f"{BEYOND + 1} in sizes", [1]),
        (f"-bytes == -{BEYOND + 1}", [1]),
        (f"bytes == {2**63 - 1}", [2]),
        (f"bytes < {2**64}", [0, 1, 2, 3]),
        ("bytes < 3.25", [3]),
        ("bytes == single", [0, 1, 2]),  # as doubles
        ("bytes == double", [0, 1, 2]),
        ("bytes < double", [3]),
        (f"single == {BEYOND + 1}", [0, 1]),  # the nearest it can hold
        (f"single in [{BEYOND + 1}, 3]", [0, 1, 4]),
        (f"double == {BEYOND}", [0, 1]),
        (f"bytes + 0 == {BEYOND}.0", [0, 1]),  # arithmetic is that of doubles
    ],
)
def test_integers_are_compared_exactly_and_others_as_floating_point(text, rows):
    assert np.flatnonzero(Where(text).passes(LARGE)).tolist() == rows


def test_nan_and_unknown_lists_do_not_pass():
    table = pa.table({"rate": pa.array([float("nan"), 1.0], pa.float32())})
    assert Where("rate > 0 or rate <= 0").passes(table).tolist() == [False, True]
    assert Where("rate == null").passes(table).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sillent == false", "Did you mean silent?"),
        ("frames > x", "The columns: frames, key, no, rate, silent, splits"),
        ("silent = false", "write =="),
        ("silent && rate > 1", "write `and`"),
        ("silent AND rate > 1", "small letters"),
        ("key > 3", "the one is a text, the other a number"),
        ("silent > true", "compare it by == or !="),
        ("rate", "not a condition"),
        ("rate and silent", "where a condition is expected"),
        ("frames < null", "by == or != only"),
        ("frames in []", "empty"),
        ("frames in [null]", "expected literals"),
        ("frames in ['7']", "the other a text"),
        ("splits == 'x:train'", "ask for one entry"),
        ("3 in splits", "holds entries"),
        ("frames in key", "`in` takes"),
        ("", "cannot be read"),
        ("frames >", "cannot be read"),
        ("(" * 150 + "silent" + ")" * 300, "cannot be read"),
        ("silent" + " and silent" * 2000, "characters"),
        ("silent == false\nand rate > 0.8", "several lines in parentheses"),
        ("key == '\udc80'", "characters that no text may have"),
        ("key == 'a\0'", "cannot be read"),
        (r"key == '\udc80'", "lone surrogate"),
        (r"key in ['a', '\udc80']", "lone surrogate"),
        (r"startswith(key, '\udc80')", "lone surrogate"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_way_on(text, said):
    with pytest.raises(SelectionError, match=said.replace("`", ".").replace("?", r"\?")):
        Where(text).passes(TABLE)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "open('canary', 'w')",
        "(lambda: 1)()",
        "key.__class__ == 'x'",
        "[x for x in ().__class__.__bases__]",
        "f'{key}' == 'a'",
        "frames == 9 ** 9 ** 9",
        "(frames := 3) > 2",
        "splits[0] == 'x'",
        "key if silent else key",
        "abs(*splits)",
        "startswith(text=key)",
    ],
)
def test_nothing_is_run_as_python(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SelectionError):
        Where(text).passes(TABLE)
    assert not list(tmp_path.iterdir())


def test_terms_go_over_lines_and_comments():
    where = Where("(silent == false # heard\n and rate # of faces\n > 0.8 and\nkey == '# 1')")
    assert [term.text for term in where.terms] == ["silent == false", "rate > 0.8", "key == '# 1'"]
    counted = [(truth.true_count, truth.false_count, truth.null_count)
               for truth in (term.truth(TABLE) for term in where.terms)]  # fmt: skip
    assert counted == [(2, 1, 1), (1, 1, 2), (0, 4, 0)]


def test_terms_are_the_conditions_that_and_joins():
    where = Where("silent == false and (rate > 0.8 or rate == null) and frames > 9")
    assert [term.text for term in where.terms] == [
        "silent == false", "rate > 0.8 or rate == null", "frames > 9",
    ]  # fmt: skip
    truths = [term.truth(TABLE).fill_null(False) for term in where.terms]
    assert np.logical_and.reduce(truths).tolist() == where.passes(TABLE).tolist()
    assert where.columns == ("frames", "rate", "silent")
