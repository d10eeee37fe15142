"""The minutes of a piece of a study: at their end training is asked to stop, an evaluation is cut.

A run goes on from its checkpoint, an evaluation from those parts of its features that were whole.
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
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        """By the monotonic clock."""
        self.worked = False
        """Whether the piece has done something new; whoever does it says so."""

    def is_over(self) -> bool:
        """Whether the time is over; says so."""
        over = self.end is not None and time.monotonic() >= self.end
        if over:
            log.info("the minutes are over; the same command goes on")
        return over

    @contextmanager
    def rings(self) -> Iterator[None]:
        """Send this process SIGUSR1 when the time is over, which the training loop hears.

        Again each second until the block is left: Python drops what a handler raises while an
        object is being destroyed.
        """
        if self.end is None:
            yield
            return
        left = threading.Event()
        bell = threading.Thread(target=_ring, args=(self.end, left), daemon=True)
        try:
            bell.start()  # it may ring before this returns
            yield
        finally:
            left.set()
            bell.join()

    @contextmanager
    def cuts(self) -> Iterator[None]:
        """Raise OutOfTime in the main thread when the time is over, if the piece has `worked`.

        Each piece ends at least one thing: what is longer than a piece would else never be done.
        """
        if not self.worked:
            yield
            return
        before = signal.signal(signal.SIGUSR1, _cut)
        try:
            with self.rings():
                yield
        finally:
            signal.signal(signal.SIGUSR1, before)


def _ring(end: float, left: threading.Event) -> None:
    """Signal from the end on, every second until `left`."""
    wait = max(end - time.monotonic(), 0)
    while not left.wait(wait):
        os.kill(os.getpid(), signal.SIGUSR1)
        wait = 1.0


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
