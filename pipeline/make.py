"""`pipeline shards` from end to end: manifest, plan, job, index, summary.

The other commands that write into an output folder (`plan`, `finalize`, `retry`) are here too; what
only looks at one is in verify, status, peek, report.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import manifests
import manifests.build
from manifests import schema
from manifests.dataset import ScanOptions
from manifests.errors import UsageError
from pipeline import PROFILES, profile_for
from pipeline.config import Limits, ShardConfig
from pipeline.errors import Reason, ShardError, disk_sentence
from pipeline.host import usable_cores
from pipeline.index import Ledger, finalize
from pipeline.job import JobOptions, Result, clean, run
from pipeline.lock import lock
from pipeline.options import ShardsOptions
from pipeline.prepare import Prepared, Wish, load, prepare

COMPLETE, INCOMPLETE = 0, 3


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
    with lock(out, shared=job.task is not None):
        with _planning(out):
            prepared = prepare(out, wish(options, out, say))
        say(_plan_line(prepared))
        result = run(prepared, job)
        if job.task is not None:
            return _task_outcome(prepared, result)
        ledger = _finalize(prepared, result)
        if not result.stopped:
            clean(out)
    lines = summary(prepared, result, ledger)
    if _is_complete(result, ledger):
        lines.append(f"Report: {write_page(out)}")
    return Outcome(lines, COMPLETE if _is_complete(result, ledger) else INCOMPLETE)


def _finalize(prepared: Prepared, result: Result) -> Ledger:
    """The tables and the index; a disk too full for them was mostly too full for a shard before.

    Raises:
        ShardError: they cannot be written.
    """
    try:
        return finalize(prepared, partial=False)
    except OSError as error:
        raise ShardError(result.stopped or disk_sentence(str(prepared.out), error)) from error


def finalize_folder(out: Path, *, partial: bool) -> Outcome:
    """Write index, tables and report of a folder that a job array has filled."""
    prepared = load(out)
    with lock(out, shared=False):
        ledger = finalize(prepared, partial=partial)
    missing = len(prepared.plan.shards) - ledger.shards
    lines = ledger_lines(ledger)
    if missing:
        lines.append(f"{missing} of {len(prepared.plan.shards)} shards are not made yet")
        if not partial:
            return Outcome([*lines, "no index was written; --partial writes one"], INCOMPLETE)
        lines.append(f"Index, marked incomplete: {out / 'shardindex.json'}")
        return Outcome(lines, COMPLETE)
    clean(out)
    return Outcome(
        [*lines, f"Report: {write_page(out)}"], COMPLETE if ledger.samples else INCOMPLETE
    )


def output_folder(options: ShardsOptions) -> Path:
    """Where the shards go."""
    if options.out is not None:
        return Path(options.out)
    name = manifests.dataset(options.dataset).name
    return Path(options.data) / "shards" / f"{name}-{shard_config(options).profile}"


def shard_config(options: ShardsOptions) -> ShardConfig:
    """The profile, with the flags applied.

    Raises:
        UsageError: unknown profile, or values that do not go together.
    """
    name = options.profile or profile_for(manifests.dataset(options.dataset).name)
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    changes: dict[str, Any] = {}
    if options.faces is not None:
        changes["faces"] = options.faces
    try:
        if options.fps is not None:
            changes["fps"] = Fraction(options.fps)
        return dataclasses.replace(PROFILES[name], **changes)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"profile {name}: {error}") from error


def job_options(options: ShardsOptions) -> JobOptions:
    """How the job runs.

    Raises:
        UsageError: a flag has a value that cannot be.
    """
    if options.executor not in ("ray", "local"):
        raise UsageError(f"--executor {options.executor}: expected ray or local")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected at least 1")
    for name in ("seconds_per_shard", "limit", "timeout", "max_clip_seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if not 0 <= options.max_error_rate <= 1:
        raise UsageError(f"--max-error-rate {options.max_error_rate}: expected 0 to 1")
    limits = Limits()
    if options.timeout is not None:
        limits = dataclasses.replace(limits, base_seconds=options.timeout)
    if options.max_clip_seconds is not None:
        limits = dataclasses.replace(limits, max_clip_seconds=options.max_clip_seconds)
    return JobOptions(
        executor=options.executor,
        workers=options.workers or usable_cores(),
        ray_address=options.ray_address or os.environ.get("RAY_ADDRESS") or None,
        max_error_rate=options.max_error_rate,
        limits=limits,
        task=_task(options.task),
    )


def _task(text: str | None) -> tuple[int, int] | None:
    """(I, N) from `I/N`."""
    if text is None:
        return None
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise UsageError(f"--task {text}: expected I/N with I from 0 to N-1, such as 0/16")
    return int(first), int(count)


def wish(options: ShardsOptions, out: Path, say: Any) -> Wish:
    """The manifest's rows and what to do with them."""
    dataset = manifests.dataset(options.dataset)
    path, root = _manifest(options, out, say)
    rows = schema.read(path)
    problems = schema.validate(rows) if options.manifest is not None else []
    if problems:
        raise UsageError(f"manifest {path}: " + " ".join(problems))
    return Wish(
        rows=rows,
        dataset=dataset.name,
        root=str(root),
        licence=dataset.licence,
        labels=tuple(schema.read_labels(path, dataset.name) or ()),
        config=shard_config(options),
        seconds_per_shard=options.seconds_per_shard,
        limit=options.limit,
        overwrite=options.overwrite,
    )


