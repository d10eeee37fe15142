"""A real S3 server in a process of its own (moto), and a proxy before it that fails as told.

boto3 looks into the buckets: another client than the one that is tested.
"""

import hashlib
import http.client
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.config import Config

from stores import retry
from tests.stores.servers import named_in_environment, serving

KEY, SECRET = "AKIAOFTHETESTOPENSESAME", "sesame/OfTheTests+ThatNobodyMaySee"
START_SECONDS = 500
HOP_HEADERS = {"connection", "host", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Fault:
    """What the proxy does with requests of a kind, as often as it says."""

    method: str
    """A pattern, as `path`: of the path and the query, unquoted."""
    path: str
    status: int = 503
    """0: never answered and never passed on."""
    times: int = 10**9
    delay_seconds: float = 0.0


@dataclass
class Proxy:
    """Before the server: passes on, notes, and fails."""

    target: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """`METHOD /path?query` of each request."""
    hit: threading.Event = field(default_factory=threading.Event)
    """Set once a fault has struck."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _struck: dict[int, int] = field(default_factory=dict)

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.asked.append(f"{method} {path}")
            for fault in self.faults:
                struck = self._struck.get(id(fault), 0)
                if (
                    struck < fault.times
                    and re.fullmatch(fault.method, method)
                    and re.search(fault.path, path)
                ):
                    self._struck[id(fault)] = struck + 1
                    self.hit.set()
                    return fault
        return None

    def heal(self) -> None:
        self.faults.clear()
        self.asked.clear()
        self.hit.clear()

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, asked)) for asked in self.asked)


class Handler(BaseHTTPRequestHandler):
    """One request: failed, or passed on as it is."""

    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: Proxy, *args: Any) -> None:
        self.proxy = proxy
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def pass_on(self) -> None:
        body = self.body()
        fault = self.proxy.fault(self.command, unquote(self.path))
        if fault is not None and fault.delay_seconds:
            time.sleep(fault.delay_seconds)
        if fault is not None and fault.status == 0:
            self.close_connection = True
            return
        if fault is not None and fault.status != 200:
            return self.answer(fault.status, {}, b"")
        link = http.client.HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=60)
        own = {n: v for n, v in self.headers.items() if n.lower() not in HOP_HEADERS}
        link.request(self.command, self.path, body, own)
        reply = link.getresponse()
        data = reply.read()
        kept = {n: v for n, v in reply.getheaders() if n.lower() not in HOP_HEADERS}
        self.answer(reply.status, kept, data)
        link.close()

    def body(self) -> bytes:
        """Of a known length, or in chunks, as clients send what they sign while they send it."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

    def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@dataclass(frozen=True)
class Bucket:
    """A bucket behind the proxy, and what is in it by another client."""

    name: str
    proxy: Proxy

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.proxy.target,
            aws_access_key_id="oracle",
            aws_secret_access_key="oracle",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """All objects with their bytes, by name."""
        client, found = self.client, {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for entry in page.get("Contents", []):
                if entry["Key"].startswith(prefix) and not entry["Key"].endswith("/"):
                    body = client.get_object(Bucket=self.name, Key=entry["Key"])["Body"]
                    found[entry["Key"]] = body.read()
        return found

    def upload(self, folder: Path, prefix: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=name, Body=data)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=name)

    def url(self, name: str) -> str:
        return f"s3://{self.name}/{name}"

    def tars(self, prefix: str) -> dict[str, str]:
        """SHA-256 of the tars of a set, by file name."""
        found = self.objects(f"{prefix}/shards/")
        return {
            name.rpartition("/")[2]: hashlib.sha256(data).hexdigest()
            for name, data in found.items()
            if name.endswith(".tar")
        }


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a fresh moto server."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()"]
    process = subprocess.Popen(
        [*command, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the S3 server did not start")


@contextmanager
def bucket_of(target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket, at the address and with the credentials that the environment then names."""
    with serving(Handler, Proxy(target)) as proxy:
        bucket = Bucket(f"shelf-{uuid.uuid4().hex[:8]}", proxy)
        with named_in_environment(proxy.url, KEY, SECRET, monkeypatch):
            bucket.client.create_bucket(Bucket=bucket.name)
            yield bucket


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """For the buckets of a file of tests."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """A fresh bucket, a scratch folder for what is fetched, and short pauses between tries."""
    monkeypatch.setenv("GLAV_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    with bucket_of(server, monkeypatch) as facts:
        yield facts
