"""`pipeline drop OUT --keys FILE [--purge]`: takes clips back.

A tombstone (`pipeline.dropped`) takes a row away from samples and errors alike: index, tables and
report are written again without it, and no job makes it any more. `--purge` also takes its bytes
out of tars and sidecars (`pipeline.purge`).

The index is removed first: whoever opens the set in the middle is told that it is not finished.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import UsageError
from pipeline import remote
from pipeline.dropped import SCHEMA, read_tombstones, write_tombstones
from pipeline.errors import plain_text
from pipeline.field_check import names_of_fields
from pipeline.field_purge import purge_fields, shards_now
from pipeline.fields import command, read_field
from pipeline.format import FormatError
from pipeline.index import finalize
from pipeline.job import clean
from pipeline.make import COMPLETE, CORRUPT, Outcome, locked, write_page
from pipeline.outputs import NotFinishedError, Outputs
from pipeline.prepare import Prepared, load
from pipeline.purge import finish_interrupted, purge_shards
from pipeline.quality_purge import purge_quality
from pipeline.seen import lines_about_runs
from pipeline.summary import ledger_lines
from pipeline.units import counted
from selection.facts import FOLDER, RANKS

UNKNOWN_SHOWN = 5
NEIGHBOURS = 50
"""Keys before and behind an unknown one in the alphabet, where the nearest are looked for."""


@dataclass(frozen=True)
class Wanted:
    """What is to be taken back."""

    keys: frozenset[str]
    reason: str = ""
    purge: bool = False
    """Remove the bytes, too."""
    runs: Path = Path("runs")
    """Folder of the training runs that may have seen the clips."""


def drop(out: Path, wanted: Wanted) -> Outcome:
    """Take clips back; those that are already away stay away.

    Raises:
        UsageError: a key is no row of the set; nothing was touched.
        LockedError: a job works on the set.
    """
    load(out)  # says what is wrong with a folder before a lock is left in it
    with locked(out, shared=False), remote.alone(out):
        lines, damaged = _drop(out, wanted)
        remote.push(out)
    lines += [*lines_about_runs(wanted.runs, out, wanted.keys), *damaged]
    return Outcome(lines, CORRUPT if damaged else COMPLETE)


def _drop(out: Path, wanted: Wanted) -> tuple[list[str], Sequence[str]]:
    """What was done, and sentences about damaged shards."""
    remote.pull(out)
    finish_interrupted(out)
    refuse_unknown(load(out), wanted.keys)
    before = read_tombstones(out)
    fresh = wanted.keys.difference(before["key"].to_pylist())
    lines = [f"{counted(len(fresh), 'clip')} dropped"]
    if len(fresh) < len(wanted.keys):
        lines.append(f"{len(wanted.keys) - len(fresh)} were dropped before")
    partial = _take_index(Outputs(out))
    if fresh:
        write_tombstones(out, pa.concat_tables([before, _stones(fresh, wanted.reason)]))
    prepared = load(out)
    if wanted.purge:
        remote.push(out)  # tombstones are there, and the index is not, before tars change
    damaged = _purge(prepared, wanted, lines) if wanted.purge else []
    ledger = finalize(prepared, partial=partial)
    lines += ledger_lines(ledger)
    if Outputs(out).index_path.exists():
        lines.append(f"Report: {write_page(out)}")
    if not wanted.purge:
        lines.append(
            "their bytes are still in the tars, where readers that go by the tars alone find them; "
            "--purge removes them"
        )
        lines += _still_counting(out)
    return lines, damaged


def _still_counting(out: Path) -> list[str]:
    """What was made of all clips together and is not of those that stay; `verify` asks for it."""
    lines = []
    for name in names_of_fields(out):
        with contextlib.suppress(UsageError, KeyError, TypeError):  # which `verify` tells
            if (read_field(out, name) or {})["config"]["kind"] == "number":
                lines.append(f"field {name} still counts them: `{command(out, name)}` again")
    if any((out / FOLDER).glob(f"{RANKS}*")):
        lines.append(
            f"ranks of duplicates still count them: `python -m pipeline duplicates {out}` again"
        )
    return lines


def read_keys(path: Path) -> frozenset[str]:
    """The keys in a text file, one a line; empty lines and those that begin with # say nothing.

    Raises:
        UsageError: there is no such file, or nothing in it.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--keys {path} cannot be read ({plain_text(str(error))}); expected a text file with "
            "one key a line, as in samples.parquet"
        ) from error
    keys = frozenset(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError(f"--keys {path} has no line with a key; expected one key a line")
    return keys


def refuse_unknown(prepared: Prepared, keys: frozenset[str]) -> None:
    """Check that every key is a row of the set.

    Raises:
        UsageError: some are not; the message has the nearest ones there are.
    """
    known = prepared.rows.take(prepared.rows.positions(keys), ["key"])["key"].to_pylist()
    unknown = sorted(keys.difference(known))
    if not unknown:
        return
    rows = prepared.rows.table(0, len(prepared.rows), ["key", "uri"])
    shown = unknown[:UNKNOWN_SHOWN]
    said = ", ".join(f"{plain_text(key)!r} (nearest: {_nearest(key, rows)})" for key in shown)
    more = f", and {len(unknown) - UNKNOWN_SHOWN} more" if len(unknown) > UNKNOWN_SHOWN else ""
    raise UsageError(
        f"{len(unknown)} of {len(keys)} keys are no rows of {prepared.out}: {said}{more}. "
        "Keys are those of samples.parquet and errors.parquet; nothing was touched"
    )


def _nearest(key: str, rows: pa.Table) -> str:
    """The likeliest keys somebody may have meant: of the same file, or spelled alike."""
    keys = rows["key"].combine_chunks()
    of_file = keys.filter(pc.equal(rows["uri"].combine_chunks(), key)).slice(0, 3).to_pylist()
    inside = keys.filter(pc.match_substring(keys, key)).slice(0, NEIGHBOURS).to_pylist()
    before = keys.filter(pc.less(keys, key))
    behind = keys.filter(pc.greater(keys, key))
    nearby = [
        *before.take(pc.select_k_unstable(before, NEIGHBOURS, [("", "descending")])).to_pylist(),
        *behind.take(pc.select_k_unstable(behind, NEIGHBOURS, [("", "ascending")])).to_pylist(),
    ]
    close = get_close_matches(key, dict.fromkeys([*inside, *nearby]), 3)
    return ", ".join(dict.fromkeys([*of_file, *close])) or "none is like it"


def _take_index(files: Outputs) -> bool:
    """Remove the index.

    Returns:
        Whether it was there, so that it has to be written again, however incomplete the set.
    """
    try:
        there = bool(files.index())
    except (NotFinishedError, FormatError):
        there = False
    files.index_path.unlink(missing_ok=True)
    return there


def _stones(keys: frozenset[str], reason: str) -> pa.Table:
    now = time.time()
    rows = ({"key": key, "reason": reason, "dropped_unix": now, "purged": False} for key in keys)
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["key"])), SCHEMA)


