"""Whether one shard is what its sidecar, the plan and the format say it is.

A pure function of the files, so that `verify` can run it in other processes. Deep checking decodes
every member with `pipeline.format`, as the trainer does, and compares what two places state about
the same thing: the tar and the sidecar, the JSON and the arrays, the clock and the picture times.
Findings are sentences that name the shard and the sample.
"""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.recipes import recipe_of
from pipeline.config import ShardConfig, rational_text
from pipeline.errors import plain_text
from pipeline.format import FormatError, Sample, base_name, decode, read_shard
from pipeline.item import Row
from pipeline.outputs import TAR_BLOCK_BYTES, Outputs, Sidecar
from pipeline.plan import PlannedShard, fingerprint_of
from pipeline.rows import PlannedRows, stated_facts
from pipeline.units import counted

CLOCK_TOLERANCE_SECONDS = 1e-3
"""Times in the JSON are decimal numbers of rationals; containers count in 1/1000 s at coarsest."""

STEADY_STEPS = 1.5
"""Container clocks round the steps of a steady rate."""

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError,
              RuntimeError, MemoryError, tarfile.TarError)  # fmt: skip
"""What decoders raise on bytes that are not what they should be."""


@dataclass
class ShardCheck:
    """What was found in one shard."""

    shard: str
    committed: bool = False
    """Whether a sidecar is there."""
    samples: int = 0
    """As errors only those that count: no row that a patch has, or that was taken back."""
    errors: int = 0
    stored: int = 0
    """Samples in the tar, counting or not."""
    filesize: int = 0
    """Bytes of the tar, as the sidecar says."""
    seconds: float = 0.0
    """Seconds of video stored."""
    sha256: str = ""
    """Of the tar, as the sidecar says."""
    findings: list[str] = field(default_factory=list)
    row_findings: list[str] = field(default_factory=list)
    """What is wrong with its rows in manifest.parquet."""
    keys: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """A hash of every key that counts: 8 bytes a row however long the keys are."""


def key_hash(key: str) -> int:
    """64 bits of a key; equal ones are compared in full afterwards."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def check_shard(
    out: Path,
    planned: PlannedShard,
    config_hash: str,
    deep: bool,
    elsewhere: frozenset[str] = frozenset(),
) -> ShardCheck:
    """Everything that can be said about one shard without the others.

    Args:
        out: the OUT folder.
        planned: which shard.
        config_hash: of the plan.
        deep: decode every sample.
        elsewhere: keys of its rows that a patch has, or that were taken back.
    """
    outputs, check = Outputs(out), ShardCheck(planned.name)
    try:
        sidecar = outputs.sidecar(planned.name)
        if sidecar is None:
            return check
        _take_counts(check, sidecar, elsewhere)
        check.findings += _sidecar_findings(planned, sidecar, config_hash, elsewhere)
        with outputs.local_tar(planned.name) as tar:
            check.findings += _file_findings(tar, sidecar)
            if deep and tar.is_file():
                rows = _planned_rows(outputs, planned)
                if rows is not None:
                    check.row_findings += _row_findings(planned, sidecar, rows)
                stated = [] if rows is None else rows.to_pylist()
                check.findings += _tar_findings(tar, sidecar, outputs.config, stated)
    except UNREADABLE as error:
        check.committed = True
        check.findings.append(f"{planned.name}: {_said(error)}")
    return check


def _said(error: BaseException) -> str:
    """An error in words; some, such as MemoryError, have none of their own."""
    return plain_text(str(error)) or type(error).__name__


def _planned_rows(outputs: Outputs, planned: PlannedShard) -> pa.Table | None:
    """The shard's rows of the manifest; None if it is lost or damaged, which `verify` says once."""
    try:
        return PlannedRows(outputs.manifest_path).of_shard(planned)
    except FormatError:
        return None


def _take_counts(check: ShardCheck, sidecar: Sidecar, elsewhere: frozenset[str]) -> None:
    samples, errors = (
        [entry["key"] for entry in entries if entry["key"] not in elsewhere]
        for entries in (sidecar.samples, sidecar.errors)
    )
    check.committed = True
    check.samples, check.errors = len(samples), len(errors)
    check.stored = len(sidecar.samples)
    check.filesize, check.seconds = sidecar.filesize, sidecar.seconds
    check.sha256 = sidecar.sha256
    check.keys = np.array([key_hash(key) for key in [*samples, *errors]], np.uint64)


# --- sidecar and file -------------------------------------------------------------------------


