"""The child process of `sandbox`: reads items from standard input, writes outcomes to its output.

Started as `python -m pipeline.child`. It dies with its parent, cannot grow past the memory limit,
and what libraries print goes to standard error, because standard output carries the samples.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

from manifests import load_plugins
from pipeline.config import Limits, ShardConfig
from pipeline.errors import ClipError, Reason
from pipeline.item import Failed, Item, Made, Opened, Outcome

_PR_SET_PDEATHSIG = 1
MAX_OPEN_FILES = 256

Work = Callable[[Item], Iterator[Outcome | Opened]]


def main() -> None:
    """Serve items until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not settings:
        return
    limits = Limits(**settings["limits"])
    _die_with_parent(settings["parent"])
    _limit_resources(limits)
    load_plugins()
    _quiet_libraries()
    work = _work(settings["config"], limits)
    _reply(replies, {"type": "ready"})
    for line in sys.stdin.buffer:
        message = json.loads(line)
        _serve(Item(message["root"], tuple(message["rows"])), work, replies)


def _work(config: dict[str, Any], limits: Limits) -> Work:
    """What this child makes of an item, by its configuration."""
    if "field" in config:
        from pipeline.field_samples import FieldConfig, side_outcomes

        return partial(side_outcomes, config=FieldConfig.from_dict(config), limits=limits)
    if "page_rate_hz" in config:
        from pipeline.playback import sound_outcomes

        return partial(sound_outcomes, page_rate_hz=config["page_rate_hz"], limits=limits)
    from pipeline.sample import outcomes

    return partial(outcomes, config=ShardConfig.from_dict(config), limits=limits)


def _serve(item: Item, work: Work, replies: IO[bytes]) -> None:
    """Answer one item: a message an outcome, then `done`."""
    for outcome in _guarded(item, work):
        if isinstance(outcome, Opened):
            _reply(replies, {"type": "opened", "seconds": outcome.seconds})
        elif isinstance(outcome, Failed):
            error = outcome.error
            head = {"reason": error.reason, "detail": error.detail, "stage": error.stage}
            _reply(replies, {"type": "failed", "index": outcome.index, **head})
        else:
            _reply_sample(replies, outcome)
    _reply(replies, {"type": "done"})


def _guarded(item: Item, work: Work) -> Any:
    """The outcomes; an error nobody foresaw fails the rows still open, by name, and is printed."""
    left = set(range(len(item.rows)))
    try:
        for outcome in work(item):
            if not isinstance(outcome, Opened):
                left.discard(outcome.index)
            yield outcome
    except Exception as error:  # the row must end in the ledger whatever a codec comes up with
        sys.excepthook(type(error), error, error.__traceback__)
        clip_error = ClipError(Reason.DECODE_ERROR, f"{type(error).__name__}: {error}", "sample")
        for index in sorted(left):
            yield Failed(index, clip_error)


def _reply(replies: IO[bytes], head: dict[str, Any]) -> None:
    _write_all(replies, json.dumps(head).encode() + b"\n")


def _reply_sample(replies: IO[bytes], made: Made) -> None:
    sizes = [[name, len(data)] for name, data in made.members.items()]
    head = {"type": "made", "index": made.index, "members": sizes, "facts": made.facts}
    _reply(replies, head)
    for data in made.members.values():
        _write_all(replies, data)


def _write_all(replies: IO[bytes], data: bytes) -> None:
    """Write everything; an unbuffered pipe may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[replies.write(view) :]


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    The parent may be gone already, and in a container it may be process 1: hence its number.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _limit_resources(limits: Limits) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowered, hard))


def _quiet_libraries() -> None:
    """One thread, and no library chatter about damaged files: the ledger says what matters."""
    import av.logging
    import cv2

    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.PANIC)


if __name__ == "__main__":
    main()
