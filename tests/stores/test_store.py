"""Addresses, passwords that stay out, and trying again."""

import json
import multiprocessing
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from stores import objects, open_store
from stores.errors import AddressError, StoreError
from stores.local import LocalStore
from stores.objects import ObjectStore
from stores.web import HttpStore
from tests.stores.servers import Web, s3, web
from train.mixture import parse_shards

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.tar").write_bytes(bytes(range(256)) * 100)
    with web(tmp_path) as facts:
        yield facts


# --- addresses ----------------------------------------------------------------------------------


def test_addresses_become_stores() -> None:
    assert open_store("data/shards/x") == LocalStore(Path("data/shards/x"))
    assert open_store("file:///data/x") == LocalStore(Path("/data/x"))
    assert open_store("s3://bucket/sets/x/") == ObjectStore("s3", "bucket/sets/x")
    assert open_store("gs://bucket") == ObjectStore("gs", "bucket")
    assert open_store("https://host:8080/x", allow_http=True) == HttpStore("https://host:8080/x")
    assert open_store("s3://bucket/sets/x").url("a.tar") == "s3://bucket/sets/x/a.tar"


@pytest.mark.parametrize("address", ["http://host/x", "https://host/x"])
def test_web_servers_must_be_allowed(address: str) -> None:
    with pytest.raises(AddressError, match="--allow-http"):
        parse_shards(address, Path("data"))