def _sidecar_findings(
    planned: PlannedShard, sidecar: Sidecar, config_hash: str, elsewhere: frozenset[str]
) -> Iterator[str]:
    name = planned.name
    done = len(sidecar.samples) + len(sidecar.errors) + len(sidecar.left_out)
    if sidecar.rows != planned.rows or done != planned.rows:
        left_out = f" and {len(sidecar.left_out)} left out" if sidecar.left_out else ""
        yield (
            f"{name}: the plan has {planned.rows} rows, the sidecar {sidecar.rows}: "
            f"{counted(len(sidecar.samples), 'sample')} and "
            f"{counted(len(sidecar.errors), 'error')}{left_out}"
        )
    for key in sorted(set(sidecar.left_out) - elsewhere):
        yield f"{name}: leaves out {key[:100]!r}, which no patch has and nobody took back"
    if sidecar.nsamples != len(sidecar.samples):
        yield f"{name}: nsamples is {sidecar.nsamples}, listed are {len(sidecar.samples)}"
    if sidecar.fingerprint != planned.fingerprint:
        yield f"{name}: made from other rows or another configuration than the plan's"
    if sidecar.config_hash != config_hash:
        yield f"{name}: config_hash is {sidecar.config_hash[:12]}…, the plan's {config_hash[:12]}…"


def _file_findings(tar: Path, sidecar: Sidecar) -> Iterator[str]:
    if not tar.is_file():
        yield f"{sidecar.shard}: the sidecar is there, {tar.name} is not"
        return
    size = tar.stat().st_size
    if size != sidecar.filesize:
        yield f"{sidecar.shard}: {tar.name} has {size} bytes, the sidecar says {sidecar.filesize}"
    elif (found := file_hash(tar, "sha256")) != sidecar.sha256:
        yield f"{sidecar.shard}: sha256 is {found[:12]}…, the sidecar says {sidecar.sha256[:12]}…"


