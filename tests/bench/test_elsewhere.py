"""The rows of stores: what they are made of, and when there are none."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from bench import elsewhere, loading
from bench.media import Media
from tests.pipeline.clips import make_clip

CLIP_SECONDS = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Media:
    path = make_clip(
        tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=CLIP_SECONDS, size="160x120"
    )
    return Media("clip", "kinetics", path, True)


def sidecar(started: float, work: float) -> dict[str, Any]:
    return {"run": {"started_unix": started, "work_seconds": work}}


def test_a_wait_is_from_the_end_of_one_shards_work_to_the_next_ones_begin() -> None:
    shards = [sidecar(14.0, 2.0), sidecar(10.0, 3.0), sidecar(15.5, 1.0)]
    assert elsewhere.waits(shards) == [1.0, 0.0]  # the third begins before the second has closed
    assert elsewhere.waits(shards[:1]) == []


def test_without_the_server_there_are_no_rows_and_a_line_that_says_so(
    clip: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("bench.elsewhere.importlib.import_module", missing)
    assert list(elsewhere.measure(clip, tmp_path, 1)) == []
    assert "left out: No module named 'moto'. `make setup`" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_rows_are_what_they_say(
    clip: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "SHARD_SECONDS", 3 * CLIP_SECONDS)
    monkeypatch.setattr(elsewhere, "UPLOAD_SECONDS", 0.2)
    monkeypatch.setattr(loading, "WINDOW_FRAMES", 8)
    upload, cache = elsewhere.measure(clip, tmp_path, 1)
    waits = [wait for job in upload.facts["waits"] for wait in job]
    assert len(waits) >= 2 and upload.value == statistics.median(waits)
    spent = cache.facts["rounds"]
    assert cache.value == pytest.approx(min(spent["folder"]) / min(spent["cache"]))
    assert (upload.goal, cache.goal) == ("upload", "cache")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_row_of_a_cache_that_keeps_nothing(
    clip: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "CACHE_BYTES", 1)
    monkeypatch.setattr(elsewhere, "SHARD_SECONDS", 3 * CLIP_SECONDS)  # of one shard are no waits
    monkeypatch.setattr(loading, "WINDOW_FRAMES", 8)
    rows = elsewhere.measure(clip, tmp_path, 1)
    assert next(rows).goal == "upload"
    with pytest.raises(RuntimeError, match="requests for tars after the first epoch"):
        next(rows)
