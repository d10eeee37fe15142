"""`pipeline.report`: the page says what the files say."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import PROFILES
from pipeline.charts import bars, histogram
from pipeline.listen import Wave
from pipeline.outputs import NotFinishedError, Outputs
from pipeline.report import gallery, write_report
from tests.pipeline.fabricate import edit_json, fabricate, failure, make_members, write_set

GLCM = PROFILES["glcm"]


def silent(meta: dict[str, object]) -> tuple[Wave, int]:
    """A stand-in for the source's sound that costs no time."""
    return np.zeros((16000, 1), np.float32), 16000


def page_of(out: Path) -> str:
    return write_report(out, sound_of=silent).read_text()


def test_headline_ledger_and_splits(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    page = page_of(out)
    assert "8 rows planned = 6 samples + 2 errors. The ledger closes." in words_of(page)
    assert bar_of(page) == {"good": 75.0, "bad-fill": 25.0}
    assert '<td>demo:train</td><td class="n">6</td><td class="n">12 s</td>' in page
    assert '<td class="n">66.7 %</td>' in page


def words_of(page: str) -> str:
    """The text of a page without its tags, white space as single blanks."""
    return " ".join(re.sub(r"<[^>]*>", "", page).split())


def bar_of(page: str) -> dict[str, float]:
    """The parts of the ledger's bar in percent."""
    bar = re.search(r'<div class="ledger".*?</div>', page)
    assert bar is not None
    parts = re.findall(r'class="([a-z-]+)" style="width:([\d.]+)%"', bar[0])
    return {kind: float(percent) for kind, percent in parts}


def test_rows_left_out_by_a_limit_are_no_failures(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    plan = json.loads((out / "plan.json").read_text())
    edit_json(out / "plan.json", planned_rows=plan["planned_rows"] + 12)
    table = pq.read_table(out / "errors.parquet")
    left_out = [failure(f"late{number}", "not_run") for number in range(12)]
    late = pa.Table.from_pylist(left_out, schema=table.schema)
    pq.write_table(pa.concat_tables([table, late]), out / "errors.parquet")
    page = page_of(out)
    text = words_of(page)
    assert "20 rows planned = 6 samples + 2 errors + 12 not run. The ledger closes." in text
    assert bar_of(page) == {"good": 30.0, "bad-fill": 10.0, "waiting": 60.0}
    assert '<div class="tile"><b>2</b><span>rows that failed</span>' in page
    assert "<code>no_audio</code>" in page
    assert "not_run" not in page


def test_samples_without_a_split_are_counted(tmp_path: Path) -> None:
    members = make_members(GLCM, "a")
    bare = {**members, "json": members["json"].replace(b'["demo:train"]', b"[]")}
    page = page_of(write_set(tmp_path / "out", GLCM, [[members, _renamed(bare, "b")]]))
    assert '<td>demo:train</td><td class="n">1</td>' in page
    assert '<td>(none)</td><td class="n">1</td>' in page


def _renamed(members: dict[str, bytes], key: str) -> dict[str, bytes]:
    return {**members, "json": members["json"].replace(b'"key":"a"', f'"key":"{key}"'.encode())}


def test_reasons_with_examples_escaped(tmp_path: Path) -> None:
    errors = [failure("<b>bold</b>"), failure("b", "open_error")]
    page = page_of(write_set(tmp_path / "out", GLCM, [[make_members(GLCM, "a")]], [errors]))
    assert "&lt;b&gt;bold&lt;/b&gt;.mp4" in page
    assert "<code>open_error</code>" in page
    assert "the file has no audio stream" in page


def test_charts_licence_config_and_reader(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "plan.json", licence="CC-BY 4.0")
    page = page_of(out)
    assert page.count('<figure class="chart">') == 9
    assert "CC-BY 4.0" in page
    assert "version of av" in page
    assert "shards/train-000000.tar" in page
    assert '<article class="card"' in page


def test_an_incomplete_set_says_so(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "shardindex.json", complete=False)
    (out / "shards/train-000001.json").unlink()
    page = page_of(out)
    assert "The set is not complete yet." in page
    assert "The ledger does not close." in page


def test_a_set_without_samples_has_a_page(tmp_path: Path) -> None:
    out = write_set(tmp_path / "out", GLCM, [[]], [[failure("a")]])
    page = page_of(out)
    assert "There is no sample to show." in page


def test_a_set_without_errors_has_a_page(tmp_path: Path) -> None:
    page = page_of(fabricate(tmp_path / "out", PROFILES["sound"], errors=0))
    assert "No row failed." in page


def test_without_an_index_the_command_is_named(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    (out / "shardindex.json").unlink()
    with pytest.raises(NotFinishedError, match="pipeline finalize"):
        write_report(out)


def test_the_gallery_has_both_labels_and_both_kinds(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM, shards=3, samples=4)
    places = gallery(Outputs(out), 4)
    numbers = [int(place.key[-3:]) for place in places]
    assert len(set(numbers)) == 4
    assert sum(number % 2 == 0 for number in numbers) == 2


def test_histograms_count_what_is_outside_in_the_outer_bins() -> None:
    chart = histogram("Length", np.array([1.0, 2.0, np.nan, 99.0]), " s", range(11))
    assert chart is not None
    assert chart.said.startswith("median 2 s")
    assert "var(--accent)" in chart.svg
    assert histogram("Length", np.array([np.nan]), " s") is None


def test_bars_draw_the_most_frequent_and_count_the_rest() -> None:
    chart = bars("Labels", {f"${n}_{n}$": n for n in range(1, 12)})
    assert chart is not None
    assert chart.said == "11 different; 6 are of rarer ones"
    assert "$11_11$" in chart.svg
