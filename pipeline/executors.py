"""Where shards are made: on Ray, embedded or a cluster, or in threads of this process.

Both run the same function on the same tasks, and both decode in child processes, so the bytes are
the same. Ray is imported here and nowhere else.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from manifests.errors import UsageError
from pipeline.errors import ShardError
from pipeline.progress import ProgressFile
from pipeline.sandbox import Sandbox, Stopped
from pipeline.shard import ShardTask, write_shard

RAY_MAX_RETRIES = 3
RAY_MAX_CALLS = 100
"""Shards after which Ray replaces a worker, which bounds leaks."""
POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0
RAY_FOLDER = "glav-ray-"
OBJECT_STORE_BYTES = 100 << 20
"""Samples never pass through Ray's object store; this is its least comfortable size."""


@dataclass(frozen=True)
class Finished:
    """A shard a worker is through with."""

    name: str
    error: ShardError | None = None


class Executor(Protocol):
    """Runs shard tasks, a bounded number at a time."""

    capacity: int
    """Tasks worth having submitted."""

    def submit(self, task: ShardTask) -> None:
        """Start a task."""

    def poll(self) -> list[Finished]:
        """Tasks finished since the last call; waits half a second for one."""

    def stop(self) -> None:
        """Kill what is running."""


def make(task: ShardTask, sandbox: Sandbox) -> str:
    """Make one shard, leaving a progress file while at it."""
    with ProgressFile(task.folder, task.name) as progress:
        write_shard(task, sandbox, progress.update)
    return task.name


# --- in this process ---------------------------------------------------------------------------


class LocalExecutor:
    """Threads that wait for their child processes, which do the work."""

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="shard")
        self._threads = threading.local()
        self._sandboxes: list[Sandbox] = []
        self._running: dict[Future[str], str] = {}

    def submit(self, task: ShardTask) -> None:
        """Start a task."""
        self._running[self._pool.submit(self._make, task)] = task.name

    def _make(self, task: ShardTask) -> str:
        sandbox = getattr(self._threads, "sandbox", None)
        if sandbox is None:
            sandbox = self._threads.sandbox = Sandbox(task.config, task.limits)
            self._sandboxes.append(sandbox)
        return make(task, sandbox)

    def poll(self) -> list[Finished]:
        """Tasks finished since the last call."""
        done, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        return [self._finish(future) for future in done]

    def _finish(self, future: "Future[str]") -> Finished:
        name = self._running.pop(future)
        try:
            future.result()
        except ShardError as error:
            return Finished(name, error)
        except Stopped:
            return Finished(name, ShardError(f"shard {name} was stopped"))
        return Finished(name)

    def stop(self) -> None:
        """Kill the children; the threads end because their children are gone."""
        for sandbox in self._sandboxes:
            sandbox.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for sandbox in self._sandboxes:
            sandbox.close()


# --- on Ray ------------------------------------------------------------------------------------

_sandbox: Sandbox | None = None
_sandbox_of: tuple[str, object] | None = None


def _make_in_ray_worker(task: ShardTask) -> str:
    """The body of the Ray task; the child stays warm between the tasks of one worker process."""
    global _sandbox, _sandbox_of
    wanted = (task.config_hash, task.limits)
    if _sandbox is None or _sandbox_of != wanted:
        if _sandbox is not None:
            _sandbox.close()
        _sandbox, _sandbox_of = Sandbox(task.config, task.limits), wanted
    return make(task, _sandbox)


class RayExecutor:
    """Ray tasks on an embedded Ray of this host, or on a named cluster."""

    def __init__(self, workers: int, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_task_oom_retries", "2")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        self._folder: str | None = None
        if address:
            _check_reachable(address)
            ray.init(
                address=address, runtime_env={"py_modules": _own_packages()}, log_to_driver=True
            )
        else:
            self._start_embedded(workers)
        cpus = int(ray.cluster_resources().get("CPU", workers))  # type: ignore[no-untyped-call]
        self.capacity = 2 * max(1, cpus)
        remote = ray.remote(num_cpus=1, max_retries=RAY_MAX_RETRIES, max_calls=RAY_MAX_CALLS)
        self._task = remote(_make_in_ray_worker)
        self._running: dict[Any, str] = {}

    def _start_embedded(self, workers: int) -> None:
        """A private Ray in a folder of its own: no other job's cluster is joined."""
        _remove_abandoned()
        self._folder = tempfile.mkdtemp(prefix=f"{RAY_FOLDER}{os.getpid()}-")
        self._ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=self._folder,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def submit(self, task: ShardTask) -> None:
        """Start a task."""
        self._running[self._task.remote(task)] = task.name

    def poll(self) -> list[Finished]:
        """Tasks finished since the last call."""
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        return [self._finish(reference) for reference in done]

    def _finish(self, reference: Any) -> Finished:
        name = self._running.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ShardError):
                return Finished(name, cause)
            raise
        except self._ray.exceptions.RayError as error:
            return Finished(name, ShardError(f"shard {name}: {type(error).__name__}: {error}"))
        return Finished(name)

    def stop(self) -> None:
        """End the tasks, and the embedded Ray with them."""
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove the folders of jobs that were killed: nobody else does, and they take inodes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{RAY_FOLDER}*-*"):
        pid = folder.name.removeprefix(RAY_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _check_reachable(address: str) -> None:
    """Ray tries an address for minutes; somebody who mistyped it wants to know at once.

    Raises:
        UsageError: nobody listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # `auto` and the like are Ray's to find
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); start it, correct RAY_ADDRESS, or "
            "leave it out for a Ray of this machine's own"
        ) from error


def _own_packages() -> list[str]:
    """The code that a cluster's workers need."""
    here = Path(__file__).resolve().parent
    return [str(here), str(here.parent / "manifests"), str(here.parent / "stores")]


@contextlib.contextmanager
def executor(kind: str, workers: int, address: str | None) -> Iterator[Executor]:
    """The executor a job asked for, stopped at the end whatever happens."""
    chosen: Executor = LocalExecutor(workers) if kind == "local" else RayExecutor(workers, address)
    try:
        yield chosen
    finally:
        chosen.stop()
