"""Where a shard set lies: a folder, s3://, gs:// or http(s)://, read the same way.

    open_store("s3://bucket/sets/demo-glcm") -> Store -> .read("shardindex.json"), .open("a.tar")

Objects are read through pyarrow.fs, whose credentials come from the environment as everywhere
(AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL_S3, GOOGLE_APPLICATION_CREDENTIALS,
roles of the machine), web servers through requests (.netrc, HTTPS_PROXY, REQUESTS_CA_BUNDLE).
Tars are read by ranges, so that a clip costs one request and no tar is ever held whole. What fails
in passing is tried again with growing pauses; what cannot succeed is a sentence at once.
"""

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import pyarrow.fs
import requests
import urllib3

from train.errors import StoreError, UsageError

log = logging.getLogger(__name__)

TRIES = 8
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Time limits of one request: until there is a connection, and between two pieces of an answer."""
LOCAL_READ_AHEAD_BYTES = 1 << 20
REMOTE_READ_AHEAD_BYTES = 4 << 20
"""A request's round trip costs as much as megabytes do, so most clips come in one."""
FETCHED_BYTES = 8 << 20
"""A request of a whole tar's copy."""
SCHEMES = "a folder, s3://bucket/set, gs://bucket/set, or https://host/set with --allow-http"
NEVER = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT"
    r"|EXPIRED_TOKEN|HTTP status (?:30\d|400|401|403|404)|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|INVALID_ARGUMENT|credentials|access token",
    re.IGNORECASE,
)
"""In what pyarrow says: trying again would not help."""

T = TypeVar("T")


class ShardFile(Protocol):
    """An open file that is read in any order."""

    @property
    def size(self) -> int:
        """Bytes; -1 where a server does not say."""

    @property
    def read_ahead(self) -> int:
        """Bytes that are worth reading at once."""

    @property
    def has_ranges(self) -> bool:
        """False where only the whole file can be had."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a place; gives the number of bytes, fewer only at the end."""

    def pieces(self) -> Iterator[bytes]:
        """The whole file, piece after piece."""

    def close(self) -> None:
        """Give back what is held."""


class Store(Protocol):
    """A shard set's home. `str()` is its address; it never holds a secret."""

    @property
    def is_local(self) -> bool:
        """A folder of this machine."""

    @property
    def name(self) -> str:
        """The last part of the address."""

    def url(self, name: str) -> str:
        """The address of one of its files, for messages."""

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: it cannot be read.
        """

    def open(self, name: str) -> ShardFile:
        """A large file; raises as `read`."""


def open_store(address: str, *, allow_http: bool = False) -> Store:
    """The store of an address; nothing is read yet.

    Raises:
        UsageError: the address is of no known kind, or holds a password or signature, which would
            end up in config.json and in logs.
    """
    scheme, found, rest = address.partition("://")
    if not found or scheme == "file":
        if re.match(r"-|(?:pipe|s3|gs|https?):", address):
            raise UsageError(f"{address[:100]!r} is no place of shards; expected {SCHEMES}")
        return LocalStore(Path(rest if found else address))
    _refuse_secrets(scheme, rest)
    rest = rest.rstrip("/")
    if scheme not in ("s3", "gs", "http", "https"):
        raise UsageError(f"shards are not read from {scheme}://; expected {SCHEMES}")
    if not re.fullmatch(r"[\w.:\[\]-]+(/[^/?#\s]+)*", rest) or ".." in rest.split("/"):
        raise UsageError(
            f"{scheme}://{rest[:200]} is no address of a shard set; expected {SCHEMES}"
        )
    if scheme in ("s3", "gs"):
        return ObjectStore(scheme, rest)
    if not allow_http:
        raise UsageError(
            f"{address} is on a web server, whose answers nobody vouches for; say --allow-http if "
            "you trust it, or copy the set to a folder"
        )
    return HttpStore(f"{scheme}://{rest}")


def _refuse_secrets(scheme: str, rest: str) -> None:
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        host = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
        raise UsageError(
            f"the address {scheme}://{host}/... holds a password, a signature or a query, which "
            "would be stored with the run; leave it out and give credentials by the environment: "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc"
        )


# --- trying again -------------------------------------------------------------------------------


class RefusedError(OSError):
    """The other side said no, and would say so again."""


def retried(url: str, action: Callable[[], T]) -> T:
    """Do it; after a failure that may pass, wait and do it again, `TRIES` times in all.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: refused, or still failing; says which address, how often it was tried, what
            was said last and what to do.
    """
    began = time.monotonic()
    for tries in range(1, TRIES + 1):
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, RefusedError) or NEVER.search(said):
                raise StoreError(
                    f"{url} cannot be read: {said}. Check the address and the credentials that "
                    "this machine uses (README, shards elsewhere)"
                ) from error
            if tries == TRIES:
                seconds = time.monotonic() - began
                raise StoreError(
                    f"{url} could not be read, tried {tries} times in {seconds:.0f} s; the last "
                    f"time: {said}. When it can be reached again, the same command goes on from "
                    "the last checkpoint"
                ) from error
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS)
            pause *= random.SystemRandom().uniform(0.5, 1)  # many readers must not come in step
            log.warning("%s: %s; again in %.1f s (%d of %d)", url, said, pause, tries, TRIES)
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


# --- a folder -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalStore:
    """A folder of this machine or of a file system it mounts."""

    folder: Path

    is_local = True

    def __str__(self) -> str:
        """The folder as it was given."""
        return str(self.folder)

    @property
    def name(self) -> str:
        """As Store."""
        return self.folder.name

    def url(self, name: str) -> str:
        """As Store."""
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """As Store."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> "LocalFile":
        """As Store."""
        return LocalFile(os.open(self.folder / name, os.O_RDONLY))


