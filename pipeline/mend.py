"""Files of an output folder that are lost or damaged, made again from what is left and asked for.

The tars and their sidecars are what took the time; config, class names and manifest of a set follow
from the command that made it, so a job that goes on makes them again where it can prove that they
are the same, and refuses with the next step where it cannot.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import UsageError
from pipeline.format import FormatError
from pipeline.outputs import NotFinishedError, Outputs
from pipeline.patched import as_planned
from pipeline.plan import (
    Ints,
    Plan,
    file_hashes,
    parts_of,
    plan_order,
    planned_seconds,
    with_fingerprints_of,
    with_plan_columns,
)
from pipeline.shard import write_atomically

DAMAGE = (NotFinishedError, FormatError)
ANEW = "choose another --out, or --overwrite to start anew"


def config(out: Path, stored: dict[str, Any]) -> str:
    """Write config.json again if it is lost or damaged.

    Args:
        out: a folder with a plan.
        stored: config.json as the configuration asked for would have it.

    Returns:
        What was done, for the log; empty if nothing had to be.

    Raises:
        UsageError: the plan was made with another configuration than the one asked for.
    """
    files = Outputs(out)
    try:
        if files.config and files.stored_config.get("config_hash") == files.plan.config_hash:
            return ""
        problem = f"{files.config_path} is not that of plan.json"
    except DAMAGE as error:
        problem = str(error)
    if stored["config_hash"] != files.plan.config_hash:
        raise UsageError(
            f"{problem}. It cannot be made again, because the configuration asked for is another "
            f"one than the plan's: repeat the flags {out} was made with (its profile is "
            f"{files.plan.profile}), {ANEW}; nothing was touched"
        )
    write_atomically(files.config_path, json.dumps(stored, indent=1).encode())
    return "config.json was lost or damaged and is made again"


def labels(out: Path, asked: list[str]) -> list[str]:
    """The class names of a set, in the order of its class numbers.

    From labels/NAME.json; where that is lost or damaged from the index, from the rows of the
    manifest, or, if that is damaged too, `asked`: the rows then prove whether these were the ones.

    Args:
        out: a folder with a plan.
        asked: class names of the data set as it is today.

    Raises:
        UsageError: nothing tells the order for certain.
    """
    files = Outputs(out)
    try:
        return files.labels()
    except DAMAGE as error:
        problem = str(error)
    try:
        names = files.index().get("labels")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    except DAMAGE:
        pass  # the index is written last, and often not there
    try:
        files.check_manifest()
    except DAMAGE:
        return asked
    known = _labels_of_rows(pq.read_table(files.manifest_path, columns=["labels", "label_names"]))
    if all(number < len(asked) and asked[number] == name for number, name in known.items()):
        return asked
    if known.keys() == set(range(len(known))):
        return [known[number] for number in range(len(known))]
    raise UsageError(
        f"{problem}. The numbers of classes without a row cannot be known any more: write the "
        f"file again from a copy of the set, {ANEW}"
    )


def _labels_of_rows(rows: pa.Table) -> dict[int, str]:
    """Class number -> name, as far as rows have them."""
    numbers, names = (pc.list_flatten(rows[name]) for name in ("labels", "label_names"))
    pairs = pa.table({"number": numbers, "name": names}).group_by(["number", "name"])
    return {row["number"]: row["name"] for row in pairs.aggregate([]).to_pylist()}


def manifest(out: Path, rows: pa.Table) -> tuple[pa.Table, Plan, str] | None:
    """The rows of a plan whose manifest.parquet is lost or damaged; None: it is sound.

    Committed shards keep their rows, which their sidecars name; the others are filled in the order
    of a plan. What has changed since shows in the fingerprints, as it does while resuming.

    Args:
        out: a folder with a plan.
        rows: manifest rows as the data set gives them today, with the set's class numbers.

    Returns:
        The table, the plan with the fingerprints of its rows, and a note for the log.

    Raises:
        UsageError: rows of the plan are not among `rows`.
    """
    files = Outputs(out)
    try:
        files.check_manifest()
        return None
    except DAMAGE as error:
        problem = str(error)
    rows = as_planned(files, _sizes_in_plan(files.plan), rows)
    order = _order(files, rows)
    if order is None:
        raise UsageError(
            f"{problem}. It cannot be made again, because rows of plan.json are not among the "
            f"{len(rows)} that were asked for: ask for the data {out} was made from "
            f"({files.plan.manifest_root}), {ANEW}"
        )
    ordered = rows.take(pa.array(order))
    table = with_plan_columns(ordered, files.plan.parts, planned_seconds(ordered))
    plan, changed = with_fingerprints_of(files.plan, table)
    note = "manifest.parquet was lost or damaged and is made again"
    return table, plan, f"{note}; {changed} shards have other rows" if changed else note


def _sizes_in_plan(plan: Plan) -> pa.Table:
    """What plan.json itself still says of the lost rows: key and size of those in patches."""
    known = [pair for p in plan.patches for pair in zip(p.keys, p.planned_bytes, strict=False)]
    return pa.table({
        "key": pa.array([key for key, _ in known], pa.string()),
        "bytes": pa.array([size for _, size in known], pa.int64()),
    })  # fmt: skip


def _order(files: Outputs, rows: pa.Table) -> Ints | None:
    """The number of each row of the plan in `rows`, shard by shard; None: some are not there."""
    plan = files.plan
    hashes = file_hashes(rows["uri"])
    order = plan_order(rows, np.zeros(len(rows), np.int64), hashes, np.ones(len(rows), np.bool_))
    shard_of = _shards_of_committed(files, rows["key"])
    names, part_of = parts_of(rows["splits"])
    committed = set(shard_of.tolist())
    number = 0
    for part in plan.parts:
        is_of_part = part_of == (names.index(part.split_label) if part.split_label in names else -1)
        waiting = order[(is_of_part & (shard_of < 0))[order]]
        for shard in part.shards:
            if number not in committed:
                shard_of[waiting[: shard.rows]] = number
                waiting = waiting[shard.rows :]
            number += 1
    wanted = [shard.rows for shard in plan.cut_shards]
    if np.bincount(shard_of[shard_of >= 0], minlength=number).tolist() != wanted:
        return None
    rest = order[shard_of[order] < 0][: plan.planned_rows - plan.rows_in_shards]
    planned = order[shard_of[order] >= 0]
    planned = planned[np.argsort(shard_of[planned], kind="stable")]
    found: Ints = np.concatenate([planned, rest])
    return found if len(found) == plan.planned_rows else None


def _shards_of_committed(files: Outputs, keys: pa.ChunkedArray) -> Ints:
    """The number of the committed shard that each row is in, by the sidecars; -1: none."""
    shard_of_key: dict[str, int] = {}
    for number, shard in enumerate(files.plan.cut_shards):
        try:
            sidecar = files.sidecar(shard.name)
        except FormatError:
            continue  # as good as not there: it is made again
        if sidecar is not None and sidecar.fingerprint == shard.fingerprint:
            ended = [str(entry.get("key")) for entry in [*sidecar.samples, *sidecar.errors]]
            shard_of_key.update((key, number) for key in [*ended, *sidecar.left_out])
    found = [shard_of_key.get(key, -1) for key in keys.to_pylist()]
    return np.array(found, np.int64)
