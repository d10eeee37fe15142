"""`pipeline plan`: what a job would do, found out by making a few clips and throwing them away."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Limits, ShardConfig
from pipeline.errors import ClipError
from pipeline.item import Item, Made
from pipeline.paths import resolve
from pipeline.plan import PlanPart, guess_note, plan_rows
from pipeline.prepare import Wish, load, stored_config
from pipeline.sandbox import Sandbox
from pipeline.staging import staged
from pipeline.units import counted

PROBED_FILES = 6


@dataclass
class Probe:
    """What a few clips cost and gave."""

    clips: int = 0
    work_seconds: float = 0.0
    stored_seconds: float = 0.0
    stored_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def plan_lines(wish: Wish, limits: Limits, scratch: str = "") -> list[str]:
    """Samples, shards, bytes, core-hours and rows that will fail, without writing anything."""
    rows, parts, seconds_per_shard = plan_rows(
        wish.rows,
        seconds_per_shard=wish.seconds_per_shard,
        limit=wish.limit,
        config_hash="",
    )
    planned = rows.slice(0, sum(part.rows for part in parts))
    media_seconds = float(pc.sum(planned["planned_seconds"]).as_py() or 0.0)
    probe = _probe(planned, wish.root, wish.config, limits, scratch)
    lines = [_part_line(part) for part in parts]
    lines.append(
        f"in all: {counted(len(planned), 'row')}, "
        f"{counted(sum(len(p.shards) for p in parts), 'shard')} of about "
        f"{seconds_per_shard:.0f} s, {media_seconds / 3600:.2f} h of media by the manifest"
        f"{guess_note(planned)}"
    )
    lacking = _lacking(planned, wish.root)
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(lacking.items()))
    lines.append(f"rows that will fail for want of a file: {counts or 'none'}")
    present = 1 - lacking.total() / max(len(planned), 1)
    return lines + _cost_lines(probe, media_seconds * present)


def there_lines(out: Path, wish: Wish) -> list[str]:
    """What the output folder has already, if anything was planned there.

    Raises:
        FormatError: its plan or a sidecar is damaged.
    """
    if not (out / "plan.json").exists():
        return []
    prepared = load(out)
    shards = prepared.plan.shards
    made = sum(map(prepared.is_made, shards))
    known = pc.is_in(wish.rows["key"], value_set=prepared.rows.column("key"))
    fresh = len(known) - (pc.sum(known).as_py() or 0)
    lines = [
        f"{out} has {made:,} of its {counted(len(shards), 'planned shard')} already, "
        f"{len(shards) - made:,} to be made"
        + (f"; {counted(fresh, 'row')} new to it" * bool(fresh))
    ]
    if prepared.config_hash != stored_config(wish.config)["config_hash"]:
        lines.append("it was made with another configuration: `shards` goes on with that one only")
    return lines


def _lacking(rows: pa.Table, root: str) -> Counter[str]:
    """Why the rows whose file the manifest has not seen will fail: reason -> rows."""
    unseen = pc.value_counts(rows.filter(pc.is_null(rows["bytes"]))["uri"]).to_pylist()
    reasons: Counter[str] = Counter()
    for entry in unseen:
        try:
            resolve(Path(root), entry["values"])
        except ClipError as error:
            reasons[str(error.reason)] += entry["counts"]
    return reasons


def _part_line(part: PlanPart) -> str:
    seconds = sum(shard.seconds for shard in part.shards)
    rows, shards = counted(part.rows, "row"), counted(len(part.shards), "shard")
    return f"{part.name}: {rows}, {shards}, {seconds / 3600:.2f} h"


def _probe(rows: pa.Table, root: str, config: ShardConfig, limits: Limits, scratch: str) -> Probe:
    """Make a few clips spread over the plan; the first warms the child up and is not timed."""
    there = rows.filter(pc.is_valid(rows["bytes"]))
    probe = Probe()
    if not len(there):
        return probe
    step = max(1, len(there) // (PROBED_FILES + 1))
    picked = there.take(list(range(0, len(there), step))[: PROBED_FILES + 1]).to_pylist()
    picked = picked if len(picked) > 1 else picked * 2
    items = (Item(root, (row,)) for row in picked)
    with Sandbox(config, limits) as sandbox, staged(root, items, scratch, sandbox) as here:
        for number, item in enumerate(here):
            _probe_row(probe if number else Probe(), sandbox, item)
    return probe


def _probe_row(probe: Probe, sandbox: Sandbox, item: Item) -> None:
    started = time.monotonic()
    for outcome, _ in sandbox.run(item):
        probe.clips += 1
        probe.work_seconds += time.monotonic() - started
        if isinstance(outcome, Made):
            probe.stored_seconds += outcome.facts["seconds"]
            probe.stored_bytes += sum(len(data) for data in outcome.members.values())
        else:
            probe.reasons[str(outcome.error.reason)] += 1


def _cost_lines(probe: Probe, media_seconds: float) -> list[str]:
    """Costs in proportion to the clips that were probed."""
    if not probe.stored_seconds:
        return [f"no file could be probed: {dict(probe.reasons) or 'none is there'}"]
    hours = media_seconds * probe.work_seconds / probe.stored_seconds / 3600
    size = media_seconds * probe.stored_bytes / probe.stored_seconds
    speed = probe.stored_seconds / probe.work_seconds
    failed: dict[str, Any] = dict(probe.reasons)
    return [
        f"from {counted(probe.clips, 'file')} tried: {speed:.1f}x real time on one core, "
        f"{probe.stored_bytes / probe.stored_seconds / 1000:.0f} kB a second"
        + (f", failed: {failed}" if failed else ""),
        f"about {hours:.2f} core-hours and {size / 1e9:.2f} GB of shards",
    ]
