"""Trying again what fails in passing, with growing pauses; what cannot succeed is said at once."""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from stores.errors import RefusedStoreError, StoreError

log = logging.getLogger(__name__)

TRIES = 8
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
NEVER = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT"
    r"|EXPIRED_TOKEN|HTTP status (?:30\d|400|401|403|404)|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|INVALID_ARGUMENT|credentials|access token",
    re.IGNORECASE,
)
"""In what pyarrow says: trying again would not help."""
LOOK_SECONDS = 0.5
"""How often a pause looks whether to go on."""

_told_to_stop: list[bool] = []

T = TypeVar("T")


class RefusedError(OSError):
    """The other side said no, and would say so again."""


def give_up() -> None:
    """Nobody waits any more: what fails now or already paused for another try is not tried again.

    For signal handlers, which may come while any lock is held: this takes none.
    """
    _told_to_stop.append(True)


def retried(url: str, action: Callable[[], T], doing: str = "read") -> T:
    """Do it; after a failure that may pass, wait and do it again, `TRIES` times in all.

    Args:
        url: what it is done to, for messages.
        action: may be done again after it failed at any moment.
        doing: past participle for the messages: read, written, listed.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: refused, or still failing; says which address, how often it was tried, what
            was said last and what to do.
    """
    began = time.monotonic()
    for tries in range(1, TRIES + 1):
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, RefusedError) or NEVER.search(said):
                raise RefusedStoreError(
                    f"{url} cannot be {doing}: {said}. Check the address and the credentials that "
                    "this machine uses (README, shards elsewhere)"
                ) from error
            if tries == TRIES or not _paused(url, said, tries):
                seconds = time.monotonic() - began
                raise StoreError(
                    f"{url} could not be {doing}, tried {tries} times in {seconds:.0f} s; the last "
                    f"time: {said}. When it can be reached again, the same command goes on where "
                    "it stopped"
                ) from error
    raise AssertionError("the last try returns or raises")


def _paused(url: str, said: str, tries: int) -> bool:
    """Wait before the next try; False if there is to be none, because the process is to end."""
    pause = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS)
    pause *= random.SystemRandom().uniform(0.5, 1)  # many readers must not come in step
    if not _told_to_stop:
        log.warning("%s: %s; again in %.1f s (%d of %d)", url, said, pause, tries, TRIES)
    end = time.monotonic() + pause
    while not _told_to_stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(LOOK_SECONDS, left))
    return not _told_to_stop