def file_hash(path: Path, algorithm: str) -> str:
    """The hash of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _row_findings(planned: PlannedShard, sidecar: Sidecar, rows: pa.Table) -> Iterator[str]:
    """Whether the rows of manifest.parquet are the planned ones, and each ends in one place."""
    if fingerprint_of(planned, rows, sidecar.config_hash) != planned.fingerprint:
        yield f"{planned.name}: its rows in manifest.parquet are not those of the plan"
    ended = Counter(entry["key"] for entry in [*sidecar.samples, *sidecar.errors])
    ended.update(sidecar.left_out)
    for key in sorted((ended - Counter(rows["key"].to_pylist())).keys()):
        yield f"{planned.name}: {key[:100]!r} is no row of it in manifest.parquet"


# --- every sample -----------------------------------------------------------------------------


def _tar_findings(
    tar: Path, sidecar: Sidecar, config: ShardConfig, rows: list[Row]
) -> Iterator[str]:
    listed = {entry["base"]: entry for entry in sidecar.samples}
    stated = {row["key"]: stated_facts(row) for row in rows}
    count = 0
    if (found := file_hash(tar, "md5")) != sidecar.md5:
        yield f"{sidecar.shard}: md5 is {found[:12]}…, the sidecar says {sidecar.md5[:12]}…"
    with tar.open("rb") as file:
        for base, members in read_shard(tar):
            count += 1
            entry = listed.pop(base, None)
            where = f"{sidecar.shard}: {base[:100]}"
            if entry is None:
                yield f"{where} is in the tar, not in the sidecar"
                continue
            try:
                yield from (f"{where}: {said}" for said in _place_findings(file, entry, members))
                sample = decode(members)
                said_of = _sample_findings(entry, sample, members, config)
                yield from (f"{where}: {said}" for said in said_of)
                row = stated.get(sample.meta["key"], {})
                yield from (f"{where}: {said}" for said in _stated_findings(sample.meta, row))
            except UNREADABLE as error:
                yield f"{where}: cannot be read: {_said(error)}"
    yield from (f"{sidecar.shard}: {base[:100]} is not in the tar" for base in listed)
    if count != sidecar.nsamples:
        yield f"{sidecar.shard}: the tar holds {count} samples, the sidecar {sidecar.nsamples}"


def _place_findings(
    file: BinaryIO, entry: dict[str, Any], members: Mapping[str, bytes]
) -> Iterator[str]:
    """Whether the sidecar's offsets lead to the members: some readers use no tar library."""
    places = entry["members"]
    if list(places) != list(members):
        yield f"the sidecar lists the members {list(places)}, the tar has {list(members)}"
        return
    for extension, data in members.items():
        offset, size = places[extension]
        file.seek(offset)
        if size != len(data) or file.read(size) != data:
            yield f"{extension} is not at {offset} with {size} bytes"
    offset, size = list(places.values())[-1]
    end = offset + -(-size // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
    if entry["offset"] + entry["size"] != end:
        yield f"ends at {end}; the sidecar says {entry['offset']} + {entry['size']}"
    file.seek(entry["offset"])
    header = tarfile.TarInfo.frombuf(file.read(TAR_BLOCK_BYTES), "utf-8", "strict")
    if header.name.partition(".")[0] != entry["base"]:
        yield f"{header.name[:100]!r} begins at {entry['offset']}"


def _sample_findings(
    entry: dict[str, Any], sample: Sample, members: Mapping[str, bytes], config: ShardConfig
) -> Iterator[str]:
    if tuple(members) != config.members:
        yield f"has the members {list(members)}, the configuration {list(config.members)}"
    meta = sample.meta
    for name in sorted(entry.keys() & meta.keys()):
        if meta[name] != entry[name]:
            said, listed = _short(meta[name]), _short(entry[name])
            yield f"{name} is {said} in the sample, {listed} in the sidecar"
    seconds = float(meta["frames"] / Fraction(meta["fps"]))
    if abs(entry["seconds"] - seconds) > CLOCK_TOLERANCE_SECONDS:
        yield f"lasts {seconds} s, the sidecar says {entry['seconds']}"
    if base_name(meta["key"]) != entry["base"]:
        yield f"the key {meta['key'][:100]!r} belongs to another name"
    yield from _rate_findings(meta, config)
    yield from _clock_findings(meta, config)
    yield from _picture_findings(sample, config)
    yield from _face_findings(sample)


def _stated_findings(meta: dict[str, Any], stated: Mapping[str, Any]) -> Iterator[str]:
    """Whether the JSON says what the manifest row says."""
    for name, value in stated.items():
        if meta[name] != value:
            yield f"{name} is {_short(meta[name])}, manifest.parquet says {_short(value)}"


def _short(value: object) -> str:
    return plain_text(repr(value))[:100]


def _rate_findings(meta: dict[str, Any], config: ShardConfig) -> Iterator[str]:
    expected = {
        "fps": rational_text(config.fps),
        "mel_rate_hz": config.mel_rate_hz,
        "waveform_rate_hz": config.waveform_rate_hz,
        "waveform_channels": config.waveform_channels,
    }
    for name, value in expected.items():
        if meta[name] != value:
            yield f"{name} is {meta[name]!r}, the configuration says {value!r}"


def _clock_findings(meta: dict[str, Any], config: ShardConfig) -> Iterator[str]:
    """Frame k must be the one on screen at the middle of interval k (architecture §4)."""
    pts, frames = meta["pts"], meta["frames"]
    if frames < 1 or len(pts) != (frames if config.stores_frames else 0):
        yield f"has {frames} frames and {len(pts)} picture times"
        return
    if any(after < before for before, after in pairwise(pts)):
        yield "the picture times run backwards"
    fps = Fraction(meta["fps"])
    middles = [meta["t0"] + float((index + Fraction(1, 2)) / fps) for index in range(len(pts))]
    held = set(meta["held"])  # these show the nearest picture there is, as their list says
    late = [
        k
        for k, middle in enumerate(middles)
        if k not in held and pts[k] > middle + CLOCK_TOLERANCE_SECONDS
    ]
    if late:
        yield f"frame {late[0]} is from {pts[late[0]]} s, after the middle of its interval"
    yield from _stale_findings(meta, middles, held)
    for word in meta["words"]:
        if word["start_s"] > word["end_s"]:
            yield f"the word {word['w']!r} ends before it starts"


def _stale_findings(meta: dict[str, Any], middles: list[float], held: set[int]) -> Iterator[str]:
    """Where pictures come at a steady rate, the one on screen is no older than one step of it."""
    source = meta["source"]
    if not source["fps"] or source["vfr"] or source["bad_packets"]:
        return
    speed = float(recipe_of(meta["key"], meta["extra"]).speed)  # 1 unless it is manipulated
    oldest = STEADY_STEPS / (source["fps"] * speed) + CLOCK_TOLERANCE_SECONDS
    ages = ((k, middle - meta["pts"][k]) for k, middle in enumerate(middles) if k not in held)
    stale = next(((k, age) for k, age in ages if age > oldest), None)
    if stale is not None:
        yield f"frame {stale[0]} is {stale[1]:.3f} s old at {source['fps']} pictures a second"


def _picture_findings(sample: Sample, config: ShardConfig) -> Iterator[str]:
    for kind, pictures in sample.pictures.items():
        size = sample.meta["frame_size"] if kind == "frames" else [config.crop_size] * 2
        wrong = {p.shape[1::-1] for p in pictures if p is not None and list(p.shape[1::-1]) != size}
        if wrong:
            yield f"{kind} holds pictures of {sorted(wrong)}, expected {size}"
        if kind == "frames" and (not pictures or any(p is None for p in pictures)):
            yield "a frame has no picture"


def _face_findings(sample: Sample) -> Iterator[str]:
    frames = sample.meta["frames"]
    suffixes = ("", "2")
    for track, suffix in zip(sample.meta["faces"], suffixes, strict=False):
        lengths = {name: len(track[name]) for name in ("box", "score", "state")}
        if set(lengths.values()) != {frames}:
            yield f"face track {track['track']}: {lengths} entries for {frames} frames"
            continue
        crops = sample.pictures.get(f"face{suffix}") or [None] * frames
        faceless = [i for i in range(frames) if crops[i] is not None and track["box"][i] is None]
        if faceless:
            yield f"frame {faceless[0]} has a face{suffix} picture but no box"
    stored = sum(bool(pictures) for kind, pictures in sample.pictures.items() if "face" in kind)
    if stored > len(sample.meta["faces"]):
        described = len(sample.meta["faces"])
        yield f"{stored} face members hold pictures, {described} tracks are described"
