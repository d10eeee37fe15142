"""A study within the minutes it is given: pieces that each get on."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.studies.asked import RANDOM, config, fake_result
from train.studies import study
from train.studies.catalogue import STUDIES, Row
from train.studies.clock import Clock, OutOfTime, deaf_to_alarms


def test_when_the_minutes_are_over_the_run_is_told_and_the_study_ends(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def waits_for_the_signal(run: Any, stop: Any) -> int:
        before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
        while not told:
            time.sleep(0.01)
        signal.signal(signal.SIGUSR1, before)
        return 85

    monkeypatch.setattr(study, "pretrain", waits_for_the_signal)
    trained_first = replace(STUDIES["table5"], rows=(Row("Ours", "glcm"), RANDOM))
    monkeypatch.setitem(STUDIES, "table5", trained_first)
    assert study.study(config(tmp_path, minutes=0.005)) == 85
    assert told == [signal.SIGUSR1]
    assert study.study(config(tmp_path, minutes=0.0)) == 85, "no time for anything"


def test_when_the_minutes_are_over_no_further_evaluation_begins(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    evaluated: list[str] = []

    def takes_a_minute(one: Any) -> dict[str, Any]:
        evaluated.append(one.task)
        clock[0] += 60
        return fake_result(one)

    monkeypatch.setattr(study, "evaluate", takes_a_minute)
    monkeypatch.setattr("train.studies.study.time.monotonic", lambda: clock[0])
    assert study.study(config(tmp_path, minutes=1.5)) == 85
    assert evaluated == ["grid_digits", "grid_letters"], "of the first row, without training"


def evaluation(seconds: list[float], ended: list[str]) -> Any:
    """An evaluation that takes so long each time it is not done yet, and keeps no part."""

    def evaluate(one: Any) -> dict[str, Any]:
        done = Path(one.run) / "eval" / one.task / "fold1" / "predictions.parquet"
        if not done.is_file():
            time.sleep(seconds.pop(0))
            done.parent.mkdir(parents=True)
            done.touch()
            ended.append(one.task)
        return fake_result(one)

    return evaluate


class AlwaysLate(Clock):
    """Over from the beginning, without anyone asking."""

    def is_over(self) -> bool:
        return False


class NoTime(AlwaysLate):
    """Whatever may be cut is cut before it begins."""

    @contextmanager
    def cuts(self) -> Iterator[None]:
        if self.worked:
            raise OutOfTime
        yield


def test_an_evaluation_at_the_end_of_the_minutes_is_cut_and_done_by_the_next_piece(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    ended: list[str] = []
    monkeypatch.setattr(study, "evaluate", evaluation([0.05, 60, 0, 0, 0, 0, 0], ended))
    monkeypatch.setattr(study, "Clock", AlwaysLate)
    heard = signal.getsignal(signal.SIGUSR1)
    assert study.study(config(tmp_path, minutes=0)) == 85
    assert ended == ["grid_digits"]
    assert "the minutes are over within grid_letters of grid/random-glcm-0" in caplog.text
    assert signal.getsignal(signal.SIGUSR1) == heard
    assert study.study(config(tmp_path)) == 0
    assert ended[1] == "grid_letters"
    assert len(ended) == 6


def test_every_piece_does_something_however_long_it_takes_to_find_what_is_done(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation longer than a piece would never end where each piece cuts it."""
    ended: list[str] = []

    def trains_once(run: Any, stop: Any) -> int:
        if not (run.folder / "finished.json").is_file():
            run.folder.mkdir(parents=True)
            (run.folder / "finished.json").touch()
            ended.append(run.method)
        return 0

    monkeypatch.setattr(study, "evaluate", evaluation([0.02] * 6, ended))
    monkeypatch.setattr(study, "pretrain", trains_once)
    monkeypatch.setattr(study, "Clock", NoTime)
    done: list[int] = []
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        codes.append(study.study(config(tmp_path, minutes=1)))
        done.append(len(ended))
        assert len(done) < 10, "no piece got on"
    # Random weights have two evaluations, two runs two each.
    assert done == [1, 3, 4, 6, 7, 8]
    assert codes == [85] * 5 + [0]


def test_before_it_has_worked_a_piece_is_not_cut_and_then_it_is() -> None:
    clock = Clock(0)
    with deaf_to_alarms():
        with clock.cuts():
            time.sleep(0.05)
        clock.worked = True
        with pytest.raises(OutOfTime), clock.cuts():
            time.sleep(60)
