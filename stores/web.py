"""Shards on web servers, read through requests by ranges.

Credentials and proxies as requests has them: ~/.netrc, HTTPS_PROXY, REQUESTS_CA_BUNDLE.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import requests
import urllib3

from stores.base import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    FETCHED_BYTES,
    REMOTE_READ_AHEAD_BYTES,
    pieces_of,
)
from stores.errors import AddressError
from stores.retry import RefusedError, retried


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
            AddressError: the server gives whole files only.
        """
        if not self.has_ranges:
            raise AddressError(
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
        return pieces_of(self) if self.has_ranges else self._whole()

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
        raise RefusedError(reason(error)) from error
    except requests.exceptions.RequestException as error:
        raise OSError(reason(error)) from error
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


def reason(error: BaseException) -> str:
    """What lies at the bottom, such as `connection refused`; requests wraps it three times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    said = error.strerror if isinstance(error, OSError) else None
    words = " ".join((said or str(error) or type(error).__name__).split())
    return words[:1].lower() + words[1:]


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
