"""The minutes of a piece of a study: at their end training is asked to stop, an evaluation is cut.

A run goes on from its checkpoint, an evaluation from the parts of its features that are kept.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

log = logging.getLogger(__name__)


class OutOfTime(BaseException):
    """The minutes are over. No Exception: nothing may take it for an error of its own."""


class Clock:
    """Counts from when it is made."""

    def __init__(self, minutes: float | None) -> None:
        """Take the length of the piece; None has no end."""
        self._began = time.monotonic()
        self.end = None if minutes is None else self._began + 60 * minutes
        """By the monotonic clock."""

    def is_over(self) -> bool:
        """Whether the time is over; says so."""
        over = self.end is not None and time.monotonic() >= self.end
        if over:
            log.info("the minutes are over; the same command goes on")
        return over

    @contextmanager
    def rings(self) -> Iterator[None]:
        """Send this process SIGUSR1 when the time is over, which the training loop hears."""
        if self.end is None:
            yield
            return
        left = self.end - time.monotonic()
        alarm = threading.Timer(left, os.kill, (os.getpid(), signal.SIGUSR1))
        alarm.start()
        try:
            yield
        finally:
            alarm.cancel()

    @contextmanager
    def cuts(self) -> Iterator[None]:
        """Raise OutOfTime in the main thread when the time is over.

        What begins in the first half of the minutes is left to end: the next piece begins with
        what this one cuts, which would otherwise never be done where it is longer than a piece.
        """
        if self.end is None or time.monotonic() < (self._began + self.end) / 2:
            yield
            return
        before = signal.signal(signal.SIGUSR1, _cut)
        try:
            with self.rings():
                yield
        finally:
            signal.signal(signal.SIGUSR1, before)


def _cut(_number: int, _frame: Any) -> NoReturn:
    raise OutOfTime


@contextmanager
def deaf_to_alarms() -> Iterator[None]:
    """An alarm that rings beside the training loop must not end the process."""
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
