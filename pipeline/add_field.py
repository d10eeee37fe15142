"""`pipeline add-field OUT FIELD`: a field more for every sample of a set, without making it again.

Side shards are made by the same job as shards: one task a shard, in any executor, committed whole,
kept when the command is run again. See `pipeline.fields` for what lies where.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from pipeline import remote
from pipeline.config import Limits, canonical_hash
from pipeline.errors import ShardError, disk_sentence
from pipeline.field_index import FieldLedger, finalize_field, name_fields
from pipeline.fields import CROPS, FieldConfig, command, folder_of, read_field, stored_field
from pipeline.item import Item, Row
from pipeline.job import JobOptions, Result, clean, run
from pipeline.make import COMPLETE, INCOMPLETE, Outcome, locked
from pipeline.mirror import address_of, tar_bytes
from pipeline.numbers import TABLE, NumberWish, add_number
from pipeline.outputs import Outputs
from pipeline.plan import PlannedShard
from pipeline.prepare import Prepared, load, versions
from pipeline.shard import ShardTask, is_committed, write_atomically
from pipeline.staging import Stoppable
from pipeline.units import counted
from selection.facts import shard_hashes
from stores import is_remote, open_objects
from stores.scratch import scratch_folder, workplace

EMBED_FACTS = "embed.json"
"""What `train embed` writes beside its parts."""
COPIED = ("key", "instance", "frames", "seconds", "offset", "size")
"""What a side sample's row takes from the sidecar of its base shard."""


@dataclass(frozen=True)
class FieldWish:
    """What the user asks for."""

    field: str
    mel_rate_hz: int | None = None
    features: Path | None = None
    """Folder of `train embed`."""
    table: Path | None = None
    column: str | None = None
    from_source: bool = False
    overwrite: bool = False

    @property
    def flags(self) -> list[str]:
        """What the command line has to say beside the field's name, wherever it is given."""
        named = {
            "--mel-rate": self.mel_rate_hz,
            "--features": self.features and self.features.absolute(),
            "--table": self.table and self.table.absolute(),
            "--column": self.column,
        }
        given = [word for name, value in named.items() if value for word in (name, str(value))]
        return [*given, *(["--from-source"] if self.from_source else [])]


@dataclass(frozen=True)
class SideTask(ShardTask):
    """A side shard to make."""

    config: FieldConfig
    base_sha256: str = ""
    """Of the base shard."""

    @property
    def stated(self) -> dict[str, Any]:
        """The version of the base shard it belongs to."""
        return {"base_sha256": self.base_sha256}

    def items(self) -> Iterator[Item]:
        """Each sample by itself, so that one that crashes its child costs no other."""
        if self.config.origin == "source":
            yield from super().items()
            return
        for row in self.rows:
            yield Item(self.root, (row,))

    @contextlib.contextmanager
    def staged(self, decoder: Stoppable) -> Iterator[Iterator[Item]]:
        """The samples; of a set on a store, in a copy of their tar: one request, not thousands."""
        if not is_remote(self.root) or self.config.origin == "source":
            with super().staged(decoder) as items:
                yield items
            return
        store, name = open_objects(self.root, what="the set"), f"shards/{self.name}.tar"
        with workplace(scratch_folder(self.scratch)) as home:
            try:
                store.fetch(name, home / name, lambda: not decoder.stopped)
            except FileNotFoundError as error:
                raise ShardError(f"{store.url(name)} is gone since the job began") from error
            yield (Item(str(home), item.rows) for item in self.items())

    def listed(self, row: Row) -> dict[str, Any]:
        """The sample it belongs to."""
        return {name: row[name] for name in ("key", "instance")}


