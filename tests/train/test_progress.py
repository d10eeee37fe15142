"""How far long work is, in the log of a job without a terminal."""

import io
import logging
import sys
from itertools import count

import pytest

from train import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_a_log(monkeypatch: pytest.MonkeyPatch, seconds_an_item: int) -> None:
    """No terminal, and a clock that goes on so far each time it is read."""
    clock = count(0, seconds_an_item)
    monkeypatch.setattr("train.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines after 75 s, and after 150."""
    in_a_log(monkeypatch, seconds_an_item=25)
    with caplog.at_level(logging.INFO):
        assert list(progress.with_progress(range(7), "features", "parts")) == list(range(7))
    assert [one.message for one in caplog.records] == [
        "features: 2 of 7 parts, about 4 min left",
        "features: 5 of 7 parts, about 1 min left",
    ]


def test_what_has_no_length_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_a_log(monkeypatch, seconds_an_item=100)
    with caplog.at_level(logging.INFO):
        assert list(progress.with_progress(iter("ab"), "windows", "batches")) == ["a", "b"]
        list(progress.with_progress(iter("ab"), "windows", "batches", total=2))
    assert [one.message for one in caplog.records] == [
        "windows: 0 batches", "windows: 1 batches", "windows: 0 batches",
        "windows: 1 of 2 batches, about 4 min left"]  # fmt: skip


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(progress.with_progress([1, 2, 3], "features", "parts")) == [1, 2, 3]
    assert "features" in screen.getvalue()
    assert "/3" in screen.getvalue()
    assert not caplog.records
