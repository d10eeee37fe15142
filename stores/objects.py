"""Files in buckets (s3://, gs://), through pyarrow.fs: read by ranges, listed, written whole.

An object appears under its name in one closed upload of a file that is complete here, and never
else: what pyarrow is given piece by piece it would commit in part when something goes wrong between
two pieces. Credentials come from the environment as everywhere: AWS_PROFILE, AWS_ACCESS_KEY_ID,
AWS_REGION, AWS_ENDPOINT_URL_S3, GOOGLE_APPLICATION_CREDENTIALS, roles of the machine.
"""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs

from stores.base import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    REMOTE_READ_AHEAD_BYTES,
    Listed,
    pieces_of,
)
from stores.errors import StoreError
from stores.retry import RefusedError, retried

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectStore:
    """A prefix of a bucket."""

    scheme: str
    path: str
    """bucket/prefix."""

    is_local = False

    def __str__(self) -> str:
        """The address."""
        return f"{self.scheme}://{self.path}"

    @property
    def name(self) -> str:
        """As Store."""
        return self.path.rpartition("/")[2]

    def url(self, name: str) -> str:
        """As Store."""
        return f"{self}/{name}"

    def read(self, name: str) -> bytes:
        """As Store."""

        def whole() -> bytes:
            with self._file_system().open_input_file(f"{self.path}/{name}") as file:
                data: bytes = file.read()
                return data

        return retried(self.url(name), whole)

    def open(self, name: str) -> "ObjectFile":
        """As Store."""

        def opened() -> Any:
            return self._file_system().open_input_file(f"{self.path}/{name}")

        return ObjectFile(retried(self.url(name), opened), self.url(name))

    def read_range(self, name: str, offset: int, count: int) -> bytes:
        """A part of an object; shorter only at its end. Raises as `read`."""
        file = self.open(name)
        try:
            buffer = bytearray(count)
            return bytes(memoryview(buffer)[: file.read_into(memoryview(buffer), offset)])
        finally:
            file.close()

    # --- listing ---

    def list(self) -> list[Listed]:
        """Every object below the prefix, sorted by name.

        Names that no path can have are left out, and a warning says so.

        Raises:
            StoreError: it cannot be listed, or there is no such bucket.
        """
        selector = pyarrow.fs.FileSelector(self.path, recursive=True, allow_not_found=True)

        def all_of_them() -> list[Any]:
            found: list[Any] = self._file_system().get_file_info(selector)
            if not found:
                self._require_bucket()
            return found

        entries = retried(str(self), all_of_them, "listed")
        files = [entry for entry in entries if entry.type == pyarrow.fs.FileType.File]
        odd = [entry.path for entry in files if not _is_plain(entry.path)]
        if odd:
            log.warning(
                "%s: %d objects are left out, because no file can have their names, such as %s; "
                "give them names without empty parts, . and ..", self, len(odd), ascii(odd[0][:200])
            )  # fmt: skip
        return sorted(_listed(entry, self.path) for entry in files if _is_plain(entry.path))

    def facts(self, name: str) -> Listed | None:
        """Size and time of one object; None where there is none.

        Raises:
            StoreError: the bucket is not there, or cannot be asked.
        """

        def ask() -> Any:
            (entry,) = self._file_system().get_file_info([f"{self.path}/{name}"])
            if entry.type != pyarrow.fs.FileType.File:
                self._require_bucket()
                return None
            return _listed(entry, self.path)

        found: Listed | None = retried(self.url(name), ask)
        return found

    def _require_bucket(self) -> None:
        """Tell a place without objects from no place at all, which pyarrow answers alike."""
        bucket = self.path.partition("/")[0]
        (entry,) = self._file_system().get_file_info([bucket])
        if entry.type == pyarrow.fs.FileType.NotFound:
            raise RefusedError(f"there is no bucket {bucket!r}")

    # --- writing ---

    def put(self, local: Path, name: str) -> Listed:
        """Upload a complete file; readers see the old object or the new one.

        Raises:
            StoreError: it cannot be written.
        """
        with pa.memory_map(str(local)) if local.stat().st_size else pa.BufferReader(b"") as file:
            return self.write(name, file.read_buffer())

    def write(self, name: str, data: Any) -> Listed:
        """Upload bytes or a buffer; as `put`."""
        path, size = f"{self.path}/{name}", len(memoryview(data))

        def whole() -> Listed:
            with self._file_system().open_output_stream(path) as stream:
                stream.write(data)
            (entry,) = self._file_system().get_file_info([path])
            if entry.size != size:
                raise OSError(f"{size} bytes were sent, {entry.size} are there")
            return _listed(entry, self.path)

        return retried(self.url(name), whole, "written")

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        try:
            retried(
                self.url(name),
                lambda: self._file_system().delete_file(f"{self.path}/{name}"),
                "deleted",
            )
        except FileNotFoundError:
            return

    def fetch(self, name: str, local: Path, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Download an object whole; the file appears under its name when it is complete.

        Args:
            name: of the object.
            local: the file to make; its folders are made, too.
            is_wanted: asked between pieces; once it says no, the rest is not fetched, and there is
                no file.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: it cannot be read, changes meanwhile, or is not wanted any more.
            OSError: it cannot be written here.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".{uuid.uuid4().hex}.tmp")
        source = self.open(name)
        try:
            with open(temporary, "xb") as file:
                for piece in source.pieces():
                    if not is_wanted():
                        raise StoreError(f"{self.url(name)} was not read through: it was stopped")
                    file.write(piece)
            if temporary.stat().st_size != source.size:
                raise StoreError(f"{self.url(name)} changed while it was read; try again")
            os.replace(temporary, local)
        finally:
            source.close()
            temporary.unlink(missing_ok=True)

    def _file_system(self) -> Any:
        return file_system(self.scheme, self.path.partition("/")[0], os.getpid())


