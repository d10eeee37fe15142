"""`pipeline.status`: counts, rates and times from sidecars alone."""

import json
import os
from pathlib import Path

import pytest

from pipeline import PROFILES
from pipeline.status import covered_seconds, status, status_lines
from pipeline.units import bytes_text, time_text
from tests.pipeline.fabricate import edit_json, fabricate

START = 1_700_000_000.0


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """Four shards of four rows, three committed one after the other, 4 s each; no index."""
    out = fabricate(tmp_path / "out", PROFILES["glcm"], shards=4)
    for number in range(4):
        path = out / f"shards/train-{number:06d}.json"
        run = {"host": f"node-{number % 2}", "started_unix": START + 4 * number, "work_seconds": 4}
        edit_json(path, run=run)
        os.utime(path, (START, START + 4 * number + 4))
    (out / "shards/train-000003.json").unlink()
    for name in ("shardindex.json", "samples.parquet", "errors.parquet"):
        (out / name).unlink()
    return out


def test_counts_while_the_job_runs(running: Path) -> None:
    state = status(running)
    assert (state.shards, state.planned_shards) == (3, 4)
    assert (state.rows, state.samples, state.errors, state.planned_rows) == (12, 9, 3, 16)
    assert state.seconds == pytest.approx(18)
    assert state.planned_seconds == pytest.approx(24)
    assert state.reasons == {"no_audio": 3}
    assert state.hosts["node-0"] == {"shards": 2, "errors": 2}


def test_rate_and_time_to_go(running: Path) -> None:
    state = status(running)
    assert state.wall_seconds == pytest.approx(12)
    assert state.x_real_time == pytest.approx(18 / 12)
    assert state.rows_per_second == pytest.approx(1)
    assert state.eta_seconds == pytest.approx(4)


def test_a_pause_between_two_jobs_does_not_slow_the_rate(running: Path) -> None:
    path = running / "shards/train-000002.json"
    later = START + 86400
    edit_json(path, run={"host": "node-0", "started_unix": later, "work_seconds": 4})
    os.utime(path, (later, later + 4))
    state = status(running)
    assert state.wall_seconds == pytest.approx(12)
    assert state.rows_per_second == pytest.approx(1)


def test_a_copied_set_keeps_its_rate(running: Path) -> None:
    for path in (running / "shards").glob("*.json"):
        os.utime(path, (START, START + 1e6))
    assert status(running).rows_per_second == pytest.approx(1)


def test_lines_and_json(running: Path) -> None:
    state = status(running)
    text = "\n".join(status_lines(state, now_unix=START + 32))
    assert "12 of 16 (75.0%): 9 samples, 3 errors" in text
    assert "1.5 x real time" in text
    assert "committed 20 s ago" in text
    assert "to go     4.0 s" in text
    assert "no_audio 3" in text
    assert json.loads(json.dumps(state.as_dict()))["rows"] == 12


def test_nothing_done_yet(running: Path) -> None:
    for path in (running / "shards").glob("*.json"):
        path.unlink()
    state = status(running)
    assert (state.shards, state.eta_seconds) == (0, None)
    assert "0 of 16 (0.0%)" in status_lines(state)[2]


def test_a_broken_sidecar_is_a_line(running: Path) -> None:
    (running / "shards/train-000000.json").write_text("{")
    state = status(running)
    assert state.shards == 2
    assert "is not JSON" in status_lines(state)[-1]


def test_the_union_of_spans() -> None:
    assert covered_seconds([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3.0 s"), (48, "48 s"), (720, "12 min"), (11160, "3.1 h"), (2e5, "2.3 days")],
)
def test_times_as_a_person_says_them(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_bytes_as_a_person_says_them() -> None:
    assert [bytes_text(n) for n in (512, 1.2e6, 3.4e12)] == ["512 B", "1.2 MB", "3.4 TB"]
