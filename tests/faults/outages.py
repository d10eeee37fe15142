"""An object store that is away for a while, refuses everything, or does not answer: for soaks.

    python -m tests.faults.outages TARGET PORT STATUS    the front, 0 for a healthy one

moto keeps its objects in memory: a killed one has lost them. So what is killed and started again is
a process before it, which passes requests on; moto is only held still. A front says on its standard
output that it is loaded, listens when it is told a line, and ends with its standard input: so an
outage lasts as long as it should, however busy the machine is.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from pipeline.remote import home_of
from stores.scratch import scratch_folder
from tests.faults.sets import SetFacts, read_set
from tests.stores.bucket import (
    KEY,
    SECRET,
    Bucket,
    Fault,
    Handler,
    Proxy,
    free_port,
    s3_server,
)
from tests.stores.servers import named_in_environment, serving

REPOSITORY = Path(__file__).parents[2]
BUCKET = "soak"
KINDS = ("store killed", "store answers 503", "store held")
SHORT_SECONDS, LONG_SECONDS = (1.0, 12.0), (75.0, 100.0)
"""Least and most of an outage. The pipeline tries for half a minute at least, so it must not notice
short ones; it gives up after a minute or so of trouble."""
LONG = "long outage"
LONG_EVERY = 12
"""One outage in so many is longer than the pipeline's patience."""


class Shelf:
    """A bucket behind a front, and the troubles of both."""

    def __init__(self, target: str, port: int, folder: Path) -> None:
        """Make the bucket and start the front.

        Args:
            target: address of the S3 server.
            port: for the front.
            folder: for copies of what is read.
        """
        self._target, self._port = target, port
        self._server = _listener(urlsplit(target).port)
        self._bucket = Bucket(BUCKET, Proxy(target))
        self._bucket.client.create_bucket(Bucket=BUCKET)
        self._folder = folder
        self._front = self._loaded(0)
        self._front.begin()
        self._trouble: threading.Thread | None = None
        self._names: list[str] = []

    def url(self, name: str) -> str:
        """Where a set lies."""
        return self._bucket.url(name)

    def home(self, name: str) -> Path:
        """The mirror that the pipeline keeps of a set."""
        return home_of(self.url(name))

    def remove(self, name: str) -> None:
        """Delete a set and its mirror."""
        for key in self._bucket.objects(f"{name}/"):
            self._bucket.remove(key)
        shutil.rmtree(self.home(name))

    def litter(self) -> list[Path]:
        """What processes fetched for the moment and should have removed."""
        return list((scratch_folder() / "live").glob("*"))

    def read(self, name: str) -> SetFacts:
        """What a finished set says, by another client than the pipeline's."""
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        for key, data in self._bucket.objects(f"{name}/").items():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return read_set(folder)

    # --- trouble ---

    def strike(self, kind: str, place: float, *, is_long: bool) -> list[str]:
        """Begin an outage, which ends by itself; what it is, nothing while another one lasts.

        Args:
            kind: one of `KINDS`.
            place: how long, from 0 to 1.
            is_long: so long that jobs may give up.
        """
        if self.troubles_now():
            return []
        least, most = LONG_SECONDS if is_long else SHORT_SECONDS
        self._names = [kind, LONG] if is_long else [kind]
        seconds = least + place * (most - least)
        begun = threading.Event()
        self._trouble = threading.Thread(target=self._outage, args=(kind, seconds, begun))
        self._trouble.start()
        begun.wait()  # to start the front that comes after it takes a while on a busy machine
        return self._names

    def troubles_now(self) -> list[str]:
        """The names of the outage that is under way."""
        is_on = self._trouble is not None and self._trouble.is_alive()
        return [*self._names] if is_on else []

    def calm(self) -> None:
        """Wait until an outage is over."""
        if self._trouble is not None:
            self._trouble.join()

    def close(self) -> None:
        """End the front; moto is ended by who started it."""
        self.calm()
        self._front.kill()

    def _outage(self, kind: str, seconds: float, begun: threading.Event) -> None:
        if kind == "store held":
            self._server.suspend()
            begun.set()
            time.sleep(seconds)
            self._server.resume()
            return
        healthy = self._loaded(0)
        refusing = self._loaded(503) if kind == "store answers 503" else None
        self._front.kill()
        if refusing is not None:
            refusing.begin()
        begun.set()
        time.sleep(seconds)
        if refusing is not None:
            refusing.kill()
        self._front = healthy
        self._front.begin()

    def _loaded(self, status: int) -> "_Front":
        return _Front(self._target, self._port, status)


class _Front:
    """A process before the server, which does not listen yet."""

    def __init__(self, target: str, port: int, status: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.outages", target, str(port), str(status)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._wait()

    def begin(self) -> None:
        """Listen."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._wait()

    def kill(self) -> None:
        """Without a chance to finish what is under way."""
        self._process.kill()
        self._process.communicate()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise AssertionError(f"the front ended with {self._process.wait()}")


@contextlib.contextmanager
def shelf(folder: Path) -> Iterator[Shelf]:
    """A store that nobody else uses, named in this process's environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as target:
        port = free_port()  # the server has its own by now, which might have been the same
        url = f"http://127.0.0.1:{port}"
        patch.setenv("GLAV_SCRATCH", str(folder / "scratch"))
        with named_in_environment(url, KEY, SECRET, patch):
            (folder / "fetched").mkdir(exist_ok=True)
            found = Shelf(target, port, folder / "fetched")
            try:
                yield found
            finally:
                found.close()


def _listener(port: int | None) -> psutil.Process:
    """Our child that listens on a port."""
    for process in psutil.Process().children():
        if any(place.laddr.port == port for place in process.net_connections("tcp")):
            return process
    raise AssertionError(f"nobody listens on {port}")


def front(target: str, port: int, status: int) -> None:
    """Pass requests on, or answer all with a status, as long as the soak lives."""
    proxy = Proxy(target)
    if status:
        proxy.faults.append(Fault(".*", ".", status))
    print("loaded", flush=True)
    sys.stdin.readline()
    with serving(Handler, proxy, port):
        print("listening", flush=True)
        sys.stdin.readline()  # until the soak is gone


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the soak's
    front(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
