"""How far long work is: a bar on a terminal, a line now and then in the log of a batch job."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from math import ceil
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

T = TypeVar("T")
LINE_SECONDS = 60.0


def with_progress(
    items: Iterable[T], what: str, unit: str, total: int | None = None
) -> Iterator[T]:
    """The items, one by one; how many are done is told meanwhile.

    Args:
        items: to be worked on.
        what: what the work is, for people.
        unit: what items are called, in the plural: "parts".
        total: how many there are; None asks the items, which may not know.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit=unit, total=total, leave=False)
        return
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= LINE_SECONDS:
            told = now
            log.info("%s: %s", what, _line(done, unit, total, now - started))
        yield item


def _line(done: int, unit: str, total: int | None, seconds: float) -> str:
    if total is None or not done:
        return f"{done} {unit}"
    left = ceil(seconds / done * (total - done) / 60)
    return f"{done} of {total} {unit}, about {left} min left"
