"""The shard job: a planned folder -> committed shards, index, ledger.

Submits the missing shards, the longest first and a bounded number at a time; watches, and stops
when too much goes wrong. Running the same command again does only what is missing.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline import interrupt, remote
from pipeline.config import Limits
from pipeline.errors import FAULTS, LostError, ShardError
from pipeline.executors import Executor, executor
from pipeline.mirror import tar_bytes
from pipeline.plan import PlannedShard
from pipeline.progress import LINE_EVERY_SECONDS, Display, Pace, Tally, read_progress
from pipeline.shard import ShardTask
from pipeline.watch import Moment, Watch, WatchOptions, remove_task_metrics

ERROR_RATE_AFTER_ROWS = 200
STALE_TEMPORARY_SECONDS = 3600.0
DONE = "all shards are made"
"""How a job ends that has nothing left to make."""
MOST_LOST_SHARDS = 3
"""A few shards may have lost their workers by bad luck; more mean that something is wrong."""


@dataclass(frozen=True)
class JobOptions:
    """How a job runs; nothing here changes a byte of the shards."""

    executor: str = "ray"
    workers: int = 1
    ray_address: str | None = None
    max_error_rate: float = 0.05
    limits: Limits = field(default_factory=Limits)
    scratch: str = ""
    """Folder of workers for what lies on stores; empty: see `stores.scratch`."""
    watch: WatchOptions = field(default_factory=WatchOptions)
    log_seconds: float = LINE_EVERY_SECONDS
    """Between two lines about the progress, where there is no terminal."""
    task: tuple[int, int] | None = None
    """(I, N): make only every N-th shard, from the I-th on (job arrays)."""


@dataclass
class Result:
    """How a job ended."""

    kept: int = 0
    """Shards that were there already."""
    made: int = 0
    failed: list[ShardError] = field(default_factory=list)
    """Why single shards could not be made."""
    stopped: str = ""
    """Why the job stopped early; empty if it did not."""
    rows: int = 0
    """Rows attempted in this run."""
    seconds: float = 0.0
    """Seconds of media made in this run."""
    wall_seconds: float = 0.0


class HasShards(Protocol):
    """A plan."""

    @property
    def name(self) -> str:
        """Of what is made."""

    @property
    def shards(self) -> list[PlannedShard]:
        """All shards."""


class Work(Protocol):
    """A planned folder: a set, or a field of one."""

    @property
    def out(self) -> Path:
        """Where `shards/` is."""

    @property
    def plan(self) -> HasShards:
        """What is to be made."""

    def is_made(self, shard: PlannedShard) -> bool:
        """Whether a shard is committed as the plan wants it."""

    def task(self, shard: PlannedShard, limits: Limits, scratch: str = "") -> ShardTask:
        """What a worker needs to make one shard."""


def run(prepared: Work, options: JobOptions) -> Result:
    """Make the missing shards of a planned folder.

    What is made again stays as it was until its new version is committed; the index, which knows
    the old one, is removed first.
    """
    started = time.monotonic()
    _remove_stale(prepared.out / "shards")
    missing = list(_missing(prepared, options.task))
    if any(_was_made(prepared.out / "shards" / f"{shard.name}.json") for shard in missing):
        remote.forget(prepared.out, "shardindex.json")
    result = Result(kept=len(_slice(prepared, options.task)) - len(missing))
    if missing:
        workers = min(options.workers, len(missing))
        with executor(options.executor, workers, options.ray_address) as pool:
            _Run(prepared, options, missing, result).work(pool)
    elif options.task is None:  # a killed job may have left metrics that say it runs, or none
        Watch(prepared.out, _moment(prepared, options, [], result.kept), options.watch).close(DONE)
    result.wall_seconds = time.monotonic() - started
    return result


def _was_made(sidecar: Path) -> bool:
    """Whether anything is left of an earlier version of a shard, which an index may list."""
    return sidecar.exists() or tar_bytes(sidecar.with_suffix(".tar")) is not None


def _slice(prepared: Work, task: tuple[int, int] | None) -> list[PlannedShard]:
    """The shards that are this process's to make."""
    shards = prepared.plan.shards
    return shards if task is None else shards[task[0] :: task[1]]


def _missing(prepared: Work, task: tuple[int, int] | None) -> Iterator[PlannedShard]:
    """Shards to make, the longest first so that none is left running alone at the end."""
    shards = sorted(_slice(prepared, task), key=lambda shard: (-shard.seconds, shard.name))
    return (shard for shard in shards if not prepared.is_made(shard))


def _clips_of(shards: Sequence[PlannedShard]) -> int:
    return sum(shard.rows for shard in shards)


