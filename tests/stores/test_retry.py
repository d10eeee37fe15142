"""Trying again, and when no longer."""

import threading
import time

import pytest

from stores import retry
from stores.errors import StoreError
from stores.retry import retried


def test_who_is_told_to_stop_does_not_wait_for_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(retry, "_told_to_stop", [])
    tried = threading.Event()
    said: list[str] = []

    def away() -> None:
        tried.set()
        raise OSError("nobody there")

    def trying() -> None:
        with pytest.raises(StoreError) as error:
            retried("s3://shelf/one", away)
        said.append(str(error.value))

    thread = threading.Thread(target=trying)
    thread.start()
    assert tried.wait(60)
    time.sleep(0.2)  # into the pause, which is of minutes
    retry.give_up()
    thread.join(60)
    trying()  # what fails from now on is tried once
    assert ["tried 1 times" in one for one in said] == [True, True]


def test_what_passes_is_tried_until_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    left = [OSError("500"), OSError("503")]

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    assert retried("s3://shelf/one", action) == "done"