@lru_cache
def file_system(scheme: str, bucket: str, _process: int) -> Any:
    """One client a process: two processes must not share a client's open connections.

    pyarrow reads AWS_ENDPOINT_URL in no version up to 23, so it is read here.
    """
    if scheme == "gs":
        return pyarrow.fs.GcsFileSystem(
            anonymous="CLOUD_STORAGE_EMULATOR_ENDPOINT" in os.environ,  # which knows no accounts
            retry_time_limit=timedelta(seconds=CONNECT_SECONDS),
        )
    options: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"),
                   "scheme": parts.scheme}  # fmt: skip
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        region = _region_of(bucket)
    return pyarrow.fs.S3FileSystem(
        region=region,  # None: that of AWS_PROFILE
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),  # `retried` does it
        allow_delayed_open=True,  # one request for a small object, not three
        **options,
    )


def _listed(entry: Any, prefix: str) -> Listed:
    return Listed(entry.path[len(prefix) + 1 :], entry.size, entry.mtime_ns or 0)


def _is_plain(path: str) -> bool:
    """Whether a file of this name could be made: no empty part, no `.` or `..`."""
    return not {"", ".", ".."} & set(path.split("/"))


def _region_of(bucket: str) -> str | None:
    """Where AWS keeps a bucket; other regions would send us there."""
    try:
        region: str = pyarrow.fs.resolve_s3_region(bucket)
    except OSError:
        return None
    return region


class ObjectFile:
    """An open object; every read is a request of its own."""

    read_ahead = REMOTE_READ_AHEAD_BYTES
    has_ranges = True

    def __init__(self, file: Any, url: str) -> None:
        """A pyarrow.NativeFile and what it is called in messages."""
        self._file, self._url = file, url
        self.size: int = file.size()

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As ShardFile."""
        count = max(min(len(buffer), self.size - offset), 0)
        if count:
            data = retried(self._url, lambda: self._file.read_at(count, offset))
            buffer[: len(data)] = data
            count = len(data)
        return count

    def pieces(self) -> Iterator[bytes]:
        """As ShardFile."""
        return pieces_of(self)

    def close(self) -> None:
        """As ShardFile."""
        self._file.close()