def _purge(prepared: Prepared, wanted: Wanted, lines: list[str]) -> Sequence[str]:
    """Remove the bytes; what that changed goes into `lines`.

    Returns:
        Sentences about shards that are damaged, so that they could not be rewritten.
    """
    out, account = prepared.out, prepared.account
    Outputs(out).report_path.unlink(missing_ok=True)
    clean(out)
    rewritten, damaged = purge_shards(prepared, wanted.keys)
    # Not only those of these keys: a command that was killed may have purged others.
    held = [shard.name for shard in prepared.plan.shards if account.dropped_of(shard.name)]
    lines.append(f"purged from {counted(rewritten, 'shard')}")
    lines += purge_fields(out, held, wanted.keys, account.dropped)
    lines += purge_quality(out, account.dropped, shards_now(out, held))
    lines += _purge_pages(out, wanted.keys)
    if not damaged:
        stones = read_tombstones(out)
        gone = pc.or_(stones["purged"], pc.is_in(stones["key"], pa.array(list(wanted.keys))))
        at = stones.schema.get_field_index("purged")
        write_tombstones(out, stones.set_column(at, SCHEMA.field("purged"), gone))
    lines.append(_what_stays(prepared, wanted.keys))
    return damaged


def _purge_pages(out: Path, keys: frozenset[str]) -> list[str]:
    """Remove pages that show one of the clips, such as those of `peek`; one sentence on them."""
    texts = ((page.name, page.read_text("utf-8", "replace")) for page in out.glob("*.html"))
    shown = sorted(name for name, text in texts if any(key in text for key in keys))
    remote.forget(out, *shown)
    return [f"removed, because they showed clips of these: {', '.join(shown)}"] if shown else []


def _what_stays(prepared: Prepared, keys: frozenset[str]) -> str:
    """Where their names still are, and why."""
    scanned = prepared.out / "scan" / "manifest.parquet"
    patched = any(not keys.isdisjoint(patch.keys) for patch in prepared.plan.patches)
    rows = ["manifest.parquet", *(["scan/manifest.parquet"] if scanned.exists() else [])]
    named = ["dropped.parquet", "left_out of shards/*.json", *(["plan.json"] if patched else [])]
    return (
        f"so that nothing makes the clips again, {prepared.out} keeps their rows (key, path, "
        f"labels, words) in {' and '.join(rows)} and their keys in {', '.join(named)}; the source "
        f"files in {prepared.plan.manifest_root}, pages that peek and leaks wrote elsewhere, and "
        "copies of the old tars in loaders' --cache-dir are yours to remove"
    )
