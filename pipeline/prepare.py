"""From a manifest and a config to a planned output folder: a new one, a resumed or a grown one.

    OUT/manifest.parquet   every row in plan order, with its part, shard and instance number
    OUT/plan.json          the parts and shards
    OUT/config.json        what the samples contain, and the versions that made them

A folder that was made otherwise is never mixed with: the differing setting is named, and nothing is
touched.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import UsageError
from manifests.schema import SCHEMA
from pipeline import mend, remote
from pipeline.account import Account, account_of
from pipeline.config import FORMAT_VERSION, Limits, ShardConfig, canonical_hash
from pipeline.dropped import forget
from pipeline.mirror import address_of
from pipeline.outputs import Outputs
from pipeline.patched import as_planned
from pipeline.plan import PLAN_COLUMNS, Plan, PlannedShard, plan_rows, with_fingerprints_of
from pipeline.rows import PlannedRows
from pipeline.shard import ShardTask, is_committed, write_atomically
from pipeline.units import counted

ROWS_A_GROUP = 5_000
VERSIONED = ("av", "dlib-bin", "numpy", "opencv-python-headless", "simplejpeg", "soundfile", "soxr")
"""Libraries that the bytes depend on."""


@dataclass(frozen=True)
class Prepared:
    """A planned output folder."""

    out: Path
    plan: Plan
    config: ShardConfig
    config_hash: str
    note: str
    """What was found and done, for the log."""
    stored: dict[str, Any] = field(default_factory=dict)
    """config.json."""

    @cached_property
    def rows(self) -> PlannedRows:
        """The rows of OUT/manifest.parquet, read as they are needed."""
        return PlannedRows(Outputs(self.out).manifest_path)

    def task(self, shard: PlannedShard, limits: Limits, scratch: str = "") -> ShardTask:
        """What a worker needs to make one shard."""
        return ShardTask(
            name=shard.name,
            rows=tuple(self.rows.of_shard(shard).to_pylist()),
            root=self.plan.manifest_root,
            folder=str(self.out / "shards"),
            config=self.config,
            config_hash=self.config_hash,
            fingerprint=shard.fingerprint,
            limits=limits,
            versions=versions(),
            store=address_of(self.out),
            scratch=scratch,
            left_out=self.account.not_of(shard.name),
        )

    @cached_property
    def account(self) -> Account:
        """What patches and tombstones say."""
        return account_of(self.out, self.plan)

    def is_made(self, shard: PlannedShard) -> bool:
        """Whether a shard is committed as the plan wants it."""
        sidecar = self.out / "shards" / f"{shard.name}.json"
        return is_committed(sidecar, shard.fingerprint, self.account.not_of(shard.name))

    def keys_without_shard(self) -> Iterator[dict[str, Any]]:
        """Key and uri of the rows that `--limit` left out and nobody took back."""
        for first in range(self.plan.rows_in_shards, self.plan.planned_rows, ROWS_A_GROUP):
            count = min(ROWS_A_GROUP, self.plan.planned_rows - first)
            rows = self.rows.read(first, count, ["key", "uri"])
            yield from (row for row in rows if row["key"] not in self.account.dropped)


@dataclass(frozen=True)
class Wish:
    """What the user asks an output folder to be."""

    rows: pa.Table
    """Manifest rows."""
    dataset: str
    root: str
    licence: str
    labels: tuple[str, ...]
    """Class names in the order of the class numbers."""
    config: ShardConfig
    seconds_per_shard: float | None = None
    limit: int | None = None
    overwrite: bool = False
    limits: Limits = field(default_factory=Limits)
    """Kept in config.json for `retry`; they change no byte of a sample."""


def prepare(out: Path, wish: Wish) -> Prepared:
    """Plan an output folder, or go on with the plan it has.

    Raises:
        UsageError: the folder was made with another configuration or from another data set.
    """
    stored = {**stored_config(wish.config), "limits": asdict(wish.limits)}
    note = ""
    if wish.overwrite:
        note = _clear(out)
        remote.clear(out)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    if (out / "plan.json").exists():
        return _go_on(out, wish, stored)
    _write_labels(out, wish)
    rows, parts, seconds = plan_rows(
        wish.rows,
        seconds_per_shard=wish.seconds_per_shard,
        limit=wish.limit,
        config_hash=stored["config_hash"],
    )
    plan = Plan(
        dataset=wish.dataset,
        profile=wish.config.profile,
        name=f"{wish.dataset}-{wish.config.profile}",
        config_hash=stored["config_hash"],
        manifest_root=wish.root,
        seconds_per_shard=seconds,
        parts=tuple(parts),
        planned_rows=len(rows),
        licence=wish.licence,
    )
    return _commit(out, plan, rows, wish.config, stored, note)


def load(out: Path) -> Prepared:
    """The plan an output folder has.

    Raises:
        UsageError: there is none.
        FormatError: it is damaged.
    """
    if not (out / "plan.json").exists():
        raise UsageError(
            f"{out} has no plan.json, so no shards were planned there; `python -m pipeline shards "
            f"--dataset NAME --out {out}` makes them"
        )
    files = Outputs(out)
    return Prepared(out, files.plan, files.config, files.plan.config_hash, "", files.stored_config)


def stored_config(config: ShardConfig) -> dict[str, Any]:
    """config.json: the config, the model file it needs, their hash, and the versions in use."""
    model = landmarks_sha256() if config.faces != "off" else None
    content = {"format": FORMAT_VERSION, "config": config.as_dict(), "landmarks_sha256": model}
    return {**content, "config_hash": canonical_hash(content), "versions": versions()}


@cache
def landmarks_sha256() -> str:
    """Hash of the landmark model, which decides where the crops lie."""
    from pipeline.detector import landmarks_model_path

    with open(landmarks_model_path(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of the libraries that the bytes depend on."""
    return {name: version(name) for name in VERSIONED}