def _moment(
    prepared: Work, options: JobOptions, missing: Sequence[PlannedShard], kept: int
) -> Moment:
    """How far the job is before anything is made."""
    return Moment(
        prepared.plan.name,
        shards=len(missing) + kept,
        kept=kept,
        clips=_clips_of(missing),
        task="" if options.task is None else f"{options.task[0]}/{options.task[1]}",
    )


class _Run:
    """One run over the missing shards."""

    def __init__(
        self, prepared: Work, options: JobOptions, missing: list[PlannedShard], result: Result
    ) -> None:
        self._prepared = prepared
        self._options = options
        self._waiting = missing[::-1]
        self._folder = prepared.out / "shards"
        self._running: set[str] = set()
        self._tally = Tally()
        self._result = result
        clips = _clips_of(missing)
        self._pace = Pace(clips)
        self._display = Display(clips, len(missing), self._pace, options.log_seconds)
        moment = _moment(prepared, options, missing, result.kept)
        self._outside = Watch(prepared.out, moment, options.watch)

    def work(self, pool: Executor) -> None:
        """Submit and watch until all is done or something stops the job."""
        how = "the job was stopped"
        try:
            while (self._waiting or self._running) and not self._result.stopped:
                self._top_up(pool)
                for finished in pool.poll():
                    self._running.discard(finished.name)
                    self._take(finished.name, finished.error)
                self._watch()
            self._own_up()
            how = self._result.stopped or DONE
        finally:
            self._display.close()
            self._outside.close(how)
            self._result.rows = self._tally.rows
            self._result.seconds = self._tally.seconds

    def _top_up(self, pool: Executor) -> None:
        while self._waiting and len(self._running) < pool.capacity:
            shard = self._waiting.pop()
            task = self._prepared.task(shard, self._options.limits, self._options.scratch)
            pool.submit(task)
            self._running.add(shard.name)

    def _take(self, name: str, error: ShardError | None) -> None:
        """Count a finished shard; one that cannot be written stops the job (the disk is full)."""
        if error is None:
            error = self._taken_over(name)
        if error is None:
            self._result.made += 1
            self._tally.add_sidecar(_sidecar(self._folder / f"{name}.json"))
            return
        self._result.failed.append(error)
        if not isinstance(error, LostError) or len(self._result.failed) > MOST_LOST_SHARDS:
            self._result.stopped = str(error)

    def _own_up(self) -> None:
        """Say at the end which shards could not be made."""
        if self._result.failed and not self._result.stopped:
            count = len(self._result.failed)
            self._result.stopped = (
                f"{count} shard{'s' if count > 1 else ''} could not be made "
                f"({self._result.failed[0]}); run the same command again"
            )

    def _taken_over(self, name: str) -> ShardError | None:
        """Note what is committed, if it is committed elsewhere; why not, where that fails."""
        try:
            remote.take(self._prepared.out, name)
        except ShardError as error:
            return error
        return None

    def _watch(self) -> None:
        """Show the state; stop if too many rows fail in ways that may mean a broken machine."""
        interrupt.check()
        now = self._tally.with_running(read_progress(self._folder, name) for name in self._running)
        self._pace.see(now.rows)
        self._display.show(now)
        self._outside.tell(
            running=len(self._running),
            clips_done=now.rows,
            committed=self._tally.copy(),
            clips_per_second=self._pace.clips_per_second,
            eta_seconds=self._pace.eta_seconds,
        )
        faults = sum(now.reasons[reason] for reason in FAULTS)
        if now.rows >= ERROR_RATE_AFTER_ROWS and faults > self._options.max_error_rate * now.rows:
            self._result.stopped = (
                f"{faults} of {now.rows} clips failed in ways that may mean a broken machine or "
                f"codec ({100 * faults / now.rows:.1f} %, --max-error-rate allows "
                f"{100 * self._options.max_error_rate:g} %)"
            )


def _sidecar(path: Path) -> dict[str, Any]:
    """What a worker has just committed.

    Raises:
        ShardError: it is not here, so the worker wrote to another disk.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ShardError(
            f"a worker says that it made the shard {path.stem}, and {path} is not here: the output "
            "folder must lie on one disk that all machines share"
        ) from error
    return found


def _remove_stale(folder: Path) -> None:
    """Remove temporary files that a killed job left more than an hour ago."""
    for path in folder.glob("*.tmp-*"):
        try:
            if time.time() - path.stat().st_mtime > STALE_TEMPORARY_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue  # its owner is alive and has just committed it


def clean(out: Path) -> None:
    """After a complete run: no temporary or progress file may be left, of killed drivers either."""
    for name in (".", "labels", "quality", "shards", "scan", "scan/labels"):
        for pattern in ("*.tmp-*", ".*.progress", ".*.tmp"):
            for path in (out / name).glob(pattern):
                path.unlink(missing_ok=True)
    remove_task_metrics(out)
