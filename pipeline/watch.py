"""A running job for those who are not at its terminal.

    OUT/metrics.prom     Prometheus' text format, for a textfile collector; every ten seconds
    --metrics-port       the same over HTTP, on this machine alone unless --metrics-host says more
    OUT/report.html      a page of numbers, every minute; the full report takes its place in the end

All of them say what the job knows anyway; nothing is read for them, so that their cost does not
depend on the size of the set. A task of a job array speaks for its slice, into a file of its own.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from manifests.errors import UsageError
from pipeline.errors import Reason
from pipeline.mirror import address_of
from pipeline.pages import render
from pipeline.progress import Tally, note
from pipeline.shard import write_atomically
from pipeline.units import time_text

METRICS_NAME = "metrics.prom"
METRICS_SECONDS = 10.0
PAGE_SECONDS = 60.0
Samples = list[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class Moment:
    """How far a job is."""

    name: str
    """Of the set, `kinetics400-glcm`."""
    shards: int
    """Planned, of this job's slice."""
    kept: int
    """Committed before this job."""
    clips: int
    """That this job has to try."""
    task: str = ""
    """`I/N` of a job array."""
    started_unix: float = 0.0
    now_unix: float = 0.0
    running: int = 0
    """Shards that are being made or wait for a worker."""
    clips_done: int = 0
    """Tried by this job, those of unfinished shards too."""
    committed: Tally = field(default_factory=Tally)
    """What this job has committed."""
    clips_per_second: float = 0.0
    eta_seconds: float | None = None
    ended: str = ""
    """How the job ended; nothing while it runs."""

    @property
    def clips_to_do(self) -> int:
        """Clips of this job that have not been tried."""
        return max(0, self.clips - self.clips_done)


@dataclass(frozen=True)
class WatchOptions:
    """Where the metrics of a job are served."""

    port: int | None = None
    """Of the HTTP endpoint; None for none, 0 for any that is free."""
    host: str = "127.0.0.1"
    """Address that the endpoint listens on."""


class Watch:
    """Writes the files and serves the metrics, as `tell` hears of it, until `close`."""

    def __init__(self, out: Path, moment: Moment, options: WatchOptions) -> None:
        """Begin to tell.

        Raises:
            UsageError: the port cannot be had.
        """
        self._moment = replace(moment, started_unix=time.time(), now_unix=time.time())
        self._page = None if moment.task else out / "report.html"
        self._metrics = out / metrics_name(moment.task)
        self._place = address_of(out) or str(out.resolve())
        self._due = {"metrics": 0.0, "page": 0.0}
        self._registry = CollectorRegistry()
        self._registry.register(_JobCollector(self))
        self._server: Any = None
        if options.port is not None:
            self._serve(options.host, options.port)

    @property
    def place(self) -> str:
        """Where the set lies; sets of one data set and profile have the same name."""
        return self._place

    @property
    def moment(self) -> Moment:
        """How far the job is."""
        return self._moment

    def _serve(self, host: str, port: int) -> None:
        try:
            self._server, _ = start_http_server(port, host, self._registry)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--metrics-port {port}: cannot listen on {host} ({error}); name a free port"
            ) from error
        note(f"metrics at http://{host}:{self._server.server_port}/metrics")

    def tell(self, **facts: Any) -> None:
        """Take in how far the job is; write what is due."""
        self._moment = replace(self._moment, now_unix=time.time(), **facts)
        now = time.monotonic()
        if now >= self._due["metrics"]:
            self._due["metrics"] = now + METRICS_SECONDS
            self._write_metrics()
        if now >= self._due["page"]:
            self._due["page"] = now + PAGE_SECONDS
            self._write_page()

    def close(self, ended: str) -> None:
        """The last word."""
        self._due = dict.fromkeys(self._due, 0.0)
        self.tell(running=0, eta_seconds=None, ended=ended)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _write_metrics(self) -> None:
        with contextlib.suppress(OSError):  # a full disk is told where shards are written
            write_atomically(self._metrics, generate_latest(self._registry))

    def _write_page(self) -> None:
        if self._page is not None:
            with contextlib.suppress(OSError):
                write_atomically(self._page, page_of(self._moment).encode())


