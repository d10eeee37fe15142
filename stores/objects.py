"""Shards in buckets (s3://, gs://), read through pyarrow.fs by ranges.

Credentials come from the environment as everywhere: AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_REGION,
AWS_ENDPOINT_URL_S3, GOOGLE_APPLICATION_CREDENTIALS, roles of the machine.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

from stores.base import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    REMOTE_READ_AHEAD_BYTES,
    pieces_of,
)
from stores.retry import retried


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
        **options,
    )


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
