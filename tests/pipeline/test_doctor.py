"""`pipeline.doctor`: lines, never a traceback."""

from pathlib import Path

import pytest

from pipeline import doctor as module
from pipeline.doctor import Check, Diagnosis, cgroup_memory_bytes, doctor


def test_this_machine_has_what_the_tests_need(tmp_path: Path) -> None:
    diagnosis = doctor(tmp_path / "data")
    missing = [check for check in diagnosis.checks if check.state == "missing"]
    assert missing == []
    assert diagnosis.exit_code == 0
    text = "\n".join(diagnosis.lines())
    assert "non-commercial" in text
    assert "h264 hevc vp8 vp9 av1" in text


def test_a_library_that_is_not_there_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARIES", {"no_such_library": "no-such-distribution"})
    check = next(c for c in doctor().checks if c.what == "no_such_library")
    assert check.state == "missing"
    assert "make setup" in check.remedy


def test_another_landmark_model_is_noted_and_a_lost_one_is_missing(tmp_path: Path) -> None:
    model = tmp_path / "mine.dat"
    model.write_bytes(b"x")
    states = {
        path: next(c.state for c in doctor(landmarks=path).checks if c.what == "landmarks")
        for path in (model, tmp_path / "lost.dat")
    }
    assert list(states.values()) == ["note", "missing"]


def test_what_is_missing_makes_the_exit_code_3() -> None:
    assert Diagnosis((Check("a", "ok", ""), Check("b", "missing", "gone", "get it"))).exit_code == 3
    assert Diagnosis((Check("a", "note", "small"),)).exit_code == 0
    assert Diagnosis((Check("b", "missing", "gone", "get it"),)).lines() == [
        "missing b  gone; get it"
    ]


def test_the_memory_limit_of_a_container(tmp_path: Path) -> None:
    assert cgroup_memory_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_memory_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("2147483648\n")
    assert cgroup_memory_bytes(tmp_path) == 1 << 31
