"""What is said on the terminal about a shard set: the plan, the ledger, the errors."""

import time
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from pipeline.errors import Reason
from pipeline.index import Ledger
from pipeline.job import Result
from pipeline.outputs import Outputs
from pipeline.plan import guess_note
from pipeline.prepare import Prepared
from pipeline.units import counted


def plan_line(prepared: Prepared) -> str:
    plan = prepared.plan
    seconds = sum(shard.seconds for shard in plan.cut_shards)
    rows = prepared.rows.table(0, plan.rows_in_shards, ["end_s", "expect"])
    line = (
        f"{plan.name}: {counted(plan.rows_in_shards, 'clip')} in "
        f"{counted(len(plan.shards), 'shard')}, "
        f"about {seconds / 3600:.2f} h of media{guess_note(rows)} -> {prepared.out}"
    )
    return f"{line} ({prepared.note})" if prepared.note else line


def is_complete(result: Result, ledger: Ledger) -> bool:
    tried = ledger.planned - ledger.not_run
    return not result.stopped and ledger.closes and ledger.samples > 0 and tried > 0


def summary(prepared: Prepared, result: Result, ledger: Ledger) -> list[str]:
    """Both sides of the ledger, the errors by reason, and what to do next."""
    lines = []
    if result.kept:
        lines.append(f"resumed: {counted(result.kept, 'shard')} kept, {result.made:,} made")
    if result.made and result.wall_seconds:
        speed = result.seconds / result.wall_seconds
        took = time.strftime("%H:%M:%S", time.gmtime(result.wall_seconds))
        lines.append(
            f"{result.seconds:.0f} s of video in {took} "
            f"({speed:.1f}x real time, the start of the workers included)"
        )
    lines += ledger_lines(ledger)
    if ledger.errors - ledger.not_run:
        lines.append(f"Why: python -m pipeline errors {prepared.out}")
    if result.stopped:
        lines.append(f"Stopped: {result.stopped}")
    elif not ledger.samples:
        lines.append("Not a single clip became a sample; the reasons above say why.")
    return lines


def ledger_lines(ledger: Ledger) -> list[str]:
    """Planned = samples + errors + dropped, and the reasons."""
    verdict = "the ledger closes" if ledger.closes else "THE LEDGER DOES NOT CLOSE"
    waiting = f" + {ledger.not_run} not run" if ledger.not_run else ""
    dropped = f" + {ledger.dropped} dropped" if ledger.dropped else ""
    lines = [
        f"{counted(ledger.planned, 'row')} = {counted(ledger.samples, 'sample')} in "
        f"{counted(ledger.shards, 'shard')} ({ledger.seconds / 3600:.2f} h) + "
        f"{counted(ledger.errors - ledger.not_run, 'error')}{waiting}{dropped}: {verdict}"
    ]
    failed = [(reason, n) for reason, n in ledger.reasons.most_common() if reason != Reason.NOT_RUN]
    return lines + [f"  {reason:<20}{count:>9}" for reason, count in failed]


def error_lines(out: Path, reason: str | None, most: int) -> list[str]:
    """The ledger's other half: why rows have no sample."""
    files = Outputs(out)
    rows = files.errors(None if reason is None else known_reason(reason))
    counts = rows.group_by("reason").aggregate([("key", "count")]).to_pylist()
    lines = [f"{row['reason']:<20}{row['key_count']:>9}" for row in sorted_by_count(counts)]
    for row in rows.slice(0, most).to_pylist():
        lines.append(
            f"{row['key']}  {row['uri']}  {row['reason']} ({row['stage']}): {row['detail']}"
        )
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most} more in {files.errors_path}")
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