@dataclass(frozen=True)
class SidePlan:
    """The side shards of a field; what `job.run` is given instead of a planned set."""

    base: Prepared
    out: Path
    """OUT/fields/FIELD."""
    config: FieldConfig
    stored: dict[str, Any]
    """field.json."""
    shards: list[PlannedShard]
    sha256: dict[str, str]
    """Of the base shards, by name."""

    @property
    def name(self) -> str:
        """Of the field, with its set."""
        return f"{self.base.plan.name}.{self.config.field}"

    @property
    def plan(self) -> "SidePlan":
        """As `Prepared` has it."""
        return self

    def is_made(self, shard: PlannedShard) -> bool:
        """Whether a side shard is committed, of this version of its base shard."""
        return is_committed(self.out / "shards" / f"{shard.name}.json", shard.fingerprint)

    def task(self, shard: PlannedShard, limits: Limits, scratch: str = "") -> SideTask:
        """What a worker needs to make one side shard.

        Raises:
            ShardError: the base shard is not the one that the index means.
        """
        is_source, address = self.config.origin == "source", address_of(self.base.out)
        stored = address or str(self.base.out.absolute())
        root = self.base.plan.manifest_root if is_source else stored
        return SideTask(
            name=shard.name,
            rows=tuple(self._rows(shard)),
            root=root,
            folder=str(self.out / "shards"),
            config=self.config,
            config_hash=self.stored["config_hash"],
            fingerprint=shard.fingerprint,
            limits=limits,
            versions=versions(),
            store=address_of(self.out),
            scratch=scratch,
            base_sha256=self.sha256[shard.name],
        )

    def _rows(self, shard: PlannedShard) -> list[Row]:
        """The samples of a base shard in the order of its tar."""
        files = Outputs(self.base.out)
        sidecar = files.sidecar(shard.name)
        tar = files.tar_path(shard.name)
        size = tar_bytes(tar)
        if sidecar is None or sidecar.sha256 != self.sha256[shard.name] or size is None:
            raise ShardError(
                f"{tar} is not the shard that {files.index_path} lists; run `python -m pipeline "
                f"verify {self.base.out}`, mend what it names, then add the field again"
            )
        if size != sidecar.filesize:
            raise ShardError(
                f"{tar} has {size} bytes, its sidecar says {sidecar.filesize}: it is "
                f"damaged. Run `python -m pipeline verify {self.base.out}`"
            )
        rows = self.base.rows.of_shard(self._base_shards[shard.name]).to_pylist()
        planned = {row["key"]: row for row in rows}
        gone = self.base.account.not_of(shard.name)
        entries = [entry for entry in sidecar.samples if entry["key"] not in gone]
        return [self._row(planned[entry["key"]], entry, tar.name) for entry in entries]

    @cached_property
    def _base_shards(self) -> dict[str, PlannedShard]:
        return {shard.name: shard for shard in self.base.plan.shards}

    def _row(self, planned: Row, entry: dict[str, Any], tar: str) -> Row:
        """One sample: its place, or its row of the manifest where the source is read again."""
        if self.config.origin == "source":
            stored = {name: entry["source"].get(name) for name in ("bytes", "sha1")}
            return {**planned, "stored": {**stored, "frames": entry["frames"]}}
        copied = {name: entry[name] for name in COPIED}
        place = {"uri": f"shards/{tar}", "audio_uri": None, "container": None}
        return {**copied, **place, "bytes": entry["size"], "face_xy": planned.get("face_xy")}


def add_field(out: Path, wish: FieldWish, job: JobOptions, say: Any) -> Outcome:
    """Make a field, or what is missing of it.

    Raises:
        UsageError: the set cannot have it; what is there was made otherwise.
        NotFinishedError: the set is not finished.
        LockedError: another job writes the set.
        ShardError: it cannot be written.
    """
    _asked(out, wish)  # refuses what cannot be before a lock is left there
    with locked(out, shared=job.task is not None):
        with remote.alone(out):
            remote.pull(out)
            base, index, config = _asked(out, wish)
            if config.kind == "number":
                outcome = _add_number(out, config, wish)
                remote.push(out)
                return outcome
            plan = _planned(base, index, config, wish)
            remote.push(out)
        samples = sum(shard.rows for shard in plan.shards)
        say(f"{config.field}: {counted(samples, 'sample')} in "
            f"{counted(len(plan.shards), 'shard')} -> {plan.out}")  # fmt: skip
        result = run(plan, job)
        if job.task is not None:
            return _task_outcome(out, config, result)
        if result.stopped:
            return Outcome([f"Stopped: {result.stopped}"], INCOMPLETE)
        with remote.alone(out):
            ledger = _finalized(plan, index)
            remote.push(out)
    lines = [f"{counted(result.kept, 'shard')} kept, {result.made} made"] if result.kept else []
    return _outcome(out, config, ledger, lines)


def _asked(out: Path, wish: FieldWish) -> tuple[Prepared, dict[str, Any], FieldConfig]:
    """The set, its index, and the field that is to be made."""
    base, index = load(out), Outputs(out).index()
    return base, index, field_config(base, index, wish)