def _manifest(options: ShardsOptions, out: Path, say: Any) -> tuple[Path, Path]:
    """The manifest file and the root its paths count from; made if it is not there or not true."""
    if options.manifest is not None:
        path = Path(options.manifest)
        facts = schema.read_facts(path)
        root = Path(options.root or facts.root)
        if not root.is_dir():
            raise UsageError(f"the root of {path} is {str(root)!r}; name the folder with --root")
        return path, root.absolute()
    data = Path(options.data)
    path = manifests.build.default_out(options.dataset, data)
    if options.out is not None:
        path = out / "scan.parquet"
    root_wanted = Path(options.root) if options.root else None
    if root_wanted is None and options.table is None:
        root_wanted = manifests.build.default_root(options.dataset, data)
    scan = ScanOptions(
        annotations=Path(options.annotations) if options.annotations else None,
        table=Path(options.table) if options.table else None,
        window_seconds=options.window,
        hop_seconds=options.hop,
        label_set=options.label_set,
    )
    built = manifests.build.ensure(options.dataset, root_wanted, path, scan)
    if built.rebuilt:
        for line in built.report.lines():
            say(line)
    return path, built.root.absolute()


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
def _planning(out: Path) -> Iterator[None]:
    """One process plans at a time; the tasks of a job array start together."""
    with open(out / "plan.lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_page(out: Path) -> Path:
    """OUT/report.html."""
    from pipeline.playback import source_sound_of
    from pipeline.report import write_report

    return write_report(out, sound_of=source_sound_of(out))


# --- what is said at the end --------------------------------------------------------------------


def _plan_line(prepared: Prepared) -> str:
    plan = prepared.plan
    seconds = sum(shard.seconds for shard in plan.shards)
    line = (
        f"{plan.name}: {plan.rows_in_shards} clips in {len(plan.shards)} shards, "
        f"about {seconds / 3600:.2f} h of media -> {prepared.out}"
    )
    return f"{line} ({prepared.note})" if prepared.note not in ("", "new") else line


def _is_complete(result: Result, ledger: Ledger) -> bool:
    tried = ledger.planned - ledger.not_run
    return not result.stopped and ledger.closes and ledger.samples > 0 and tried > 0


def summary(prepared: Prepared, result: Result, ledger: Ledger) -> list[str]:
    """Both sides of the ledger, the errors by reason, and what to do next."""
    lines = []
    if result.kept:
        lines.append(f"resumed: {result.kept} shards kept, {result.made} made")
    if result.made and result.wall_seconds:
        speed = result.seconds / result.wall_seconds
        took = time.strftime("%H:%M:%S", time.gmtime(result.wall_seconds))
        lines.append(f"{result.seconds:.0f} s of video in {took} ({speed:.1f}x real time)")
    lines += ledger_lines(ledger)
    if ledger.errors - ledger.not_run:
        lines.append(f"Why: python -m pipeline errors {prepared.out}")
    if result.stopped:
        lines.append(f"Stopped: {result.stopped}")
    elif not ledger.samples:
        lines.append("Not a single clip became a sample; the reasons above say why.")
    return lines


def ledger_lines(ledger: Ledger) -> list[str]:
    """Planned = samples + errors, and the reasons."""
    verdict = "the ledger closes" if ledger.closes else "THE LEDGER DOES NOT CLOSE"
    lines = [
        f"{ledger.planned} rows = {ledger.samples} samples in {ledger.shards} shards "
        f"({ledger.seconds / 3600:.2f} h) + {ledger.errors} errors: {verdict}"
    ]
    lines += [f"  {reason:<20}{count:>9}" for reason, count in ledger.reasons.most_common()]
    return lines


def _task_outcome(prepared: Prepared, result: Result) -> Outcome:
    """One task of a job array: its own slice is all it can speak for."""
    lines = [f"{result.kept} shards kept, {result.made} made by this task"]
    if result.stopped:
        return Outcome([*lines, f"Stopped: {result.stopped}"], INCOMPLETE)
    lines.append(f"when all tasks are through: python -m pipeline finalize {prepared.out}")
    return Outcome(lines, COMPLETE)


# --- errors and retry -----------------------------------------------------------------------------


def error_lines(out: Path, reason: str | None, most: int) -> list[str]:
    """The ledger's other half: why rows have no sample."""
    path = out / "errors.parquet"
    if not path.exists():
        raise UsageError(f"{path} is not there; `python -m pipeline finalize {out}` writes it")
    filters = None if reason is None else [("reason", "==", known_reason(reason))]
    rows = pq.read_table(path, filters=filters)
    counts = rows.group_by("reason").aggregate([("key", "count")]).to_pylist()
    lines = [f"{row['reason']:<20}{row['key_count']:>9}" for row in sorted_by_count(counts)]
    for row in rows.slice(0, most).to_pylist():
        lines.append(
            f"{row['key']}  {row['uri']}  {row['reason']} ({row['stage']}): {row['detail']}"
        )
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most} more in {path}")
    return lines or ["no errors"]