def _go_on(out: Path, wish: Wish, stored: dict[str, Any]) -> Prepared:
    """Resume a plan: same rows, changed rows, new rows."""
    notes = [mend.config(out, stored)]
    before = load(out)
    _refuse_other_config(out, before, stored)
    if before.plan.dataset != wish.dataset:
        raise UsageError(
            f"{out} holds {before.plan.dataset}, not {wish.dataset}; choose another --out, or "
            "--overwrite to start anew"
        )
    _refuse_other_cut(out, before.plan, wish)
    wish = _with_known_labels(out, wish)
    mended = mend.manifest(out, wish.rows)
    if mended is not None:
        rows, plan, note = mended
        before = _commit(out, plan, rows, before.config, before.stored, note)
        notes.append(note)
    rows, plan, note = _merge(before, wish)
    plan = _moved(out, plan, before, wish)
    _write_labels(out, wish)
    note = "; ".join(filter(None, [*notes, note, _other_limits(before, wish)]))
    if rows is None and plan == before.plan:
        return replace(before, note=note)
    if rows is None:
        rows = pq.read_table(Outputs(out).manifest_path)
    return _commit(out, plan, rows, before.config, stored, note)


def _moved(out: Path, plan: Plan, before: Prepared, wish: Wish) -> Plan:
    """The plan with the root of today: a data set may move as a whole, not be another one.

    Raises:
        UsageError: files of the plan are not below the new root.
    """
    if wish.root == plan.manifest_root:
        return plan
    keys = before.rows.column("key")
    taken_back = pc.is_in(keys, value_set=pa.array(before.account.dropped, pa.string()))
    here = pc.or_(pc.is_in(keys, value_set=wish.rows["key"].combine_chunks()), taken_back)
    if not pc.all(here).as_py():
        raise UsageError(
            f"{out} was made from {plan.manifest_root}; {wish.root} lacks some of its files, so it "
            "is another collection. Choose another --out, or --overwrite to start anew; nothing "
            "was touched"
        )
    return replace(plan, manifest_root=wish.root)


