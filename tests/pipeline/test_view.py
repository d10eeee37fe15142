"""`pipeline report OUT --where`: counts of a view, and the page with them."""

import pyarrow as pa
import pytest

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.make import write_page
from pipeline.outputs import NotFinishedError, Outputs
from pipeline.peek import peek
from pipeline.prints import write_quality
from pipeline.view import view_lines, view_of
from selection.facts import shard_hashes
from tests.pipeline.fabricate import fabricate, make_members, write_set

LIPS = PROFILES["lips"]


@pytest.fixture
def out(tmp_path):
    """Two shards of three clips of 2 s; of each shard's, the first and last have a face."""
    return fabricate(tmp_path / "out", LIPS)


def test_clips_and_hours_by_split_and_what_each_condition_leaves_out(out):
    view = view_of(out, "face_rate > 0.5 and seconds > 1")
    whole = view.sizes[0]
    assert (whole.passing.clips, whole.whole.clips) == (4, 6)
    assert (whole.passing.seconds, whole.whole.seconds) == (8.0, 12.0)
    assert [size.name for size in view.sizes[1:]] == ["demo:train"]
    faces, length = view.terms
    assert (faces.text, faces.false + faces.unknown, faces.alone) == ("face_rate > 0.5", 2, 2)
    assert (length.false, length.unknown, length.alone) == (0, 0, 0)
    text = "\n".join(view_lines(view))
    assert "4 of 6 clips pass (66.7%), 8.0 s of 12 s" in text
    page = write_page(out, view).read_text()
    assert "What passes <code>face_rate &gt; 0.5 and seconds &gt; 1</code>" in page


def test_unknown_facts_are_counted_apart(tmp_path):
    members = [make_members(LIPS, f"a/{n}", instance=n, face=n > 0) for n in range(3)]
    out = write_set(tmp_path / "out", LIPS, [members])
    view = view_of(out, "not (source_fps > 1000)")
    assert (view.terms[0].false, view.terms[0].unknown) == (0, 0)
    assert view_of(out, "audio_dbfs == null").terms[0].unknown == 0


def test_a_table_that_lacks_clips_is_named_on_the_page_and_the_terminal(out):
    table = pa.table({"key": ["demo/clip000"], "late": [1]})
    write_quality(out, "late.parquet", table, shard_hashes(Outputs(out).index()), ["late"])
    view = view_of(out, "late == 1")
    said = "quality/late.parquet does not know 5 clips"
    assert any(said in line for line in view_lines(view))
    assert said in write_page(out, view).read_text()


def test_peek_shows_clips_that_pass(out):
    shown = {line.split()[0] for line in peek(out, where="face_rate > 0.5") if line[0] != " "}
    assert shown == {"demo/clip000", "demo/clip002", "demo/clip003", "demo/clip005"}
    with pytest.raises(UsageError, match="none of the 6 clips"):
        peek(out, where="seconds > 100")


def test_a_wrong_name_and_an_unfinished_set(out, tmp_path):
    with pytest.raises(UsageError, match=r"no column 'face'\. Did you mean face_rate\?"):
        view_of(out, "face > 1")
    (out / "samples.parquet").unlink()
    with pytest.raises(NotFinishedError, match="finalize"):
        view_of(out, "silent")
