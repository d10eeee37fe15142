"""`pipeline shards` from end to end: manifest, plan, job, index, summary.

`finalize` is here too; `retry` and `drop` are files of their own, what only looks at a folder is in
verify, status, peek, report.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from pipeline import remote
from pipeline.errors import ShardError, disk_sentence
from pipeline.index import Ledger, finalize
from pipeline.job import Result, clean, run
from pipeline.lock import LOCK_NAME, lock
from pipeline.options import ShardsOptions
from pipeline.prepare import Prepared, load, prepare
from pipeline.purge import finish_interrupted
from pipeline.settings import job_options, output_folder, shard_config, wish
from pipeline.summary import is_complete, ledger_lines, plan_line, summary
from pipeline.view import SetView

COMPLETE, INCOMPLETE, CORRUPT = 0, 3, 5


@dataclass(frozen=True)
class Outcome:
    """What a command has to say, and its exit code."""

    lines: list[str]
    exit_code: int


def make_shards(options: ShardsOptions, say: Any) -> Outcome:
    """Make a shard set, or what is missing of it.

    Args:
        options: what the user asked for.
        say: called with lines worth showing while the work goes on.
    """
    shard_config(options)  # refuses what cannot be before anything is scanned
    out = output_folder(options)
    job = job_options(options)
    _check_writable(out)
    with locked(out, shared=job.task is not None):
        with remote.alone(out), _no_litter(out):
            remote.pull(out)
            finish_interrupted(out)
            prepared = prepare(out, wish(options, out, say))
            remote.push(out)
        say(plan_line(prepared))
        result = run(prepared, job)
        if job.task is not None:
            return _task_outcome(prepared, result)
        with remote.alone(out):
            ledger = write_tables(prepared, result)
            if not result.stopped:
                clean(out)
            lines = summary(prepared, result, ledger)
            if is_complete(result, ledger):
                lines.append(f"Report: {write_page(out)}")
            remote.push(out)
    return Outcome(lines, COMPLETE if is_complete(result, ledger) else INCOMPLETE)


@contextlib.contextmanager
def locked(out: Path, *, shared: bool) -> Iterator[None]:
    """One job on one output: on this machine, and everywhere where the output is on a store."""
    with lock(out, shared=shared), remote.lease(out, shared=shared):
        yield


def write_tables(prepared: Prepared, result: Result) -> Ledger:
    """The tables and the index; a disk too full for them was mostly too full for a shard before.

    Raises:
        ShardError: they cannot be written.
    """
    try:
        return finalize(prepared, partial=False)
    except OSError as error:
        raise ShardError(result.stopped or disk_sentence(str(prepared.out), error)) from error


def _task_outcome(prepared: Prepared, result: Result) -> Outcome:
    """One task of a job array: its own slice is all it can speak for."""
    lines = [f"{result.kept} shards kept, {result.made} made by this task"]
    if result.stopped:
        return Outcome([*lines, f"Stopped: {result.stopped}"], INCOMPLETE)
    lines.append(f"when all tasks are through: python -m pipeline finalize {prepared.out}")
    return Outcome(lines, COMPLETE)


def finalize_folder(out: Path, *, partial: bool) -> Outcome:
    """Write index, tables and report of a folder that a job array has filled."""
    load(out)  # says what is wrong with a folder before a lock is left in it
    with locked(out, shared=partial), remote.alone(out):
        remote.pull(out)
        finish_interrupted(out)
        prepared = load(out)
        ledger = finalize(prepared, partial=partial)
        if ledger.shards == len(prepared.plan.shards) and not partial:
            clean(out)
        outcome = _finalized(prepared, ledger, partial)
        remote.push(out)
    return outcome


def _finalized(prepared: Prepared, ledger: Ledger, partial: bool) -> Outcome:
    """What came of it; a complete set gets its page."""
    out = prepared.out
    missing = len(prepared.plan.shards) - ledger.shards
    lines = ledger_lines(ledger)
    if missing:
        lines.append(f"{missing} of {len(prepared.plan.shards)} shards are not made yet")
        if not partial:
            return Outcome([*lines, "no index was written; --partial writes one"], INCOMPLETE)
        lines.append(f"Index, marked incomplete: {out / 'shardindex.json'}")
        return Outcome(lines, COMPLETE)
    return Outcome(
        [*lines, f"Report: {write_page(out)}"], COMPLETE if ledger.samples else INCOMPLETE
    )


def _check_writable(out: Path) -> None:
    """Fail before anything is decoded.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    probe = out / f".probe-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to the output folder {out}: {error.strerror}. Choose another with --out"
        ) from error


@contextlib.contextmanager
def _no_litter(out: Path) -> Iterator[None]:
    """A refused request leaves no folder with lock files behind."""
    try:
        yield
    except UsageError:
        litter = (LOCK_NAME, remote.ALONE_NAME)
        if {path.name for path in out.iterdir()} <= set(litter):
            for name in litter:
                (out / name).unlink(missing_ok=True)
            out.rmdir()
        raise


def write_page(out: Path, view: SetView | None = None) -> Path:
    """OUT/report.html, with the counts of a view where there are some."""
    from pipeline.playback import source_sound_of
    from pipeline.report import write_report

    return write_report(out, sound_of=source_sound_of(out), view=view)
