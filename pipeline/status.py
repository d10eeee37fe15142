"""`pipeline status OUT`: how far the job is, from the plan and the sidecars alone.

Works while any number of machines write, without talking to them: a sidecar is the commit mark and
carries host, start and errors. Keeps two numbers a shard, so memory does not depend on the clips.
"""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.account import account_of
from pipeline.errors import plain_text
from pipeline.field_check import field_lines
from pipeline.format import FormatError
from pipeline.outputs import Outputs, Sidecar
from pipeline.units import bytes_text, counted, time_text

RECENT_SECONDS = 3600.0
"""The rate is that of the last hour of work, so that it follows a change of machines."""

Span = tuple[float, float]


@dataclass
class Status:
    """How far a shard set is."""

    out: str
    name: str
    planned_shards: int
    planned_rows: int
    planned_seconds: float
    """Seconds of video in the manifest; unknown lengths count as 0."""
    shards: int = 0
    """Committed."""
    samples: int = 0
    errors: int = 0
    dropped: int = 0
    """Rows taken back: neither samples nor errors."""
    seconds: float = 0.0
    """Seconds of video stored."""
    filesize: int = 0
    """Bytes of the committed tars."""
    work_seconds: float = 0.0
    """Time spent on shards, added over processes."""
    wall_seconds: float = 0.0
    """Time in which at least one shard was worked on; pauses between jobs do not count."""
    x_real_time: float | None = None
    """Seconds of video stored for each second of the last hour of work."""
    rows_per_second: float | None = None
    eta_seconds: float | None = None
    """Until the last row, at that rate."""
    last_commit_unix: float | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Shards and errors by host."""
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    """Errors by host and reason."""
    unreadable: list[str] = field(default_factory=list)
    """Sidecars that cannot be read; `pipeline verify` says more."""
    fields: list[str] = field(default_factory=list)
    """What was added to the samples, and how far it is."""

    @property
    def rows(self) -> int:
        """Rows that are done with: samples, errors, taken back."""
        return self.samples + self.errors + self.dropped

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "rows": self.rows}


def status(out: Path) -> Status:
    """How far the set in `out` is.

    Raises:
        NotFinishedError: there is no plan yet.
    """
    outputs = Outputs(out)
    plan = outputs.plan
    account = account_of(out, plan)
    state = Status(
        out=str(out),
        name=plan.name,
        planned_shards=len(plan.shards),
        planned_rows=plan.rows_in_shards,
        planned_seconds=sum(shard.seconds for shard in plan.cut_shards),
        dropped=account.dropped_in_shards,
        fields=field_lines(out),
    )
    reasons: Counter[str] = Counter()
    work: list[tuple[Span, float, int]] = []
    for shard in plan.shards:
        elsewhere = account.not_of(shard.name)
        try:
            sidecar = outputs.sidecar(shard.name, with_samples=bool(elsewhere & account.dropped))
        except FormatError as error:
            state.unreadable.append(plain_text(str(error)))
            continue
        if sidecar is not None:
            _add(state, sidecar, elsewhere, reasons)
            work.append((_span(sidecar), sidecar.seconds, sidecar.rows))
    state.reasons = dict(reasons.most_common())
    _set_rate(state, work)
    return state


def _add(state: Status, sidecar: Sidecar, elsewhere: frozenset[str], reasons: Counter[str]) -> None:
    """Count a shard; entries whose rows are elsewhere now count there or not at all."""
    gone = [entry for entry in sidecar.samples if entry["key"] in elsewhere]
    errors = [error for error in sidecar.errors if error.get("key") not in elsewhere]
    state.shards += 1
    state.samples += sidecar.nsamples - len(gone)
    state.errors += len(errors)
    state.seconds += sidecar.seconds - sum(entry["seconds"] for entry in gone)
    state.filesize += sidecar.filesize
    state.work_seconds += float(sidecar.run.get("work_seconds") or 0)
    host = plain_text(str(sidecar.run.get("host")))
    counts = state.hosts.setdefault(host, {"shards": 0, "errors": 0})
    counts["shards"] += 1
    counts["errors"] += len(errors)
    failures = state.failures.setdefault(host, {})
    for error in errors:
        reason = plain_text(str(error.get("reason")))
        reasons[reason] += 1
        failures[reason] = failures.get(reason, 0) + 1
    state.last_commit_unix = max(state.last_commit_unix or 0, sidecar.committed_unix)


def _span(sidecar: Sidecar) -> Span:
    """When the shard was worked on. A copied set has new file times; then the start decides."""
    end = sidecar.committed_unix
    start = float(sidecar.run.get("started_unix") or end)
    work = float(sidecar.run.get("work_seconds") or 0)
    if not start <= end <= start + 10 * work + 60:
        end = start + work
    return start, end


def _set_rate(state: Status, work: list[tuple[Span, float, int]]) -> None:
    """Rate over the last hour in which anything was worked on."""
    state.wall_seconds = covered_seconds([span for span, _, _ in work])
    if not work:
        return
    newest = max(end for (_, end), _, _ in work)
    recent = [item for item in work if item[0][1] > newest - RECENT_SECONDS]
    wall = covered_seconds([span for span, _, _ in recent])
    rows = sum(rows for _, _, rows in recent)
    if wall <= 0 or not rows:
        return
    state.x_real_time = sum(seconds for _, seconds, _ in recent) / wall
    state.rows_per_second = rows / wall
    state.eta_seconds = max(0, state.planned_rows - state.rows) / state.rows_per_second


def covered_seconds(spans: list[Span]) -> float:
    """The length of the union of spans of time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


# --- text -------------------------------------------------------------------------------------


def status_lines(state: Status, now_unix: float | None = None) -> list[str]:
    """The state for a terminal."""
    share = state.rows / state.planned_rows if state.planned_rows else 1.0
    lines = [
        f"{state.name}  {state.out}",
        f"shards    {state.shards:,} of {state.planned_shards:,} committed, "
        f"{bytes_text(state.filesize)}",
        f"rows      {state.rows:,} of {state.planned_rows:,} ({share:.1%}): "
        f"{counted(state.samples, 'sample')}, {counted(state.errors, 'error')}"
        + (f", {state.dropped:,} dropped" if state.dropped else ""),
        f"video     {time_text(state.seconds)} stored, {time_text(state.planned_seconds)} planned",
    ]
    if state.x_real_time is not None and state.rows_per_second is not None:
        lines.append(
            f"speed     {state.x_real_time:.1f} x real time, {state.rows_per_second:.2f} rows/s; "
            f"{time_text(state.work_seconds)} of work in {time_text(state.wall_seconds)}"
        )
    if state.last_commit_unix is not None:
        ago = max(0.0, (now_unix or time.time()) - state.last_commit_unix)
        lines.append(f"last      committed {time_text(ago)} ago")
    if state.eta_seconds is not None and state.rows < state.planned_rows:
        lines.append(f"to go     {time_text(state.eta_seconds)} at this speed")
    if state.reasons:
        failed = ", ".join(f"{reason} {count:,}" for reason, count in state.reasons.items())
        lines.append(f"failures  {failed}")
    for host, counts in sorted(state.hosts.items()):
        ranked = sorted(state.failures[host].items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} {count:,}" for reason, count in ranked)
        lines.append(
            f"host      {host}: {counted(counts['shards'], 'shard')}, "
            f"{counted(counts['errors'], 'error')}" + (f" ({why})" if why else "")
        )
    lines += [f"field     {said}" for said in state.fields]
    lines += [f"broken    {said}" for said in state.unreadable]
    return lines
