"""Shards on a store: the loader with --cache-gb against a folder, and uploads beside decoding.

The store is the S3 server of the tests (moto), a process on this machine behind their proxy, which
takes `UPLOAD_SECONDS` more for each tar where it is told to. What is looked for is waiting, and the
clock sees whatever else the machine does, so seconds by the clock are among the facts, and the rows
are what a busy machine can tell: of the loader CPU seconds, where no tar was asked for again; of an
upload what a worker's shards say of its waits.
"""

import importlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import loading
from bench.goals import Measured
from bench.media import Media
from bench.stopwatch import Way, interleaved, ratio
from train.cache import Cache
from train.loader import ClipLoader

if TYPE_CHECKING:
    from tests.stores.bucket import Bucket

log = logging.getLogger(__name__)

SHARD_SECONDS = 60
"""Planned, of a few clips: more than a second of work, so that an upload has room beside it."""
UPLOAD_SECONDS = 1.0
TARS = r"/shards/.*\.tar"
CACHE_BYTES = 10**9
EPOCHS_A_ROUND = 3
"""They take a second or two, and the clock sees whatever else the machine does."""


def measure(media: Media, folder: Path, repeats: int) -> Iterator[Measured]:
    """The rows; none, and a line that says so, where the tests' server cannot be had."""
    clips = loading.copies(media, folder / media.path.stem)[0].parent
    try:
        importlib.import_module("moto")  # a process of its own would only say that it ended
        import pytest

        from tests.stores.bucket import bucket_of, s3_server
    except ImportError as error:
        log.warning("the rows of stores are left out: %s. `make setup` installs moto and pytest, "
                    "and tests/ of a checkout has the server", error)  # fmt: skip
        return
    with (
        tempfile.TemporaryDirectory(prefix="glav-bench-") as here,
        pytest.MonkeyPatch.context() as patch,
        s3_server() as server,
    ):
        patch.setenv("GLAV_SCRATCH", f"{here}/scratch")
        with bucket_of(server, patch) as bucket:
            yield uploads(media, clips, bucket, Path(here), repeats)
            yield cached(media, bucket, Path(here), repeats)


# --- uploads ------------------------------------------------------------------------------------


def uploads(media: Media, clips: Path, bucket: "Bucket", folder: Path, repeats: int) -> Measured:
    """Seconds that a worker waits for an upload of one; `set-0` stays in folder and bucket."""
    from tests.stores.bucket import Fault

    jobs = Jobs(clips, bucket.url("set"))
    waited: list[list[float]] = []

    def slowly() -> None:
        bucket.proxy.faults.append(Fault("PUT", TARS, 200, delay_seconds=UPLOAD_SECONDS))
        waited.append(waits(sidecars(bucket, jobs())))
        bucket.proxy.heal()

    spent = interleaved(
        {
            "folder": Jobs(clips, f"{folder}/set"),
            "store": jobs,
            "slow store": slowly,
        },
        repeats,
        timer=clock_seconds,
    )
    shards = len(bucket.tars("set-0"))
    facts = {
        "upload_seconds": UPLOAD_SECONDS,
        "waits": waited,
        "job_seconds": {way: min(seconds) for way, seconds in spent.items()},
        "rounds": spent,
    }
    waiting = statistics.median(wait for waits_of_job in waited for wait in waits_of_job)
    return Measured("upload", f"{shards} shards, 16 x {media.name}", waiting, None, facts)


def waits(shards: list[dict[str, Any]]) -> list[float]:
    """Seconds between the work on a shard and that on the next one, of one worker; 0: none.

    Args:
        shards: sidecars, which say when the work began and how long it took without the upload.
    """
    runs = sorted((car["run"]["started_unix"], car["run"]["work_seconds"]) for car in shards)
    ends = [start + work for start, work in runs]
    return [max(0.0, later - end) for end, (later, _) in zip(ends, runs[1:], strict=False)]


def sidecars(bucket: "Bucket", name: str) -> list[dict[str, Any]]:
    """Of the shards of a set."""
    found = bucket.objects(f"{name}/shards/").items()
    return [json.loads(data) for name, data in found if name.endswith(".json")]


@dataclass
class Jobs:
    """A way that makes the shards of some clips with one worker, in another place each time."""

    clips: Path
    place: str
    numbers: Iterator[int] = field(default_factory=count)

    def __call__(self) -> str:
        """One job; the last part of its place."""
        out = f"{self.place}-{next(self.numbers)}"
        command = ["-m", "pipeline", "shards", "--dataset", "folder", "--root", str(self.clips)]
        command += ["--out", out, "--profile", "glcm", "--faces", "off"]
        command += ["--executor", "local", "--workers", "1"]
        command += ["--seconds-per-shard", str(SHARD_SECONDS)]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return out.rpartition("/")[2]


# --- the cache ----------------------------------------------------------------------------------


def cached(media: Media, bucket: "Bucket", folder: Path, repeats: int) -> Measured:
    """Clips a CPU second with the cache, from the second epoch on, over those of a folder.

    Raises:
        RuntimeError: tars were asked for again, so that this is not what was measured.
    """
    batches, there = loading.BATCHES["ours"], bucket.url("set-0")
    keeping = loading.ours(there, batches, cache=Cache(folder / "cache", CACHE_BYTES))
    first = clock_seconds(partial(loading.use, keeping))
    bucket.proxy.asked.clear()
    ways: dict[str, Way] = {
        "folder": Epochs(loading.ours(f"{folder}/set-0", batches)),
        "cache": Epochs(keeping),
    }
    spent = interleaved(ways, repeats)
    clock = interleaved(ways, EPOCHS_A_ROUND * repeats, timer=clock_seconds)
    if asked := bucket.proxy.count(rf"GET .*{TARS}"):
        raise RuntimeError(f"{asked} requests for tars after the first epoch; expected none")
    without = clock_seconds(Epochs(loading.ours(there, 1)))
    clips = loading.CLIPS * batches
    rates = {way: clips / min(seconds) for way, seconds in clock.items()}
    rates |= {"first epoch": clips / first, "store without cache": loading.CLIPS / without}
    facts = {
        "clips_a_second": rates,
        "rounds": spent,
        "clock_rounds": clock,
        "by_clock": ratio(clock, "folder", "cache"),
    }
    shards = len(bucket.tars("set-0"))
    return Measured(
        "cache", f"{shards} shards, 16 x {media.name}", ratio(spent, "folder", "cache"),
        rates["store without cache"] / rates["folder"], facts,
    )  # fmt: skip


@dataclass
class Epochs:
    """A way that goes through the next epoch of a loader each time, its second one first."""

    loader: ClipLoader
    numbers: Iterator[int] = field(default_factory=partial(count, 1))

    def __call__(self) -> None:
        """Every batch looked at."""
        loading.use(self.loader, next(self.numbers))


def clock_seconds(way: Way) -> float:
    """Of one run."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began