def metrics_name(task: str) -> str:
    """`metrics.prom`, or a task's own: `metrics-3-of-16.prom`."""
    return f"metrics-{task.replace('/', '-of-')}.prom" if task else METRICS_NAME


def remove_task_metrics(out: Path) -> None:
    """After a job array: its tasks are history."""
    for path in out.glob("metrics-*-of-*.prom"):
        path.unlink(missing_ok=True)


# --- Prometheus --------------------------------------------------------------------------------


class _JobCollector(Collector):
    """The metrics of the moment in which they are asked for."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known when values are."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics; counters count what this job has committed, and never go back."""
        moment, labels = self._watch.moment, ["set", "out"]
        values = [moment.name, self._watch.place]
        if moment.task:
            labels, values = [*labels, "task"], [*values, moment.task]
        for kind, name, said, more, samples in _metrics(moment):
            family = kind(f"glav_{name}", said, labels=[*labels, *more])
            for extra, value in samples:
                family.add_metric([*values, *extra], value)
            yield family


def _metrics(moment: Moment) -> Iterator[tuple[type[Any], str, str, tuple[str, ...], Samples]]:
    """Kind, name, help, further labels and values."""
    gauge, counter, done = GaugeMetricFamily, CounterMetricFamily, moment.committed

    def one(value: float) -> Samples:
        return [((), value)]

    yield gauge, "job_running", "1 while the job works.", (), one(float(not moment.ended))
    yield gauge, "job_start_time_seconds", "Unix time of its start.", (), one(moment.started_unix)
    yield gauge, "job_updated_time_seconds", "Unix time of this.", (), one(moment.now_unix)
    yield gauge, "shards_planned", "Shards of the set or slice.", (), one(moment.shards)
    yield gauge, "shards_committed", "Shards there.", (), one(moment.kept + done.shards)
    yield gauge, "shards_running", "Shards being made or waiting.", (), one(moment.running)
    yield gauge, "clips_to_do", "Clips this job has not tried.", (), one(moment.clips_to_do)
    yield gauge, "clips_per_second", "Pace of late.", (), one(moment.clips_per_second)
    if moment.eta_seconds is not None:
        yield gauge, "eta_seconds", "Until the last clip.", (), one(moment.eta_seconds)
    yield counter, "media_seconds", "Media committed.", (), one(done.seconds)
    outcomes = {"sample": done.samples}
    outcomes |= {str(reason): done.reasons[reason] for reason in Reason if reason != "not_run"}
    by_outcome: Samples = [((outcome,), count) for outcome, count in outcomes.items()]
    yield counter, "clips", "Clips tried, by what became of them.", ("outcome",), by_outcome
    by_host: Samples = [((host,), count) for host, count in sorted(done.hosts.items())]
    yield counter, "host_shards", "Shards by machine.", ("host",), by_host
    failed: Samples = [(where, count) for where, count in sorted(done.failures.items())]
    yield counter, "failures", "Clips that failed.", ("reason", "host"), failed


# --- page --------------------------------------------------------------------------------------


def page_of(moment: Moment) -> str:
    """The page of a job that is not through."""
    done = moment.committed
    eta = "unknown" if moment.eta_seconds is None else time_text(moment.eta_seconds)
    tiles = [
        (f"{moment.kept + done.shards:,} of {moment.shards:,}", "shards"),
        (f"{moment.clips_done:,} of {moment.clips:,}", "clips tried by this job"),
        (f"{done.samples:,}", "samples committed by it"),
        (time_text(done.seconds), "of media"),
        (f"{moment.clips_per_second:.2f}", "clips a second"),
        (eta, "to go"),
    ]
    failed: dict[str, dict[str, int]] = {}
    for (reason, host), count in sorted(done.failures.items()):
        failed.setdefault(reason, {})[host] = count
    return render(
        "running.html",
        title=moment.name,
        ended=moment.ended,
        started=_clock(moment.started_unix),
        now=_clock(moment.now_unix),
        refresh_seconds=int(PAGE_SECONDS),
        tiles=tiles,
        percent=100 * moment.clips_done / max(1, moment.clips),
        failed=failed,
        hosts=sorted(done.hosts.items()),
    )


def _clock(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix))
