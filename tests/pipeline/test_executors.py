"""Threads of this process: what they share, and that they end."""

import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline import shard
from pipeline.config import Limits
from pipeline.errors import ClipError, Reason
from pipeline.executors import LocalExecutor
from pipeline.item import Failed
from pipeline.shard import ShardTask
from tests.pipeline.factory import CONFIG
from tests.pipeline.rows import row

LONG_SECONDS = 200
"""For what happens at once, on however busy a machine."""


class Decoders:
    """Children that say which file they are given, and wait to be let through."""

    def __init__(self) -> None:
        self.made = 0
        self.begun: dict[str, threading.Event] = {}
        self.may_end = threading.Event()

    def __call__(self, _config: Any, _limits: Any) -> "Decoders":
        self.made += 1
        return self

    def run(self, item: Any) -> Any:
        self.begun[item.uri].set()
        assert self.may_end.wait(LONG_SECONDS)
        yield Failed(0, ClipError(Reason.NO_AUDIO, "mute", "audio")), 1

    def stop(self) -> None:
        self.stopped = True
        self.may_end.set()

    close = stop
    stopped = False


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Decoders:
    made = Decoders()
    monkeypatch.setattr("pipeline.executors.Sandbox", made)
    return made


def tasks(decoders: Decoders, folder: Path, *names: str) -> list[ShardTask]:
    for name in names:
        (folder / f"{name}.mp4").write_bytes(b"video")
        decoders.begun[f"{name}.mp4"] = threading.Event()
    limits = Limits()
    return [
        ShardTask(name, ({**row(f"{name}.mp4"), "instance": 0},), str(folder), str(folder / "out"),
                  CONFIG, "", "", limits)
        for name in names
    ]  # fmt: skip


def finished(executor: LocalExecutor, count: int) -> set[str]:
    found: set[str] = set()
    while len(found) < count:
        found |= {done.name for done in executor.poll() if done.error is None}
    return found


def test_one_shard_is_committed_while_the_next_one_is_decoded(
    decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one worker, and never are two decoded at once."""
    commit = shard._commit
    decoders.may_end.set()

    def slow(task: ShardTask, tar: Path, sidecar: bytes) -> None:
        if task.name == "first":
            assert decoders.begun["second.mp4"].wait(LONG_SECONDS)
        commit(task, tar, sidecar)

    monkeypatch.setattr("pipeline.shard._commit", slow)
    executor = LocalExecutor(1)
    for task in tasks(decoders, tmp_path, "first", "second", "third"):
        executor.submit(task)
    assert finished(executor, 3) == {"first", "second", "third"}
    assert decoders.made == 1
    executor.stop()


def test_no_more_files_are_decoded_at_once_than_there_are_workers(
    decoders: Decoders, tmp_path: Path
) -> None:
    executor = LocalExecutor(2)
    assert executor.capacity == 4
    for task in tasks(decoders, tmp_path, "a", "b", "c", "d"):
        executor.submit(task)
    for name in ("a", "b"):
        assert decoders.begun[f"{name}.mp4"].wait(LONG_SECONDS)
    assert executor.poll() == []
    assert not any(decoders.begun[f"{name}.mp4"].is_set() for name in ("c", "d"))
    decoders.may_end.set()
    assert finished(executor, 4) == {"a", "b", "c", "d"}
    executor.stop()


def test_stopping_makes_nothing_that_waits_for_a_decoder(
    decoders: Decoders, tmp_path: Path
) -> None:
    executor = LocalExecutor(1)
    for task in tasks(decoders, tmp_path, "decoding", "waiting", "queued"):
        executor.submit(task)
    assert decoders.begun["decoding.mp4"].wait(LONG_SECONDS)
    executor.stop()
    assert not decoders.begun["waiting.mp4"].is_set()
    assert not decoders.begun["queued.mp4"].is_set()