class LocalFile:
    """An open file of this machine."""

    read_ahead = LOCAL_READ_AHEAD_BYTES
    has_ranges = True

    def __init__(self, descriptor: int) -> None:
        """Closes the descriptor in the end."""
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As ShardFile."""
        return os.preadv(self._descriptor, [buffer], offset)

    def pieces(self) -> Iterator[bytes]:
        """As ShardFile."""
        return _pieces(self)

    def close(self) -> None:
        """As ShardFile."""
        os.close(self._descriptor)


def _pieces(file: ShardFile) -> Iterator[bytes]:
    buffer = bytearray(min(FETCHED_BYTES, max(file.size, 1)))
    position = 0
    while count := file.read_into(memoryview(buffer), position):
        position += count
        yield bytes(memoryview(buffer)[:count])


# --- s3 and gs ----------------------------------------------------------------------------------


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
        return _file_system(self.scheme, self.path.partition("/")[0], os.getpid())


@lru_cache
def _file_system(scheme: str, bucket: str, _process: int) -> Any:
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
        return _pieces(self)

    def close(self) -> None:
        """As ShardFile."""
        self._file.close()


# --- web servers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class HttpStore:
    """A folder of a web server."""

    address: str

    is_local = False

    def __str__(self) -> str:
        """The address."""
        return self.address

    @property
    def name(self) -> str:
        """As Store."""
        return self.address.rpartition("/")[2]

    def url(self, name: str) -> str:
        """As Store."""
        return f"{self.address}/{name}"

    def read(self, name: str) -> bytes:
        """As Store."""
        url = self.url(name)

        def whole() -> bytes:
            with _get(url) as answer:
                return _body(answer, url)

        return retried(url, whole)

    def open(self, name: str) -> "HttpFile":
        """As Store."""
        return HttpFile(self.url(name))


class HttpFile:
    """A file of a web server, read by ranges."""

    read_ahead = REMOTE_READ_AHEAD_BYTES

    def __init__(self, url: str) -> None:
        """Ask for one byte: tells the size, and whether the server knows ranges."""
        self._url = url
        self.size, self.has_ranges = retried(url, self._facts)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As ShardFile.

        Raises:
            UsageError: the server gives whole files only.
        """
        if not self.has_ranges:
            raise UsageError(
                f"{self._url}: this server gives no parts of files (Range), and a whole shard for "
                "each clip would be too much; keep shards here with --cache-gb, at least as large "
                "as the set, or serve them with another server (nginx, caddy, s3)"
            )
        count = max(min(len(buffer), self.size - offset), 0)
        if count:
            buffer[:count] = retried(self._url, lambda: self._range(offset, count))
        return count

    def pieces(self) -> Iterator[bytes]:
        """As ShardFile; from a server without ranges in one answer, whose end may raise OSError."""
        return _pieces(self) if self.has_ranges else self._whole()

    def close(self) -> None:
        """As ShardFile."""

    def _facts(self) -> tuple[int, bool]:
        with _get(self._url, "bytes=0-0") as answer:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status_code == 206 and total.isdigit():
                return int(total), True
            return int(answer.headers.get("Content-Length", -1)), False

    def _range(self, offset: int, count: int) -> bytes:
        last = offset + count - 1
        with _get(self._url, f"bytes={offset}-{last}") as answer:
            said = answer.headers.get("Content-Range")
            if answer.status_code != 206 or said != f"bytes {offset}-{last}/{self.size}":
                raise OSError(
                    f"asked for bytes {offset}-{last}/{self.size}, got {answer.status_code} {said}"
                )
            return _body(answer, self._url, count)

    def _whole(self) -> Iterator[bytes]:
        with _get(self._url) as answer:
            yield from answer.iter_content(FETCHED_BYTES)


@lru_cache
def _session(_process: int) -> requests.Session:
    """One a process, as connections stay open."""
    session = requests.Session()
    session.max_redirects = 5
    return session


def _get(url: str, byte_range: str = "") -> requests.Response:
    """An answer with status 200 or 206.

    Raises:
        FileNotFoundError: 404 or 410.
        RefusedError: another refusal, or a way back from https to http.
        OSError: what may pass.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": byte_range} if byte_range else {})
    try:
        answer = _session(os.getpid()).get(
            url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, ANSWER_SECONDS)
        )
    except (requests.exceptions.SSLError, requests.exceptions.TooManyRedirects) as error:
        raise RefusedError(f"{error}") from error
    code = answer.status_code
    if code in (200, 206) and (url.startswith("http:") or answer.url.startswith("https:")):
        return answer
    answer.close()
    if code in (404, 410):
        raise FileNotFoundError(f"{url} is not there (status {code})")
    said = f"status {code} {answer.reason}"
    if code in (408, 425, 429) or code >= 500:
        raise OSError(said)
    raise RefusedError(said if code != 200 else "the server leads from https to http")


def _body(answer: requests.Response, url: str, count: int | None = None) -> bytes:
    """All of it in one piece (requests would take 10 KiB at a time, at twice the CPU time).

    Raises:
        OSError: the connection ended early.
    """
    try:
        data: bytes = answer.raw.read()
    except urllib3.exceptions.HTTPError as error:
        raise OSError(f"{error}") from error
    expected = count if count is not None else int(answer.headers.get("Content-Length", len(data)))
    if len(data) != expected:
        raise OSError(f"{url} ended after {len(data)} of {expected} bytes")
    return data
