"""The files of a shard set: where they are, and what they say, as types.

    OUT/plan.json, config.json      written first: what will be made, and how
    OUT/shards/NAME.tar, NAME.json  a shard and its sidecar; the sidecar is the commit mark
    OUT/shardindex.json, samples.parquet, errors.parquet, report.html   written last

Reads what plan, shard and index write; gives it to verify, status, peek and report. One sidecar is
held at a time, so that a set of any size can be read. Nothing in these files is trusted: a file
that does not say what it should is a `FormatError` naming the file.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import SCHEMA
from pipeline.config import ShardConfig
from pipeline.errors import plain_text
from pipeline.format import MAX_MEMBER_BYTES, FormatError
from pipeline.mirror import STAND_IN, store_of
from pipeline.plan import Plan, PlannedShard
from stores.objects import ObjectStore
from stores.scratch import scratch_folder, workplace

SCHEMA_VERSION = 1
TAR_BLOCK_BYTES = 512
BATCH_ROWS = 5_000
SAMPLES_MARK, ERRORS_MARK = b'"samples":[', b'],"errors":['
"""Around the list of samples in a sidecar as `pipeline.shard` writes it."""
SIDECAR_TYPES: dict[str, type | tuple[type, ...]] = {
    "shard": str,
    "rows": int,
    "nsamples": int,
    "filesize": int,
    "sha256": str,
    "md5": str,
    "config_hash": str,
    "fingerprint": str,
    "seconds": (int, float),
    "run": dict,
    "samples": list,
    "errors": list,
}


class NotFinishedError(FileNotFoundError):
    """A file of the set is not there (yet); the message names the command that makes it."""


@dataclass(frozen=True)
class Sidecar:
    """What a committed shard says of itself."""

    shard: str
    rows: int
    nsamples: int
    filesize: int
    """Bytes of the tar."""
    sha256: str
    """Of the tar, as `md5` is."""
    md5: str
    config_hash: str
    fingerprint: str
    seconds: float
    """Seconds of video stored."""
    run: dict[str, Any]
    """`host`, `pid`, `started_unix`, `work_seconds` of the process that made it."""
    samples: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    left_out: list[str]
    """Keys of its rows that it does not hold, because a patch does or they were taken back."""
    purged_from: list[str]
    """sha256 of the tars it was before clips were purged from them, the first one first."""
    committed_unix: float
    """When the sidecar was written."""


@dataclass(frozen=True)
class Place:
    """Where one sample lies."""

    key: str
    shard: str
    offset: int
    """Of the first tar header."""
    size: int
    """Bytes up to the end of the last member."""


class Outputs:
    """The paths of one OUT folder and typed readings of its files."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.plan_path = out / "plan.json"
        self.manifest_path = out / "manifest.parquet"
        self.config_path = out / "config.json"
        self.shards = out / "shards"
        self.index_path = out / "shardindex.json"
        self.samples_path = out / "samples.parquet"
        self.errors_path = out / "errors.parquet"
        self.report_path = out / "report.html"
        self._again = (
            "run the `python -m pipeline shards` command of this set again, which makes it anew"
        )
        self._finalize = f"`python -m pipeline finalize {out}` writes it"

    def tar_path(self, shard: str) -> Path:
        """The tar of a shard; a name with a path in it is refused."""
        if Path(shard).name != shard or not shard:
            raise FormatError(f"{shard!r} is no shard name")
        return self.shards / f"{shard}.tar"

    @contextmanager
    def local_tar(self, shard: str) -> Iterator[Path]:
        """The tar of a shard for one who reads it through: fetched for the moment from a store.

        Raises:
            StoreError: it cannot be fetched.
        """
        path = self.tar_path(shard)
        if self.store is None:
            yield path
            return
        with workplace(scratch_folder(self.scratch)) as folder:
            with suppress(FileNotFoundError):
                self.store.fetch(f"shards/{path.name}", folder / path.name)
            yield folder / path.name

    @cached_property
    def store(self) -> ObjectStore | None:
        """Where the tars are, if this folder only mirrors a set."""
        return store_of(self.out)

    @property
    def scratch(self) -> Path:
        """Where a mirror lies, and what is fetched for the moment, too."""
        return self.out.parents[2]

    def tars(self) -> list[str]:
        """The names of all tars there are, in the plan or not."""
        ending = ".tar" if self.store is None else f".tar{STAND_IN}"
        return sorted(path.name.removesuffix(STAND_IN) for path in self.shards.glob(f"*{ending}"))

    def sidecar_path(self, shard: str) -> Path:
        """The commit mark of a shard."""
        return self.tar_path(shard).with_suffix(".json")

    @cached_property
    def plan(self) -> Plan:
        """plan.json."""
        if not self.plan_path.exists():
            raise NotFinishedError(
                f"{self.plan_path} is not there; `pipeline shards` writes it first"
            )
        remedy = (
            "remove it and run the `python -m pipeline shards` command of this set again: shards "
            "whose rows come out the same are kept"
        )
        stored = _read_object(self.plan_path, remedy)
        try:
            return Plan.from_dict(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"plan.json lacks or misstates {error}; {remedy}") from error

    @cached_property
    def stored_config(self) -> dict[str, Any]:
        """config.json as it stands: config, config_hash, landmarks_sha256, versions."""
        return _read_object(self.config_path, self._again)

    @cached_property
    def config(self) -> ShardConfig:
        """What every sample of the set contains."""
        stored = self.stored_config
        try:
            return ShardConfig.from_dict(stored["config"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            said = f"{self.config_path}: no shard configuration: {error}; {self._again}"
            raise FormatError(said) from error

    def index(self) -> dict[str, Any]:
        """shardindex.json; there only once a job or `pipeline finalize` has ended."""
        return _read_object(self.index_path, self._finalize)

    def labels(self) -> list[str]:
        """The class names of the set, in the order of the class numbers."""
        path = self.out / "labels" / f"{self.plan.dataset}.json"
        names = _read_json(path, self._again)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise FormatError(f"{path} is no list of class names; {self._again}")
        return names

    def check_manifest(self) -> None:
        """Read manifest.parquet through.

        Raises:
            NotFinishedError: it is not there.
            FormatError: it cannot be read, or is not that of the plan.
        """
        with reading(self.manifest_path, self._again), pq.ParquetFile(self.manifest_path) as file:
            lacks = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
            rows = sum(batch.num_rows for batch in file.iter_batches(BATCH_ROWS))
        if lacks or rows != self.plan.planned_rows:
            said = f"lacks {', '.join(lacks)}" if lacks else f"has {rows} rows"
            raise FormatError(
                f"{self.manifest_path} {said}; expected the {self.plan.planned_rows} rows of "
                f"plan.json. To mend it, {self._again}"
            )

    def errors(self, reason: str | None = None) -> pa.Table:
        """The rows of errors.parquet, or those with one reason."""
        filters = None if reason is None else [("reason", "==", reason)]
        with reading_table(self.errors_path):
            return pq.read_table(self.errors_path, filters=filters)

    def sidecar(self, shard: str, *, with_samples: bool = True) -> Sidecar | None:
        """The sidecar of a shard, None while the shard is not committed.

        Args:
            shard: its name.
            with_samples: read the list of samples, which is nearly all of the file; without it the
                list is empty (or not, if the file is laid out unlike ours) and reading 40 times
                faster.
        """
        path = self.sidecar_path(shard)
        try:
            committed_unix = path.stat().st_mtime
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        remedy = "remove it, and its shard is made again"
        stored = _parse(path, text if with_samples else without_samples(text), remedy)
        return _sidecar(path, _object(path, stored, remedy), committed_unix)

    def sidecars(self) -> Iterator[tuple[PlannedShard, Sidecar | None]]:
        """Every planned shard with its sidecar, in plan order, one in memory at a time."""
        return ((shard, self.sidecar(shard.name)) for shard in self.plan.shards)

    def places(self) -> Iterator[Place]:
        """Every committed sample, from the sidecars; works while the job runs."""
        for shard, sidecar in self.sidecars():
            for entry in sidecar.samples if sidecar else ():
                yield Place(entry["key"], shard.name, entry["offset"], entry["size"])

    def read_members(self, place: Place) -> dict[str, bytes]:
        """The members of one sample by extension, without reading the rest of its shard."""
        path = self.tar_path(place.shard)
        if not 0 < place.size <= MAX_MEMBER_BYTES:
            raise FormatError(f"{path}: {place.key!r} claims {place.size} bytes")
        data = self._bytes_of(path, place)
        try:
            return dict(_members(data))
        except tarfile.TarError as error:
            raise FormatError(f"{path}: no sample at {place.offset}: {error}") from error

    def _bytes_of(self, path: Path, place: Place) -> bytes:
        if self.store is not None:
            return self.store.read_range(f"shards/{path.name}", place.offset, place.size)
        with path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            if stream is not None:
                yield entry.name.partition(".")[2], stream.read()


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a reader raises into a sentence with the next step.

    Raises:
        NotFinishedError: there is no such file.
        FormatError: the file cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise NotFinishedError(f"{path} is not there; {remedy}") from error
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path} cannot be read ({plain_text(str(error))}); {remedy}") from error


def reading_table(path: Path) -> AbstractContextManager[None]:
    """`reading` around whatever reads samples.parquet or errors.parquet."""
    return reading(path, f"`python -m pipeline finalize {path.parent}` writes it")


def _read_json(path: Path, remedy: str) -> Any:
    with reading(path, remedy):
        return _parse(path, path.read_bytes(), remedy)


def _read_object(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        NotFinishedError: there is no such file.
        FormatError: the file holds something else.
    """
    return _object(path, _read_json(path, remedy), remedy)


def _parse(path: Path, text: bytes, remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}; {remedy}") from error


def _object(path: Path, stored: Any, remedy: str) -> dict[str, Any]:
    if not isinstance(stored, dict) or stored.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        said = f"this version reads JSON objects of schema {SCHEMA_VERSION}"
        raise FormatError(f"{path}: {said}; {remedy}")
    return stored


def without_samples(text: bytes) -> bytes:
    """A sidecar's text with an empty list of samples.

    Quotes inside of JSON strings are escaped, so neither mark can be part of a name or a path.
    """
    start, end = text.find(SAMPLES_MARK), text.rfind(ERRORS_MARK)
    return text[: start + len(SAMPLES_MARK)] + text[end:] if 0 <= start < end else text


def _sidecar(path: Path, stored: dict[str, Any], committed_unix: float) -> Sidecar:
    for name, kind in SIDECAR_TYPES.items():
        if not isinstance(stored.get(name), kind):
            raise FormatError(f"{path}: {name} is {str(stored.get(name))[:40]!r}")
    if stored["shard"] != path.stem:
        raise FormatError(f"{path} describes the shard {stored['shard'][:80]!r}")
    values = {name: stored[name] for name in SIDECAR_TYPES}
    for name in ("left_out", "purged_from"):  # most shards, and all of older sets, have none
        values[name] = stored.get(name, [])
        if not isinstance(values[name], list) or not all(isinstance(v, str) for v in values[name]):
            raise FormatError(f"{path}: {name} is {str(values[name])[:40]!r}")
    return Sidecar(committed_unix=committed_unix, **values)
