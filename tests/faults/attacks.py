"""Hostile media and hostile shards, each built to reach for something that is not its own.

They reach for a listening server at `url` and for canary files; `Listener` counts who comes.
"""

import hashlib
import io
import json
import pickle
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import ShardConfig
from tests.pipeline.fabricate import Members, make_members, write_index, write_set


@dataclass
class Listener:
    """A port of this machine, and how many have knocked."""

    url: str = ""
    knocks: list[bytes] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    """Accept every connection, note it, answer nothing."""
    found = Listener()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        found.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    found.knocks.append(connection.recv(200))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join()


# --- media --------------------------------------------------------------------------------------


def texts(url: str, canary: Path) -> dict[str, bytes]:
    """Texts that libav may take for videos, by name; all of them lead elsewhere."""
    address = url.removeprefix("http://")
    host, port = address.split(":")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT3S"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="9"><BaseURL>{0}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    sdp = (
        f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    )
    made = {
        "sdp.mp4": sdp,
        "sdp.sdp": sdp,
        "smil.mp4": f'<smil><body><video src="{url}/x.mp4"/></body></smil>',
    }
    for name, target in (("net", f"{url}/x.mp4"), ("file", str(canary)), ("near", canary.name)):
        made |= {
            f"concat_{name}.mp4": f"ffconcat version 1.0\nfile '{target}'\nduration 2\n",
            f"concat_{name}.ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
            f"hls_{name}.mp4": hls.format(target),
            f"hls_{name}.m3u8": hls.format(target),
            f"dash_{name}.mp4": mpd.format(target),
            f"dash_{name}.mpd": mpd.format(target),
        }
    return {name: text.encode() for name, text in made.items()}


def addresses(url: str, canary: Path) -> list[str]:
    """What a manifest may name instead of a file."""
    address = url.removeprefix("http://")
    schemes = ("http", "https", "ftp", "rtmp", "rtsp", "tcp", "udp", "tls", "srt", "gopher")
    plain = [f"{scheme}://{address}/x.mp4" for scheme in schemes]
    odd = [
        f"concat:{canary}|{canary}", f"subfile,,start,0,end,0,,:{canary}", f"file:{canary}",
        f"async:{url}/x.mp4", f"cache:{url}/x.mp4", f"crypto:{canary}", f"pipe:{canary}",
        f"hls+{url}/x.m3u8", "data:video/mp4;base64,AAAA", "pipe:0", "-i", str(canary),
        f"../{canary.parent.name}/{canary.name}", f"ffmeta/../../{canary.name}",
    ]  # fmt: skip
    return plain + odd


CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"dinf"}


def with_external_data(movie: bytes, path: str) -> bytes:
    """A QuickTime file whose tracks say that their data lie in another file (`dref`, `alis`)."""
    out = b""
    while movie:
        size, kind = struct.unpack(">I4s", movie[:8])
        body, movie = movie[8:size], movie[size:]
        if kind in CONTAINERS:
            body = with_external_data(body, path)
        elif kind == b"dref":
            entry = _alias(path)
            body = bytes(4) + struct.pack(">II4s", 1, len(entry) + 8, b"alis") + entry
        out += struct.pack(">I4s", len(body) + 8, kind) + body
    return out


def _alias(path: str) -> bytes:
    """A Macintosh alias record with an absolute path, and one level up and down."""
    name = path.rpartition("/")[2].encode()
    whole = ("Vol" + path.replace("/", ":")).encode()
    whole += b"\0" * (len(whole) % 2)
    head = bytes(4 + 10) + b"\x03Vol".ljust(28, b"\0") + bytes(12)
    head += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    levels = struct.pack(">hh", 1, 1) + bytes(16)
    return head + levels + struct.pack(">hh", 2, len(whole)) + whole + struct.pack(">hh", -1, 0)


# --- shards -------------------------------------------------------------------------------------

SIDE = 32
PLAIN = ShardConfig("glcm", Fraction(10), SIDE, 22050)
SOUNDING = ShardConfig("avid", Fraction(10), SIDE, 22050, 24000, 1)
Entry = tuple[tarfile.TarInfo | str, bytes]
Attack = Callable[[Members, Path], list[Entry]]
"""(a good sample's members, a canary) -> the tar's entries; by name only where nothing is odd."""


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


def _entries(members: Members, base: str = "demo--clip000") -> list[Entry]:
    return [(f"{base}.{extension}", data) for extension, data in members.items()]


def _with(members: Members, name: str, data: bytes) -> list[Entry]:
    """With one more member behind the JSON."""
    first, *rest = _entries(members)
    return [first, (name, data), *rest]


def _replaced(members: Members, **changed: bytes) -> list[Entry]:
    return _entries({**members, **{k.replace("_", "."): v for k, v in changed.items()}})


def _facts(members: Members, **changed: Any) -> list[Entry]:
    meta = json.loads(members["json"])
    for name, value in changed.items():
        meta[name] = {**meta[name], **value} if isinstance(value, dict) else value
    return _replaced(members, json=json.dumps(meta).encode())


def _giant(kind: bytes) -> Callable[[Members, Path], list[Entry]]:
    """A header of some type that announces a terabyte, before the members."""

    def attack(members: Members, canary: Path) -> list[Entry]:
        entry = tarfile.TarInfo("demo--clip000.frames.mjpeg" if kind == b"0" else "././@LongLink")
        entry.type, entry.size = kind, 1 << 40
        first, *rest = _entries(members)
        return [first, (entry, b""), *rest]

    return attack


