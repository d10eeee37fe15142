"""Servers on this machine: a web server that fails as told, also as S3."""

import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from stores.objects import file_system


@dataclass
class Web:
    """A folder behind http://, with a log of what was asked and a list of what goes wrong."""

    folder: Path
    url: str = ""
    ranges: bool = True
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """By ending of the path: answers to give first, instead of the file."""
    truncated: dict[str, int] = field(default_factory=dict)
    """By ending: how many answers break off in the middle."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of each request."""

    def count(self, ending: str) -> int:
        return sum(path.endswith(ending) for path, _ in self.asked)

    def sent_whole(self) -> Counter[str]:
        return Counter(Path(path).name for path, asked in self.asked if not asked)

    def trouble(self, path: str) -> int | None:
        for ending, left in self.statuses.items():
            if path.endswith(ending) and left:
                return left.pop(0)
        return None

    def breaks(self, path: str) -> bool:
        for ending, left in self.truncated.items():
            if path.endswith(ending) and left:
                self.truncated[ending] -= 1
                return True
        return False


class Handler(SimpleHTTPRequestHandler):
    """Files with Range, which the standard handler does not know."""

    protocol_version = "HTTP/1.1"

    def __init__(self, web: Web, *args: Any) -> None:
        self.web = web
        super().__init__(*args, directory=str(web.folder))

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.web.asked.append((self.path, asked))
        path = Path(self.translate_path(self.path))
        status = self.web.trouble(self.path) or (200 if path.is_file() else 404)
        if status != 200:
            return self.answer(status, b"")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if not match or not self.web.ranges:
            return self.answer(200, path.read_bytes())
        size = path.stat().st_size
        first, last = int(match[1]), min(int(match[2]), size - 1)
        with path.open("rb") as file:
            file.seek(first)
            data = file.read(last + 1 - first)
        self.answer(206, data, f"bytes {first}-{last}/{size}")

    def do_HEAD(self) -> None:
        path = Path(self.translate_path(self.path))
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.end_headers()

    def answer(self, status: int, data: bytes, content_range: str = "") -> None:
        broken = len(data) > 1 and self.web.breaks(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if broken else data)
        self.close_connection = broken


class Server(ThreadingHTTPServer):
    """Says nothing about readers that hang up early."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Silent."""


class Facts(Protocol):
    """What a handler knows of its server, which says where it listens."""

    url: str


F = TypeVar("F", bound=Facts)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], facts: F, port: int = 0) -> Iterator[F]:
    """Answer by a handler, which is given the facts, at `facts.url`; port 0 is any that is free."""
    answering: Callable[..., BaseHTTPRequestHandler] = handler
    server = Server(("127.0.0.1", port), partial(answering, facts))
    facts.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield facts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web(folder: Path, **options: Any) -> Iterator[Web]:
    """Serve a folder at `Web.url`."""
    with serving(Handler, Web(folder, **options)) as facts:
        yield facts


@contextmanager
def named_in_environment(
    url: str, key: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Nothing but this S3 server and these credentials are in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file_system.cache_clear()
    try:
        yield
    finally:
        file_system.cache_clear()


@contextmanager
def s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A folder whose sub-folders are buckets, at the address that the environment then names.

    What a reader asks of S3 is HEAD, and GET with Range, of /bucket/key. The fuller server of
    `tests.stores.bucket` is a process of its own; this one starts at once and breaks as it is told.
    """
    key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_hex(20)
    with web(folder) as facts, named_in_environment(facts.url, key, secret, monkeypatch):
        yield facts
