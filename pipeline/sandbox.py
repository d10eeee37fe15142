"""One file at a time in a killable child process (distributed.md §1.4).

A segfault, hang, leak or bomb costs the file that caused it, and nothing else: the child is killed,
its rows get a named reason, and the next file starts in a fresh child. Otherwise the child stays
warm, since loading the codecs and the landmark model takes longer than a short clip.

The child speaks a small protocol on its standard output: for every message a header line of JSON,
then the raw members of a sample. Nothing is unpickled: what a child says after decoding a hostile
file is data, not code.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pipeline.config import Content, Limits
from pipeline.errors import RETRIED, ClipError, Reason
from pipeline.item import Failed, Item, Made, Outcome

PIPE_BYTES = 1 << 20
START_SECONDS = 300.0
"""For a child to load its libraries, which takes a second or two, and minutes on a busy machine:
no file is to blame for it."""
MAX_REPLY_BYTES = 1 << 30
MAX_TRIES = 2
MAX_TRIES_KILLED = 5
_F_SETPIPE_SZ = 1031


class KilledError(ClipError):
    """The child got SIGKILL, which it never sends itself: a person, or the kernel for memory."""

    def __init__(self) -> None:
        detail = "the child process was killed from outside, perhaps because memory ran out"
        super().__init__(Reason.OUT_OF_MEMORY, detail, "child")


class Stopped(Exception):
    """The job ends before its work is done; nothing is recorded about the rows at hand."""


class Sandbox:
    """A child process that turns items into outcomes; use as a context manager, or `close` it."""

    def __init__(self, config: Content, limits: Limits) -> None:
        self._config = config
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._stopped = False

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, item: Item) -> Iterator[tuple[Outcome, int]]:
        """Every row's outcome with the number of tries it took, as they come.

        Rows that end in a crash, a timeout or for lack of memory are tried once more in a fresh
        child, because load on the machine can cause them too; more often if the child was killed
        from outside, which says nothing about the file.
        """
        indices = list(range(len(item.rows)))
        for tries in range(1, MAX_TRIES_KILLED + 1):
            again: list[int] = []
            for outcome in self._attempt(item, indices):
                if isinstance(outcome, Failed) and tries < _tries_allowed(outcome.error):
                    again.append(outcome.index)
                else:
                    yield outcome, tries
            if not again:
                return
            self.close()
            indices = again

    def _attempt(self, item: Item, indices: list[int]) -> Iterator[Outcome]:
        """The outcomes of some of an item's rows; a dying child fails the ones still open."""
        if self._served >= self._limits.items_per_child:
            self.close()
        self._served += 1
        left = list(indices)
        part = Item(item.root, tuple(item.rows[index] for index in indices))
        try:
            for outcome in self._understood(part):
                index = indices[outcome.index]
                left.remove(index)
                yield _renumbered(outcome, index)
        except ClipError as error:
            if self._stopped:
                raise Stopped from error
            self.close()
            yield from (Failed(index, error) for index in left)

    def _understood(self, item: Item) -> Iterator[Outcome]:
        """The replies; one that makes no sense ends the child, for its memory may be damaged."""
        waiting = set(range(len(item.rows)))
        try:
            for outcome in self._converse(item):
                waiting.remove(outcome.index)
                yield outcome
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            detail = f"the child process made a reply without sense ({type(error).__name__})"
            raise ClipError(Reason.CRASH, detail, "child") from error
        if waiting:
            raise ClipError(Reason.CRASH, "the child process skipped a row", "child")

    def _converse(self, item: Item) -> Iterator[Outcome]:
        """Send an item, yield the replies until the child says it is done.

        Raises:
            ClipError: `crash`, `timeout` or `out_of_memory`; the child is unusable then.
        """
        child = self._child or self._ready()
        reader = _Reader(child, self._limits.base_seconds)
        with contextlib.suppress(BrokenPipeError):
            _send(child.stdin, {"root": item.root, "rows": item.rows})
        while True:
            head = reader.line()
            if head["type"] == "done":
                return
            if head["type"] == "opened":
                most = len(item.rows) * self._limits.max_clip_seconds
                reader.allow(min(head["seconds"], most) * self._limits.seconds_per_second)
            elif head["type"] == "failed":
                error = ClipError(Reason(head["reason"]), head["detail"], head["stage"])
                yield Failed(head["index"], error)
            else:
                members = {name: reader.exactly(size) for name, size in head["members"]}
                yield Made(head["index"], members, head["facts"])

    @property
    def stopped(self) -> bool:
        """Whether the work was ended from another thread."""
        return self._stopped

    def stop(self) -> None:
        """End the work from another thread: the child is killed, `run` raises `Stopped`."""
        self._stopped = True
        if (child := self._child) is not None:
            child.kill()

    def _ready(self) -> subprocess.Popen[bytes]:
        """A fresh child that waits for items, so that the first one has its whole time."""
        child = self._start()
        head = _Reader(child, START_SECONDS, "child process").line()
        if head["type"] != "ready":
            raise ValueError(head["type"])
        return child

    def _start(self) -> subprocess.Popen[bytes]:
        """A new process, in its own session so that a signal to the terminal spares it."""
        if self._stopped:
            raise Stopped
        settings = {
            "config": self._config.as_dict(),
            "limits": asdict(self._limits),
            "parent": os.getpid(),
        }
        environment = os.environ | child_environment()
        here = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(
            [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        with contextlib.suppress(OSError):  # a smaller pipe works too, only slower
            fcntl.fcntl(self._child.stdout.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[union-attr]
        self._served = 1
        with contextlib.suppress(BrokenPipeError):
            _send(self._child.stdin, settings)
        return self._child

    def close(self) -> None:
        """Kill the child and everything it started."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self._child.wait()
        self._child = None
        self._served = 0


def child_environment() -> dict[str, str]:
    """What a child runs with: one thread, and heap memory in huge pages.

    The landmark model is 100 MB of trees that are read all over; with pages of 2 MB the processor
    finds them a tenth faster. Other C libraries than glibc ignore the setting.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(threads, "1"), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class _Reader:
    """Reads a child's replies under a deadline."""

    def __init__(
        self, child: subprocess.Popen[bytes], seconds: float, awaited: str = "result"
    ) -> None:
        self._child = child
        self._awaited = awaited
        self._stream = child.stdout
        self._limit_seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._buffer = bytearray()

    def allow(self, seconds: float) -> None:
        """Extend the deadline once the length of the media is known."""
        self._limit_seconds += seconds
        self._deadline += seconds

    def line(self) -> dict[str, Any]:
        """The next header."""
        while (end := self._buffer.find(b"\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        header: dict[str, Any] = json.loads(line)
        return header

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        if not 0 <= size <= MAX_REPLY_BYTES:
            raise ClipError(Reason.CRASH, f"the child announced a member of {size} bytes", "child")
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self) -> None:
        """Wait for more bytes.

        Raises:
            ClipError: the deadline passed, or the child is gone.
        """
        assert self._stream is not None
        left = max(0.0, self._deadline - time.monotonic())
        if not select.select([self._stream], [], [], left)[0]:
            detail = f"no {self._awaited} after {self._limit_seconds:.0f} s"
            raise ClipError(Reason.TIMEOUT, detail, "child")
        data = os.read(self._stream.fileno(), PIPE_BYTES)
        if not data:
            raise self._death()
        self._buffer += data

    def _death(self) -> ClipError:
        """What a child that closed its pipe died of."""
        code = self._child.wait()
        if code == -signal.SIGKILL:
            return KilledError()
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        return ClipError(Reason.CRASH, f"the child process {how}", "child")


def _signal_name(number: int) -> str:
    """`SIGSEGV` for 11; real-time signals have no name."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _tries_allowed(error: ClipError) -> int:
    """How often rows with this error are tried in all."""
    if isinstance(error, KilledError):
        return MAX_TRIES_KILLED
    return MAX_TRIES if error.reason in RETRIED else 1


def _renumbered(outcome: Outcome, index: int) -> Outcome:
    if isinstance(outcome, Failed):
        return Failed(index, outcome.error)
    return Made(index, outcome.members, outcome.facts)


def _send(pipe: IO[bytes] | None, message: dict[str, Any]) -> None:
    assert pipe is not None
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()