@pytest.mark.parametrize(
    "address",
    [
        "pipe:cat x",
        "ftp://host/x",
        "s3://bucket/../x",
        "s3://bucket/./x",
        "s3:///x",
        "s3://",
        "s3:/b/x",
        "gs://a b",
        "-x",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(AddressError, match="expected a folder, s3://bucket/set"):
        parse_shards(address, Path("data"))


@pytest.mark.parametrize(
    "address",
    [
        "https://me:sesame@host/set",
        "https://me:sesame@host/set@n=3",
        "s3://AKIA:sesame@bucket/set",
        "s3://AKIA:sesame/with/slash@bucket/set",
        "https://host/set?X-Amz-Signature=sesame",
        "https://host?token=sesame",
        "s3://bucket/set#sesame",
    ],
)
def test_secrets_in_addresses_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(AddressError, match="AWS_PROFILE") as caught:
        parse_shards(address, Path("data"), allow_http=True)
    assert "sesame" not in str(caught.value)


# --- reading ------------------------------------------------------------------------------------


def read(address: str, offset: int, count: int) -> bytes:
    file = open_store(address, allow_http=True).open("a.tar")
    buffer = bytearray(count)
    return bytes(buffer[: file.read_into(memoryview(buffer), offset)])


def test_ranges_of_a_web_server(served: Web) -> None:
    data = (served.folder / "set/a.tar").read_bytes()
    assert read(served.url + "/set", 1000, 5000) == data[1000:6000]
    assert read(served.url + "/set", len(data) - 3, 10) == data[-3:]
    assert read(served.url + "/set", len(data), 10) == b""
    assert [asked for _, asked in served.asked][1] == "bytes=1000-5999"


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(served: Web, status: int) -> None:
    served.statuses["a.tar"] = [status, status]
    data = (served.folder / "set/a.tar").read_bytes()
    assert read(served.url + "/set", 7, 20) == data[7:27]
    assert served.count("a.tar") == 4  # two refusals, the size, the range


def test_an_answer_that_breaks_off_is_asked_for_again(served: Web) -> None:
    served.truncated["a.tar"] = 2
    data = (served.folder / "set/a.tar").read_bytes()
    assert read(served.url + "/set", 0, 9000) == data[:9000]
    assert served.count("a.tar") == 4
    served.truncated["a.tar"] = 1
    assert open_store(served.url + "/set", allow_http=True).read("a.tar") == data


def test_a_lasting_failure_says_what_how_often_and_what_next(served: Web) -> None:
    served.statuses["a.tar"] = [503] * 100
    with pytest.raises(StoreError, match=r"a.tar could not be read, tried 8 times in .*status 503"):
        read(served.url + "/set", 0, 1)
    assert served.count("a.tar") == 8


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_tried_again(served: Web, status: int) -> None:
    served.statuses["a.tar"] = [status] * 100
    with pytest.raises(StoreError, match=rf"cannot be read: status {status}.*credentials"):
        read(served.url + "/set", 0, 1)
    assert served.count("a.tar") == 1


def test_a_missing_file_is_not_tried_again(served: Web) -> None:
    with pytest.raises(FileNotFoundError):
        open_store(served.url + "/set", allow_http=True).open("b.tar")
    assert served.count("b.tar") == 1


def test_a_server_without_ranges_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(1000))
    with (
        web(tmp_path, ranges=False) as facts,
        pytest.raises(AddressError, match=r"no parts of files .*--cache-gb"),
    ):
        read(facts.url, 0, 10)


def test_a_file_that_changes_under_way_is_noticed(served: Web) -> None:
    file = open_store(served.url + "/set", allow_http=True).open("a.tar")
    (served.folder / "set/a.tar").write_bytes(bytes(70_000))
    with pytest.raises(StoreError, match=r"asked for bytes 0-9/25600, got 206 bytes 0-9/70000"):
        file.read_into(memoryview(bytearray(10)), 0)


def test_nobody_there_is_a_sentence(tmp_path: Path) -> None:
    with web(tmp_path) as facts:
        url = facts.url
    with pytest.raises(StoreError, match="tried 8 times"):
        open_store(url, allow_http=True).read("x")


# --- s3 -----------------------------------------------------------------------------------------


def test_ranges_of_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 100
    (tmp_path / "shelf/sets/x").mkdir(parents=True)
    (tmp_path / "shelf/sets/x/a.tar").write_bytes(data)
    with s3(tmp_path, monkeypatch):
        url = "s3://shelf/sets/x"
        store = open_store(url)
        assert store.read("a.tar") == data
        assert read(url, 1000, 5000) == data[1000:6000]
        assert read(url, len(data) - 3, 10) == data[-3:]
        assert b"".join(store.open("a.tar").pieces()) == data
        with pytest.raises(FileNotFoundError):
            store.open("b.tar")


class Recorder(BaseHTTPRequestHandler):
    """Answers every request with the next status, and notes who asked."""

    seen: list[str]
    statuses: list[int]

    def do_HEAD(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        status = self.statuses.pop(0) if self.statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", "5")
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Recorder]]:
    """What pyarrow's client sends, signed with keys of a profile; two are in the files."""
    kind = type("Recorder", (Recorder,), {"seen": [], "statuses": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = "[{}]\naws_access_key_id = AKIA{}\naws_secret_access_key = very-secret-key\n"
    (tmp_path / "keys").write_text(keys.format("default", "DEFAULT") + keys.format("lab", "LAB"))
    (tmp_path / "config").write_text("[profile lab]\nregion = ap-south-1\n")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION",
                 "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3"):  # fmt: skip
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    objects.file_system.cache_clear()
    yield kind
    objects.file_system.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("variables", "signed"),
    [
        ({}, "AKIADEFAULT us-east-1 s3"),
        ({"AWS_PROFILE": "lab"}, "AKIALAB ap-south-1 s3"),
        ({"AWS_PROFILE": "lab", "AWS_REGION": "eu-west-3"}, "AKIALAB eu-west-3 s3"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "AKIADEFAULT eu-west-1 s3"),
        ({"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"},
         "AKIAENV us-east-1 s3"),
    ],
)  # fmt: skip
def test_keys_profile_region_and_endpoint_are_the_environments(
    recorder: type[Recorder],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    signed: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = "from stores import open_store; print(open_store('s3://shelf/x').open('a').size)"
    command = [sys.executable, "-c", code]  # a process of its own: the client keeps what it read
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "5\n"
    (header,) = recorder.seen
    key, _day, region, service = header.partition("Credential=")[2].split("/")[:4]
    assert f"{key} {region} {service}" == signed


def test_s3_failures_that_may_pass_are_tried_again(recorder: type[Recorder]) -> None:
    recorder.statuses[:] = [500, 503]
    assert open_store("s3://shelf/sets/x").open("a.tar").size == 5
    assert len(recorder.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_s3_refusal_is_a_sentence_at_once(recorder: type[Recorder], status: int) -> None:
    recorder.statuses[:] = [status] * 9
    with pytest.raises(StoreError, match=r"s3://shelf/sets/x/a.tar cannot be read") as caught:
        open_store("s3://shelf/sets/x").open("a.tar")
    assert len(recorder.seen) == 1
    assert "secret" not in str(caught.value)


# --- gs -----------------------------------------------------------------------------------------


class Drawer(BaseHTTPRequestHandler):
    """One object of Google Cloud Storage, as much of its API as a reader asks for."""

    protocol_version = "HTTP/1.1"
    data = bytes(range(256)) * 100

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if "media" in parse_qs(address.query).get("alt", []):
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if not match:
                return self.answer(200, self.data)
            first, last = int(match[1]), min(int(match[2] or 1 << 40), len(self.data) - 1)
            place = {"Content-Range": f"bytes {first}-{last}/{len(self.data)}"}
            return self.answer(206, self.data[first : last + 1], place)
        if unquote(address.path).endswith("/x/a.tar"):
            facts = {"kind": "storage#object", "bucket": "shelf", "name": "x/a.tar",
                     "size": str(len(self.data)), "generation": "1", "metageneration": "1",
                     "updated": "2026-11-21T00:00:00Z"}  # fmt: skip
            return self.answer(200, json.dumps(facts).encode())
        self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')

    def answer(self, status: int, data: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def test_ranges_of_google_cloud_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drawer)
    # A process, not a thread: pyarrow asks Google for sizes without letting other threads run.
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
    objects.file_system.cache_clear()
    try:
        assert read("gs://shelf/x", 1000, 5000) == Drawer.data[1000:6000]
        assert open_store("gs://shelf/x").open("a.tar").size == len(Drawer.data)
        with pytest.raises(FileNotFoundError):
            open_store("gs://shelf/x").open("b.tar")
    finally:
        objects.file_system.cache_clear()
        process.kill()
        process.join()
        server.server_close()
