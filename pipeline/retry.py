"""`pipeline retry OUT --reason R`: rows that failed for one reason are tried again, as patches.

A patch is a new shard that holds only these rows; it takes them over, whether they succeed or fail
again (`pipeline.account`). No old shard is touched, no row changes its key or number. The patches
are in plan.json before they are made: after a crash any job on the folder makes what is missing.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import remote
from pipeline.errors import Reason
from pipeline.job import JobOptions, Result, run
from pipeline.make import COMPLETE, INCOMPLETE, Outcome, locked, write_page, write_tables
from pipeline.outputs import Outputs
from pipeline.plan import Ints, Patch, Plan, file_hashes, of_patch, shard_numbers
from pipeline.prepare import Prepared, load, write_plan
from pipeline.purge import finish_interrupted
from pipeline.summary import is_complete, known_reason, summary
from pipeline.units import counted


def retry(out: Path, reason: str, options: JobOptions, say: Any) -> Outcome:
    """Try the rows again that ended with this error, then index anew."""
    known_reason(reason)
    load(out)  # says what is wrong with a folder before a lock is left in it
    with locked(out, shared=False):
        with remote.alone(out):
            remote.pull(out)  # another job may have ended while this one waited for the lease
            finish_interrupted(out)
            prepared = load(out)
            keys = failed_keys(prepared, reason)
            if keys:
                prepared = with_patches(prepared, keys)
                write_plan(out, prepared.plan)
                remote.push(out)
        waiting = [patch for patch in prepared.plan.patches if not prepared.is_made(patch)]
        if not waiting:
            lines = _caught_up(prepared)
            said = f"no committed shard has rows that ended as {reason}; `python -m pipeline errors"
            return Outcome([*lines, f"{said} {out}` lists what there is"], COMPLETE)
        tried = {key for patch in waiting for key in patch.keys}
        rows, shards = counted(len(tried), "row"), counted(len(waiting), "new shard")
        say(f"trying again {rows} that failed, in {shards}")
        result = run(prepared, options)
        with remote.alone(out):
            ledger = write_tables(prepared, result)
            lines = [*_retried(prepared, waiting), *summary(prepared, result, ledger)]
            if is_complete(result, ledger):
                lines.append(f"Report: {write_page(out)}")
            remote.push(out)
    return Outcome(lines, COMPLETE if is_complete(result, ledger) else INCOMPLETE)


def _caught_up(prepared: Prepared) -> list[str]:
    """Write tables and index where a retry was killed between its last patch and them.

    Returns:
        A sentence if that was so.
    """
    out, plan, path = prepared.out, prepared.plan, Outputs(prepared.out).index_path
    if not plan.patches or not all(map(prepared.is_made, plan.shards)):
        return []
    before = path.read_bytes() if path.exists() else b""
    with remote.alone(out):
        write_tables(prepared, Result())
        if path.read_bytes() == before:
            return []
        write_page(out)
        remote.push(out)
    return ["index and tables lacked what an earlier retry had made, and are written again"]


def failed_keys(prepared: Prepared, reason: str) -> list[str]:
    """Rows whose last word is this error, by the sidecars of the shards as they are planned."""
    if reason == Reason.NOT_RUN:
        return []  # `pipeline shards` makes these, there is nothing to do again
    found = []
    files = Outputs(prepared.out)
    for shard in prepared.plan.shards:
        sidecar = files.sidecar(shard.name, with_samples=False)
        if sidecar is None or sidecar.fingerprint != shard.fingerprint:
            continue
        elsewhere = prepared.account.not_of(shard.name)
        failed = (error["key"] for error in sidecar.errors if error["reason"] == reason)
        found += [key for key in failed if key not in elsewhere]
    return found


def with_patches(prepared: Prepared, keys: list[str]) -> Prepared:
    """The folder with patches for these rows in its plan; nothing is written yet."""
    plan, positions = prepared.plan, prepared.rows.positions(keys)
    rows = prepared.rows.take(positions)
    firsts = [part.first_row for part in plan.parts]
    part_of = np.searchsorted(firsts, positions, "right") - 1
    labels = np.array([plan.parts[number].split_label for number in part_of], dtype=object)
    patches = plan.patches
    for label in dict.fromkeys(labels.tolist()):
        chosen = np.flatnonzero(labels == label)
        patches += tuple(_cut(plan, label, rows.take(chosen), positions[chosen]))
    return replace(prepared, plan=replace(plan, patches=patches))


def _cut(plan: Plan, label: str, rows: pa.Table, positions: Ints) -> Iterator[Patch]:
    """Patches of one split, as long as its other shards; a file's rows stay together."""
    number = sum(patch.split_label == label for patch in plan.patches)
    seconds = rows["planned_seconds"].to_numpy()
    numbers = shard_numbers(seconds, file_hashes(rows["uri"]), plan.seconds_per_shard)
    borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(borders):
        piece = rows.slice(begin, end - begin)
        yield Patch(
            # Names of other shards end in digits alone, so no split's name can make the same one.
            name=f"{label}-p{number:06d}",
            first_row=int(positions[begin]),
            rows=end - begin,
            seconds=round(float(seconds[begin:end].sum()), 3),
            split_label=label,
            **of_patch(piece, plan.config_hash),
        )
        number += 1


def _retried(prepared: Prepared, patches: list[Patch]) -> Iterator[str]:
    """What became of the rows that were tried again."""
    files = Outputs(prepared.out)
    sidecars = [files.sidecar(patch.name, with_samples=False) for patch in patches]
    made = [sidecar for sidecar in sidecars if sidecar is not None]
    good, bad = sum(car.nsamples for car in made), sum(len(car.errors) for car in made)
    yield f"of the rows tried again {good} are samples now and {bad} failed again"