def _refuse_other_config(out: Path, before: Prepared, stored: dict[str, Any]) -> None:
    if before.config_hash == stored["config_hash"]:
        return
    old, new = before.config.as_dict(), stored["config"]
    changed = [f"{name}: {old[name]} -> {new[name]}" for name in new if old.get(name) != new[name]]
    changes = "; ".join(changed) or "the landmark model file or the format version"
    raise UsageError(
        f"{out} was made with another configuration ({changes}). Choose another --out, or "
        "--overwrite to make everything again; nothing was touched"
    )


def _refuse_other_cut(out: Path, plan: Plan, wish: Wish) -> None:
    """A plan is cut once: later rows are cut as the first ones, and none is taken back."""
    seconds = wish.seconds_per_shard
    problem = go_on = ""
    if seconds is not None and seconds != plan.seconds_per_shard:
        problem = (
            f"is cut into shards of {plan.seconds_per_shard:.10g} s, not {seconds:.10g} "
            "(--seconds-per-shard)"
        )
        go_on = "leave the flag out"
    if wish.limit is not None and wish.limit < plan.rows_in_shards:
        problem = f"plans {plan.rows_in_shards} clips, more than --limit {wish.limit}"
        go_on = f"give --limit {plan.rows_in_shards} or more, or none for all"
    if problem:
        raise UsageError(
            f"{out} {problem}. To go on with the plan it has, {go_on}; for another one choose "
            "another --out, or --overwrite to make everything again; nothing was touched"
        )


def _other_limits(before: Prepared, wish: Wish) -> str:
    """What differs between the limits a set was begun with and those of this run, in words."""
    old, new = before.stored.get("limits", {}), asdict(wish.limits)
    changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old.get(name) != new[name]]
    if not old or not changed:
        return ""
    return (
        f"{', '.join(changed)}: for shards made from now on; `python -m pipeline retry "
        f"{before.out} --reason REASON` makes those again that have rows which failed"
    )


def _merge(before: Prepared, wish: Wish) -> tuple[pa.Table | None, Plan, str]:
    """The old rows with what changed, and the new ones behind; None if all is as it was."""
    plan, old = before.plan, pq.read_table(Outputs(before.out).manifest_path)
    planned = old.slice(0, plan.rows_in_shards)
    wish = replace(wish, rows=as_planned(Outputs(before.out), planned, wish.rows))
    place = pc.index_in(
        wish.rows["key"].combine_chunks(), value_set=planned["key"].combine_chunks()
    )
    fresh = wish.rows.filter(pc.is_null(place))
    # Whoever takes a clip back may remove its file, too: that is no change of its shard.
    dropped = pa.array(before.account.dropped, pa.string())
    wanted = pc.and_not(pc.is_valid(place), pc.is_in(wish.rows["key"].combine_chunks(), dropped))
    places = place.filter(wanted)
    order = pc.sort_indices(places)
    there, here = places.take(order), pc.indices_nonzero(wanted).take(order)
    gone = len(planned) - len(there) - before.account.dropped_in_shards
    unchanged = _same_rows(planned, there, wish.rows, here)
    waiting = len(old) - len(planned)
    notes = [_gone_note(before.out, gone)] if gone else []
    within = wish.limit is not None and wish.limit <= len(planned) and len(fresh) == waiting
    if unchanged and (not len(fresh) or within):
        return None, plan, "; ".join(notes)
    if not unchanged:
        kept, known = planned.take(there), wish.rows.take(here)
        planned, plan, count = _with_changed_rows(before, planned, kept, known)
        notes.append(f"made again, because rows have changed: {counted(count, 'shard')}")
    added, parts, _ = plan_rows(
        fresh,
        seconds_per_shard=plan.seconds_per_shard,
        limit=None if wish.limit is None else max(wish.limit - len(planned), 0),
        config_hash=plan.config_hash,
        before=plan,
    )
    rows = pa.concat_tables([planned.cast(added.schema), added])
    grown = replace(plan, parts=plan.parts + tuple(parts), planned_rows=len(rows))
    new_rows = sum(part.rows for part in parts)
    notes += [f"{counted(new_rows, 'row')} appended as new shards"] if new_rows else []
    return rows, grown, "; ".join(notes)


