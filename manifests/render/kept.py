"""Rendering what is missing of a corpus, and keeping what is there and complete.

Beside each file lies its truth, NAME.json, which is written last: with it the file is complete. A
file that was made from another description is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

Facts = dict[str, Any]


class Named(Protocol):
    """A clip that can be rendered; it is pickled, and belongs to one file."""

    @property
    def name(self) -> str:
        """Path of its file below the corpus, without ending."""
        ...

    @property
    def cost(self) -> float:
        """Grows with the time it takes."""
        ...


C = TypeVar("C", bound=Named)


@dataclass(frozen=True)
class Renderer(Generic[C]):
    """How the clips of one corpus become files."""

    render: Callable[[C, Path], Facts]
    """(clip, root) -> plain values with at least `uri` and `bytes`; a function of a module."""
    describe: Callable[[C], Facts]
    """The clip as plain JSON values."""

    def kept(self, root: Path, clips: Sequence[C], workers: int | None = None) -> list[Facts]:
        """Render what is missing below a folder, which is made.

        Args:
            root: folder of the corpus.
            clips: which of it.
            workers: processes to render in; None: as many as there are CPUs for us.

        Returns:
            What `render` said of each clip, in their order.
        """
        root.mkdir(parents=True, exist_ok=True)
        if self._missing(root, clips):
            with _alone(root):
                self._render_missing(root, self._missing(root, clips), workers)
        return [facts for clip in clips if (facts := self._complete(root, clip)) is not None]

    def _missing(self, root: Path, clips: Sequence[C]) -> list[C]:
        return [clip for clip in clips if self._complete(root, clip) is None]

    def _render_missing(self, root: Path, missing: list[C], workers: int | None) -> None:
        if missing:
            sys.stderr.write(f"rendering {len(missing)} clips into {root}\n")
        # Those that take longest come first, which keeps all workers busy to the end.
        missing.sort(key=lambda clip: -clip.cost)
        for _ in _progress(self._render_all(missing, root, workers), len(missing)):
            pass

    def _render_all(self, clips: list[C], root: Path, workers: int | None) -> Iterator[None]:
        """Render clips in a pool of processes; one at a time here if that is all there is."""
        workers = min(len(clips), workers or len(os.sched_getaffinity(0)))
        if workers <= 1:
            for clip in clips:
                self.make(clip, root)
                yield
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(self.make, clip, root) for clip in clips]):
                done.result()
                yield

    def make(self, clip: C, root: Path) -> None:
        """Render one clip, then write its truth beside it."""
        import cv2

        cv2.setNumThreads(1)  # the processes share the machine already
        path = _truth_path(root, clip)
        path.unlink(missing_ok=True)
        facts = {**self.render(clip, root), "clip": self.describe(clip)}
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
        part.replace(path)

    def _complete(self, root: Path, clip: C) -> Facts | None:
        """The facts of a clip that is there, was made from this description, and has its size."""
        try:
            facts: Facts = json.loads(_truth_path(root, clip).read_text(encoding="utf-8"))
            size = (root / facts["uri"]).stat().st_size
        except (FileNotFoundError, ValueError, KeyError):
            return None
        same = facts.get("clip") == json.loads(json.dumps(self.describe(clip)))
        return facts if same and size == facts["bytes"] else None


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two jobs on one corpus would each unlink what the other has just made.

    The folder itself is locked: nothing is left in it, and the lock goes free with the process.
    """
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"another process renders into {root}; waiting until it is through\n")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _truth_path(root: Path, clip: Named) -> Path:
    return root / f"{clip.name}.json"


def _progress(steps: Iterator[None], total: int) -> Iterator[None]:
    """A bar on a terminal, silence elsewhere."""
    if not total:
        return
    from tqdm import tqdm

    yield from tqdm(steps, "rendering clips", total, unit="clip", disable=not sys.stderr.isatty())