def sorted_by_count(counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The most frequent first."""
    return sorted(counts, key=lambda row: (-row["key_count"], row["reason"]))


def known_reason(name: str) -> str:
    """A reason's name, checked.

    Raises:
        UsageError: it is none of the closed set.
    """
    if name not in set(Reason):
        raise UsageError(f"unknown reason {name!r}; known: {', '.join(Reason)}")
    return name


def retry(out: Path, reason: str, options: JobOptions, say: Any) -> Outcome:
    """Make the shards again that have rows with this error, then index anew.

    A shard is made again as a whole, so that it stays a function of its rows; its other samples
    come out with the same bytes.
    """
    known_reason(reason)
    prepared = load(out)
    with lock(out, shared=False):
        named = sorted({row["shard"] for row in _errors_with(out, reason) if row["shard"]})
        if not named:
            return Outcome([f"no committed shard has rows that ended as {reason}"], COMPLETE)
        say(f"{len(named)} shards have rows that ended as {reason}; they are made again")
        for name in named:
            (out / "shards" / f"{name}.json").unlink(missing_ok=True)
        result = run(prepared, options)
        ledger = finalize(prepared, partial=False)
    lines = summary(prepared, result, ledger)
    if not _is_complete(result, ledger):
        return Outcome(lines, INCOMPLETE)
    return Outcome([*lines, f"Report: {write_page(out)}"], COMPLETE)


def _errors_with(out: Path, reason: str) -> list[dict[str, Any]]:
    path = out / "errors.parquet"
    if not path.exists():
        raise UsageError(f"{path} is not there; `python -m pipeline finalize {out}` writes it")
    rows: list[dict[str, Any]] = pq.read_table(path, filters=[("reason", "==", reason)]).to_pylist()
    return rows
