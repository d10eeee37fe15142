"""The demo corpus: made once, the same each time, and true to its rows."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from manifests.dataset import ScanOptions
from manifests.demo import DEMO, generate
from manifests.render import clock
from manifests.render.clips import CLIPS, LABELS, SECONDS
from manifests.render.encode import run
from manifests.schema import validate

KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def duration_seconds(path: Path) -> float:
    """Return a file's length as ffmpeg prints it."""
    log = run(["-i", str(path), "-map", "0", "-c", "copy", "-f", "null", "-"]).stderr.decode()
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", log)
    assert found is not None
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def test_table_of_clips() -> None:
    names = [clip.name for clip in CLIPS]
    assert len(names) == len(set(names))
    assert len({clip.seed for clip in CLIPS}) == len(CLIPS)
    good = [clip for clip in CLIPS if not clip.fault]
    assert len(good) >= 34 and all(clip.seconds >= 10.5 for clip in good)
    assert {clip.kind for clip in good} == set(LABELS)
    train, val = ({clip.who for clip in CLIPS if clip.split == s} for s in ("train", "val"))
    assert not train & val
    for kind in LABELS:
        assert {clip.split for clip in good if clip.kind == kind} == {"train", "val"}


def test_generate_keeps_what_is_there_and_mends_what_is_not(tmp_path: Path) -> None:
    facts = generate(tmp_path, workers=1, kinds=("bell", "broken"), limit=2)
    assert [fact["uri"] for fact in facts] == [
        "bell/000.mp4", "bell/001.mov", "broken/000.mp4", "broken/001.mp4",
    ]  # fmt: skip
    bell, other = tmp_path / "bell/000.mp4", tmp_path / "bell/001.mov"
    first, kept = bell.read_bytes(), other.stat().st_mtime_ns
    assert not list(tmp_path.rglob(".*")), "nothing half-made stays"

    bell.write_bytes(first[:1000])
    assert generate(tmp_path, workers=1, kinds=("bell", "broken"), limit=2) == facts
    assert bell.read_bytes() == first, "the same bytes again"
    assert other.stat().st_mtime_ns == kept


def test_truth_of_a_thing(tmp_path: Path) -> None:
    (fact,) = generate(tmp_path, workers=1, kinds=("flash",), limit=1)
    truth, path = fact["truth"], tmp_path / fact["uri"]
    assert truth["kind"] == "flash" and truth["mouth"] == []
    times = [box[0] for box in truth["boxes"]]
    assert max(b - a for a, b in pairwise(times)) <= 0.1
    assert duration_seconds(path) >= 10.5
    beeps = clock.beep_times(path)
    assert [clock.start_seconds(path) + event for event in truth["events"]] == pytest.approx(
        beeps, abs=1e-3
    )


def test_truth_counts_from_the_earliest_stream(tmp_path: Path) -> None:
    """In a transport stream AAC starts 23 ms before the first picture."""
    facts = generate(tmp_path, workers=1, kinds=("string",), limit=3)
    truth = facts[2]["truth"]
    assert truth["boxes"][0][0] == pytest.approx(0.0232, abs=1e-3)
    assert facts[0]["truth"]["boxes"][0][0] == 0


def test_truth_in_avi_is_where_the_pictures_are(tmp_path: Path) -> None:
    """The sound's priming moves all pictures of an AVI but the first by one."""
    truth = generate(tmp_path, workers=1, kinds=("flash",), limit=3)[2]["truth"]
    path = tmp_path / "flash/002.avi"
    times = [float(time) - clock.start_seconds(path) for time, _ in clock.pictures(path)]
    shown = {round(time, 3) for time in times}
    assert all(round(box[0], 3) in shown for box in truth["boxes"][1:])
    assert truth["boxes"][1][0] == pytest.approx(3 / 25)


@pytest.mark.slow
def test_whole_corpus(tmp_path: Path) -> None:
    table, report = DEMO.scan(tmp_path, ScanOptions())
    report.count(table)
    assert validate(table, {"demo": report.vocabulary}) == []
    assert not report.leaks and not report.labels_missing
    rows = table.to_pylist()
    assert len(rows) == len(CLIPS)
    assert sum(row["bytes"] for row in rows) < 60e6
    for row in rows:
        assert KEY.fullmatch(row["key"])
        path = tmp_path / row["uri"]
        assert path.stat().st_size == row["bytes"]
        facts = json.loads(row["extra"])
        if "fault" in facts:
            continue
        assert duration_seconds(path) == pytest.approx(SECONDS, abs=0.15)
        assert bool(row["words"]) == (row["label_names"] == ["head"])
        assert 0 < len(facts["truth"]["events"]) < 45
        assert len(clock.pictures(path)) > 8 * SECONDS
    again, _ = DEMO.scan(tmp_path, ScanOptions())
    assert again.equals(table)