def _linked(kind: bytes) -> Callable[[Members, Path], list[Entry]]:
    def attack(members: Members, canary: Path) -> list[Entry]:
        entry = tarfile.TarInfo("demo--clip000.mel.npy")
        entry.type, entry.linkname = kind, str(canary)
        return [(entry, b""), *(e for e in _entries(members) if e[0] != entry.name)]

    return attack


def _wide_jpeg(members: Members, canary: Path) -> list[Entry]:
    """Every picture's header says 60,000 x 60,000."""
    sizes = json.loads(members["json"])["jpeg_sizes"]["frames"]
    pictures = bytearray(members["frames.mjpeg"])
    for end in accumulate(sizes, initial=0):
        if end < len(pictures):
            place = pictures.index(b"\xff\xc0", end) + 5
            pictures[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    return _replaced(members, frames_mjpeg=bytes(pictures))


def _npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _giant_npy(members: Members, canary: Path) -> list[Entry]:
    data = members["mel.npy"]
    shape = b"'shape': (80, "
    at = data.index(shape) + len(shape)
    end = data.index(b")", at)
    wide = data[:at] + b"9" * (end - at) + data[end:]
    return _replaced(members, mel_npy=wide)


def _long_flac(members: Members, canary: Path) -> list[Entry]:
    """A minute at 384 kHz in eight channels of silence: 200 kB that are 700 MiB as float32."""
    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 384_000, 8, "PCM_16", format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros((384_000, 8), np.int16))
    return _replaced(members, audio_flac=buffer.getvalue())


SHARDS: dict[str, tuple[ShardConfig, Attack, str]] = {
    "pickle": (PLAIN, lambda m, c: _with(m, "demo--clip000.evil.pkl", pickle.dumps(_Touch(c))),
               "'demo--clip000.evil.pkl' is not part"),
    "pyd": (PLAIN, lambda m, c: _with(m, "demo--clip000.pyd", pickle.dumps(_Touch(c))),
            "'demo--clip000.pyd' is not part"),
    "pth": (PLAIN, lambda m, c: _with(m, "demo--clip000.pth", pickle.dumps(_Touch(c))),
            "'demo--clip000.pth' is not part"),
    "absolute name": (PLAIN, lambda m, c: _with(m, str(c), b"x"), "is not part"),
    "name that climbs": (PLAIN, lambda m, c: _with(m, f"../../../../..{c}", b"x"), "is not part"),
    "symlink": (PLAIN, _linked(tarfile.SYMTYPE), "mel.npy"),
    "hard link": (PLAIN, _linked(tarfile.LNKTYPE), "mel.npy"),
    "device": (PLAIN, _linked(tarfile.CHRTYPE), "mel.npy"),
    "member of a terabyte": (PLAIN, _giant(b"0"), "clip000"),
    "long name of a terabyte": (PLAIN, _giant(b"L"), "clip000"),
    "pax header of a terabyte": (PLAIN, _giant(b"x"), "clip000"),
    "objects in npy": (PLAIN, lambda m, c: _replaced(
        m, mel_npy=_npy(np.array([_Touch(c)], object), allow_pickle=True)), "object"),
    "npy that claims more": (PLAIN, _giant_npy, "bytes, not"),
    "jpeg of 60000 x 60000": (PLAIN, _wide_jpeg, "60000x60000"),
    "flac bomb": (SOUNDING, _long_flac, "audio.flac"),
    "nested JSON": (PLAIN, lambda m, c: _replaced(m, json=b"[" * 100_000), "recursion"),
    "number of 10000 digits": (
        PLAIN, lambda m, c: _replaced(m, json=b'{"schema":' + b"9" * 10_000 + b"}"), "digits"),
    "sizes that are words": (
        PLAIN, lambda m, c: _facts(m, jpeg_sizes={"frames": ["a"] * 20}), "clip000"),
    "negative sizes": (PLAIN, lambda m, c: _facts(m, jpeg_sizes={"frames": [
        -5, *([0] * 18), len(m["frames.mjpeg"]) + 5]}), "clip000"),
    "a rate of 0": (SOUNDING, lambda m, c: _facts(m, fps="0/1"), "clip000"),
    "a million frames": (PLAIN, lambda m, c: _facts(m, frames=10**6), "1000000"),
}  # fmt: skip
"""By name: the profile, the attack, words that the refusal must have."""


def hostile_set(out: Path, name: str, canary: Path) -> Path:
    """A set of one shard with one hostile sample; index, sidecar and tables agree with the tar."""
    config, attack, _ = SHARDS[name]
    members = make_members(config, "demo/clip000", seconds=2, face=False)
    write_set(out, config, [[members]])
    tar = b""
    for entry, data in attack(members, canary):
        info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
        if not isinstance(entry, tarfile.TarInfo):
            info.size = len(data)
        tar += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
    (out / "shards/train-000000.tar").write_bytes(tar + bytes(2 * tarfile.BLOCKSIZE))
    _agree(out, tar + bytes(2 * tarfile.BLOCKSIZE), len(tar))
    return out


def _agree(out: Path, tar: bytes, sample_bytes: int) -> None:
    """Make sidecar and index say that the tar is what it should be."""
    path = out / "shards/train-000000.json"
    sidecar = json.loads(path.read_bytes())
    sidecar["filesize"] = len(tar)
    sidecar["sha256"] = hashlib.sha256(tar).hexdigest()
    sidecar["md5"] = hashlib.md5(tar).hexdigest()
    sidecar["samples"][0]["size"] = sample_bytes
    path.write_text(json.dumps(sidecar))
    write_index(out)