def _add_number(out: Path, config: FieldConfig, wish: FieldWish) -> Outcome:
    assert wish.table is not None
    number = NumberWish(wish.table, wish.column, wish.flags)
    ledger = add_number(out, config, number, wish.overwrite)
    name_fields(out)
    return _outcome(out, config, ledger, [])


def _finalized(plan: SidePlan, index: dict[str, Any]) -> FieldLedger:
    """Tables and index of a field whose side shards are made."""
    try:
        ledger = finalize_field(plan.out, plan.config, plan.stored, plan.shards, index)
        name_fields(plan.base.out)
    except OSError as error:
        raise ShardError(disk_sentence(str(plan.out), error)) from error
    clean(plan.out)
    (plan.out / "report.html").unlink(missing_ok=True)  # the page of the job, now over
    return ledger


def _task_outcome(out: Path, config: FieldConfig, result: Result) -> Outcome:
    if result.stopped:
        return Outcome([f"Stopped: {result.stopped}"], INCOMPLETE)
    return Outcome(
        [
            f"{result.kept} shards kept, {result.made} made by this task",
            f"when all tasks are through, the same command without --task: "
            f"{command(out, config.field)}",
        ],
        COMPLETE,
    )


def _outcome(out: Path, config: FieldConfig, ledger: FieldLedger, lines: list[str]) -> Outcome:
    lines = [*lines, *ledger.lines(config)]
    if ledger.errors:
        lines.append(f"Why: python -m pipeline errors {folder_of(out, config.field)}")
    return Outcome(lines, COMPLETE if ledger.closes and ledger.samples else INCOMPLETE)


# --- what is asked for --------------------------------------------------------------------------


def field_config(base: Prepared, index: dict[str, Any], wish: FieldWish) -> FieldConfig:
    """The field, checked against what the set stores.

    Raises:
        UsageError: it cannot be made; says why, and what can.
    """
    origin: Any = "source" if wish.from_source else "stored"
    common: dict[str, Any] = {"field": wish.field, "base": base.config, "origin": origin}
    ways = [wish.mel_rate_hz, wish.features, wish.table]
    if sum(way is not None for way in ways) > 1:
        raise UsageError("--mel-rate, --features and --table make different fields; give one")
    try:
        if wish.table is not None:
            config = FieldConfig(kind="number", **common)
        elif wish.features is not None:
            config = _features_config(base.out, wish.features, common)
        elif wish.mel_rate_hz is not None:
            config = FieldConfig(kind="mel", mel_rate_hz=wish.mel_rate_hz, **common)
        else:
            config = FieldConfig(kind=_crop(wish.field), **common)
    except ValueError as error:
        raise UsageError(str(error)) from error
    _refuse_stored(config, index)
    _check_possible(base, config)
    return config


def _crop(name: str) -> Any:
    if name not in CROPS:
        raise UsageError(
            f"what {name!r} is made of is not said; expected one of {', '.join(CROPS)}, or any "
            "name with --mel-rate 24000 (from the stored waveform), --table FILE.parquet (a number "
            "a sample) or --features FOLDER (of `python -m train embed`)"
        )
    return name


def _refuse_stored(config: FieldConfig, index: dict[str, Any]) -> None:
    """A member that the samples have cannot come a second time."""
    taken = {member.partition(".")[0] for member in index.get("members") or ()}
    if config.field in taken:
        what = f"the samples have a member {config.field} already"
        if config.kind in CROPS:
            raise UsageError(f"{what}, which is read by that name")
        raise UsageError(f"{what}; give the field a name of its own, such as {config.field}_2")


def _check_possible(base: Prepared, config: FieldConfig) -> None:
    """Whether the set stores what the field is made of."""
    if config.kind in CROPS and not config.base.stores_frames:
        raise UsageError(
            f"{base.out} stores no frames (profile {base.plan.profile}), so there are no faces to "
            f"find; make a set of another profile"
        )
    if config.kind == "mel":
        _check_mel(base, config)
    if config.origin == "source":
        if config.kind not in (*CROPS, "mel"):
            raise UsageError(f"--from-source makes {', '.join(CROPS)} or a mel, no {config.kind}")
        root = base.plan.manifest_root
        if not is_remote(root) and not Path(root).is_dir():
            instead = (
                "make the field from what is stored, without that flag"
                if config.kind in CROPS or config.base.waveform_rate_hz is not None
                else f"no waveform is stored either (profile {base.plan.profile}); make a set of a "
                "profile that stores one"
            )
            raise UsageError(f"--from-source reads {root}, which is not there; {instead}")