def _gone_note(out: Path, count: int) -> str:
    """What becomes of rows whose files were removed."""
    return (
        f"{counted(count, 'planned row')} no longer in the manifest, as when files are removed: "
        "samples that were made of them stay, those not made yet fail as missing_file; `python -m "
        f"pipeline drop {out} --keys FILE` takes both out"
    )


def _same_rows(old: pa.Table, there: pa.Array, new: pa.Table, here: pa.Array) -> bool:
    """Whether some rows say the same in both tables; one column of them is in memory at a time."""
    return all(
        old[name].take(there).cast(kind).equals(new[name].take(here).cast(kind))
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
    )


def _with_changed_rows(
    before: Prepared, planned: pa.Table, kept: pa.Table, known: pa.Table
) -> tuple[pa.Table, Plan, int]:
    """Put changed rows where their old versions are; their shards get new fingerprints."""
    spots = pc.index_in(planned["key"].combine_chunks(), value_set=known["key"].combine_chunks())
    fresh = known.cast(SCHEMA).append_column("planned_seconds", kept["planned_seconds"])
    for name in PLAN_COLUMNS[:3]:
        fresh = fresh.append_column(name, kept[name])
    missing = planned.filter(pc.is_null(spots))
    both = pa.concat_tables(
        [
            fresh.select(planned.column_names),
            missing.cast(fresh.select(planned.column_names).schema),
        ]
    )
    both = both.sort_by("instance")
    plan, changed = with_fingerprints_of(before.plan, both)
    return both, plan, changed


def _commit(
    out: Path, plan: Plan, rows: pa.Table, config: ShardConfig, stored: dict[str, Any], note: str
) -> Prepared:
    """Write the three files; plan.json last, because it says that the others are there."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=ROWS_A_GROUP)
    write_atomically(Outputs(out).manifest_path, buffer.getvalue())
    write_atomically(out / "config.json", json.dumps(stored, indent=1).encode())
    write_plan(out, plan)
    return Prepared(out, plan, config, stored["config_hash"], note, stored)


def write_plan(out: Path, plan: Plan) -> None:
    """plan.json."""
    write_atomically(out / "plan.json", json.dumps(plan.as_dict(), indent=1).encode())


def _with_known_labels(out: Path, wish: Wish) -> Wish:
    """Class numbers of a set never change: new classes come behind those it has."""
    known = mend.labels(out, list(wish.labels))
    if list(wish.labels) == known or not wish.labels:
        return replace(wish, labels=tuple(known))
    names = [*known, *(name for name in wish.labels if name not in known)]
    column = wish.rows["label_names"].combine_chunks()
    numbers = pc.index_in(pc.list_flatten(column), value_set=pa.array(names, pa.string()))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    labels = pa.ListArray.from_arrays(offsets, numbers.cast(pa.int32()))
    at = wish.rows.schema.get_field_index("labels")
    kind = wish.rows.schema.field("labels")
    return replace(
        wish, rows=wish.rows.set_column(at, kind, labels.cast(kind.type)), labels=tuple(names)
    )


def _write_labels(out: Path, wish: Wish) -> None:
    """The class names, where the index takes them from."""
    folder = out / "labels"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{wish.dataset}.json", json.dumps(wish.labels).encode())


def _clear(out: Path) -> str:
    """Remove what an earlier job left, the commit marks' list first.

    Returns:
        What must be said about it; mostly nothing.
    """
    for name in (
        "shardindex.json",
        "plan.json",
        "samples.parquet",
        "errors.parquet",
        "report.html",
    ):
        (out / name).unlink(missing_ok=True)
    # Facts and fields go by keys, and would be taken for those of other clips.
    for name in ("shards", "fields", "quality"):
        shutil.rmtree(out / name, ignore_errors=True)
    return forget(out)