def _check_mel(base: Prepared, config: FieldConfig) -> None:
    """A rate that the grid can have, and sound enough for it."""
    try:
        replace(config.base, mel_rate_hz=config.mel_rate_hz)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"--mel-rate: {error}") from error
    rate = config.base.waveform_rate_hz
    if config.origin == "source":
        return
    if rate is None:
        raise UsageError(
            f"{base.out} stores no waveform (profile {base.plan.profile}), so a mel at "
            f"{config.mel_rate_hz} Hz needs the source: --from-source, if it is still there. "
            "Profiles avid, tempssl, coattention and sound store one"
        )
    assert config.mel_rate_hz is not None
    if config.mel_rate_hz > rate:
        raise UsageError(
            f"--mel-rate {config.mel_rate_hz}: the stored waveform has {rate} Hz, so nothing above "
            f"{rate // 2} Hz would be heard in it; give {rate} or less, or --from-source"
        )


def _features_config(out: Path, folder: Path, common: dict[str, Any]) -> FieldConfig:
    """The features of a folder of `train embed`."""
    try:
        facts = json.loads((folder / EMBED_FACTS).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--features {folder} has no {EMBED_FACTS} that can be read; make the folder with "
            f"`python -m train embed {out} --checkpoint RUN --out {folder}`"
        ) from error
    features = tuple(facts.get("channels", ()))
    if not features:
        raise UsageError(f"{folder / EMBED_FACTS} names no features; make the folder again")
    return FieldConfig(
        kind="features", features=features, facts=facts, parts=str(folder.absolute()), **common
    )


# --- the plan -----------------------------------------------------------------------------------


def _planned(
    base: Prepared, index: dict[str, Any], config: FieldConfig, wish: FieldWish
) -> SidePlan:
    """One side shard for each shard of the index; claims the folder.

    Raises:
        UsageError: the folder holds the field made otherwise.
    """
    stored = stored_field(config, base.config_hash, wish.flags)
    out = folder_of(base.out, config.field)
    before = read_field(base.out, config.field)
    if before is not None and before["config_hash"] != stored["config_hash"] and not wish.overwrite:
        raise UsageError(_made_otherwise(out, before, stored))
    sha256 = shard_hashes(index)
    shards = [
        _side_shard(entry, stored["config_hash"], _hidden(base, entry))
        for entry in index["shardlist"]
    ]
    (out / "shards").mkdir(parents=True, exist_ok=True)
    if wish.overwrite:
        cars = [f"shards/{path.name}" for path in (out / "shards").glob("*.json")]
        remote.forget(out, "shardindex.json", TABLE, *cars)
    write_atomically(out / "field.json", json.dumps(stored, indent=1).encode())
    return SidePlan(base, out, config, stored, shards, sha256)


def _hidden(base: Prepared, entry: dict[str, Any]) -> frozenset[str]:
    """Keys of the clips in a tar that were taken back; no field knows of rows without a sample."""
    name = Path(entry["url"]).stem
    sidecar = Outputs(base.out).sidecar(name) if entry.get("dropped") else None
    held = (sample["key"] for sample in sidecar.samples) if sidecar else ()
    return base.account.dropped_of(name).intersection(held)


def _side_shard(entry: dict[str, Any], config_hash: str, hidden: frozenset[str]) -> PlannedShard:
    """Another version of the base shard, or a clip taken back, makes another side shard."""
    fingerprint = canonical_hash([config_hash, entry["sha256"], sorted(hidden)])
    rows = entry["nsamples"] - entry.get("dropped", 0)
    return PlannedShard(Path(entry["url"]).stem, 0, rows, entry["seconds"], fingerprint)


def _made_otherwise(out: Path, before: dict[str, Any], stored: dict[str, Any]) -> str:
    old, new = before["config"], stored["config"]
    names = [name for name in new if old.get(name) != new[name]]
    changed = [f"{name}: {old.get(name)} -> {new[name]}" for name in names]
    changes = "; ".join(changed) or "the landmark model or the set's configuration"
    return (
        f"{out} was made otherwise ({changes[:300]}). Give another name, or --overwrite to make it "
        "again; nothing was touched"
    )
