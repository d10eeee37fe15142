"""Where shards are made: on Ray, embedded or a cluster, or in threads of this process.

Both run the same function on the same tasks, and both decode in child processes, so the bytes are
the same. Ray is imported here and nowhere else.
"""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import LifoQueue
from typing import Any, Protocol

from manifests.errors import UsageError
from pipeline.cluster import Nodes, check_worker, checked_address, runtime_env
from pipeline.errors import LostError, ShardError, plain_text
from pipeline.progress import ProgressFile, note
from pipeline.sandbox import Sandbox, Stopped
from pipeline.shard import ShardTask, write_shard

RAY_MAX_RETRIES = 3
"""How often a shard is made again whose worker or node was lost."""
RAY_MAX_CALLS = 100
"""Shards after which Ray replaces a worker, which bounds leaks."""
POLL_SECONDS = 0.5
LIST_NODES_SECONDS = 5.0
REMOVE_SECONDS = 5.0
RAY_FOLDER = "glav-ray-"
RAY_ROOT_CHARACTERS = 16
"""Ray's sockets lie some 90 characters deeper, and the paths of sockets may have 107."""
OBJECT_STORE_BYTES = 100 << 20
"""Samples never pass through Ray's object store; this is its least comfortable size."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A shard a worker is through with."""

    name: str
    error: ShardError | None = None


class Executor(Protocol):
    """Runs shard tasks, a bounded number at a time."""

    @property
    def capacity(self) -> int:
        """Tasks worth having submitted."""

    def submit(self, task: ShardTask) -> None:
        """Start a task."""

    def poll(self) -> list[Finished]:
        """Tasks finished since the last call; waits half a second for one."""

    def stop(self) -> None:
        """Kill what is running."""


def make(task: ShardTask, sandbox: Sandbox, decoded: Callable[[], None] = lambda: None) -> str:
    """Make one shard, leaving a progress file while at it; `decoded` as `write_shard` has it."""
    with ProgressFile(task.folder, task.name) as progress:
        write_shard(task, sandbox, progress.update, decoded)
    return task.name


# --- in this process ---------------------------------------------------------------------------


class LocalExecutor:
    """Threads that wait for their child processes, which do the work.

    There are two threads for each child: while the one commits its shard, which takes a while where
    OUT is on a store, the other has the child decode the next.
    """

    def __init__(self, workers: int) -> None:
        self._capacity = 2 * workers
        self._pool = ThreadPoolExecutor(self._capacity, thread_name_prefix="shard")
        self._idle: LifoQueue[Sandbox | None] = LifoQueue()
        for _ in range(workers):
            self._idle.put(None)  # to be made for the first task
        self._sandboxes: list[Sandbox] = []
        self._running: dict[Future[str], str] = {}
        self._stopped = False

    @property
    def capacity(self) -> int:
        """As many as there are threads."""
        return self._capacity

    def submit(self, task: ShardTask) -> None:
        """Start a task."""
        self._running[self._pool.submit(self._make, task)] = task.name

    def _make(self, task: ShardTask) -> str:
        with ExitStack() as lent:
            sandbox = self._idle.get()
            if sandbox is None:
                sandbox = Sandbox(task.config, task.limits)
                self._sandboxes.append(sandbox)
            lent.callback(self._idle.put, sandbox)
            if self._stopped:
                raise Stopped
            return make(task, sandbox, lent.close)

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
        self._stopped = True
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
    check_worker(task)
    wanted = (task.config_hash, task.limits)
    if _sandbox is None or _sandbox_of != wanted:
        if _sandbox is not None:
            _sandbox.close()
        _sandbox, _sandbox_of = Sandbox(task.config, task.limits), wanted
    return make(task, _sandbox)


class RayExecutor:
    """Ray tasks on an embedded Ray of this host, or on a named cluster.

    A shard whose worker or node was lost is submitted again here, not by Ray, so that the log can
    say which shard it was and on which node. Whatever a task raises is not tried again.
    """

    def __init__(
        self,
        workers: int,
        address: str | None,
        say: Say = note,
        body: Callable[[ShardTask], str] = _make_in_ray_worker,
    ) -> None:
        """Start or join.

        Args:
            workers: CPUs of an embedded Ray; a cluster's are all used.
            address: of the cluster; None for an embedded Ray.
            say: takes a line for the log.
            body: what a worker does with a task.

        Raises:
            UsageError: there is no cluster at this address, or it cannot be joined.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        import ray

        self._ray = ray
        self._say = say
        self._folder: str | None = None
        self._nodes = Nodes()
        self._running: dict[Any, _Try] = {}
        address = checked_address(address)
        try:
            self._begin(workers, address)
        except BaseException:
            self.stop()
            raise
        self._list_nodes()
        remote = ray.remote(num_cpus=1, max_retries=0, max_calls=RAY_MAX_CALLS)
        self._task = remote(body)
        if address is not None:
            self._say(f"Ray cluster at {address}: {self._nodes.summary()}; {self._dashboard}")

    @property
    def capacity(self) -> int:
        """Two tasks a CPU, following the nodes that join and leave."""
        return 2 * max(1, self._nodes.cpus)

    def _begin(self, workers: int, address: str | None) -> None:
        """Join the named cluster, or start a Ray of our own.

        Raises:
            UsageError: the cluster cannot be joined.
            ShardError: Ray does not start; what it raises then is of any kind.
        """
        try:
            with _own_sigterm():
                if address is not None:
                    self._join(address)
                else:
                    self._start_embedded(workers)
        except UsageError:
            raise
        except Exception as error:
            raise ShardError(
                f"Ray does not start ({plain_text(str(error))}). Run the same command again, or do "
                "without Ray: --executor local"
            ) from error

    def _start_embedded(self, workers: int) -> None:
        """A private Ray in a folder of its own: no other job's cluster is joined.

        It gets a password of its own, too, or Ray would leave one in the user's home folder.
        """
        _remove_abandoned()
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
        self._folder = tempfile.mkdtemp(prefix=f"{RAY_FOLDER}{os.getpid()}-", dir=_ray_root())
        self._ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=self._folder,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def _join(self, address: str) -> None:
        """Be a driver of a cluster that is there, and ship it our code."""
        environment = runtime_env()
        try:
            context = self._ray.init(
                address=address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            said = plain_text((str(error).strip().splitlines() or [type(error).__name__])[-1])
            raise UsageError(f"the Ray cluster at {address} cannot be joined: {said}") from error
        url = getattr(context, "dashboard_url", "")
        without = "no dashboard (its head needs `ray[default]`)"
        self._dashboard = f"dashboard at http://{url}" if url else without

    def _list_nodes(self) -> None:
        """Look who is there; at the start nobody is news."""
        for line in self._nodes.update(self._ray.nodes()):  # type: ignore[no-untyped-call]
            self._say(line)
        self._listed = time.monotonic()

    def submit(self, task: ShardTask) -> None:
        """Start a task; its folder gets a name that holds on every node."""
        if "://" not in task.folder:
            task = replace(task, folder=str(Path(task.folder).absolute()))
        self._start(_Try(task, 1))

    def _start(self, attempt: "_Try") -> None:
        self._running[self._task.remote(attempt.task)] = attempt

    def poll(self) -> list[Finished]:
        """Tasks finished since the last call."""
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        if time.monotonic() - self._listed >= LIST_NODES_SECONDS:
            self._list_nodes()
        finished = (self._finish(reference) for reference in done)
        return [one for one in finished if one is not None]

    def _finish(self, reference: Any) -> Finished | None:
        """What a task came to; None if it is started again because its worker was lost."""
        attempt = self._running.pop(reference)
        name, exceptions = attempt.task.name, self._ray.exceptions
        try:
            self._ray.get(reference)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, ShardError):
                return Finished(name, error.cause)
            raise
        except exceptions.RuntimeEnvSetupError as error:
            said = plain_text(str(error))
            return Finished(name, ShardError(f"the cluster cannot set up our code: {said}"))
        except exceptions.RayError as error:
            return self._again(attempt, error)
        return Finished(name)

    def _again(self, attempt: "_Try", error: Exception) -> Finished | None:
        """Start a shard again whose worker is gone, a bounded number of times."""
        self._list_nodes()
        kind, node = type(error).__name__, self._nodes.named_in(str(error))
        where = f"with the node {node}" if node else "with its worker process"
        lost = f"shard {attempt.task.name} was lost {where} ({kind})"
        if attempt.number > RAY_MAX_RETRIES:
            said = f"{lost} for the {attempt.number}th time: {plain_text(str(error))}"
            return Finished(attempt.task.name, LostError(said))
        self._say(f"{lost}; it is made again, try {attempt.number + 1} of {RAY_MAX_RETRIES + 1}")
        self._start(_Try(attempt.task, attempt.number + 1))
        return None

    def stop(self) -> None:
        """End the tasks, and the embedded Ray with them."""
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        if self._folder is not None:
            _remove(Path(self._folder))
            _remove_abandoned()  # those of jobs killed a moment ago were still written to before


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way of ending: `ray.init` puts handlers of its own in its place.

    Theirs end it by SIGABRT, or with code 15, with Ray's folder left and no word on how to go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers to be set in the main thread only
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as stop:
        if stop.code == signal.SIGTERM:
            raise KeyboardInterrupt(int(signal.SIGTERM)) from stop
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _remove(folder: Path) -> None:
    """Remove Ray's folder; its processes may write there for a moment after they were ended."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


@dataclass(frozen=True)
class _Try:
    """A task that runs, for the how-manieth time."""

    task: ShardTask
    number: int


def _ray_root() -> Path:
    """The temporary folder, or /tmp where a batch system gave it a name too long for sockets."""
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) <= RAY_ROOT_CHARACTERS else "/tmp")


def _remove_abandoned() -> None:
    """Remove the folders of jobs that were killed: nobody else does, and they take inodes."""
    for folder in _ray_root().glob(f"{RAY_FOLDER}*-*"):
        pid = folder.name.removeprefix(RAY_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def executor(kind: str, workers: int, address: str | None, say: Say = note) -> Iterator[Executor]:
    """The executor a job asked for, stopped at the end whatever happens."""
    chosen: Executor
    chosen = LocalExecutor(workers) if kind == "local" else RayExecutor(workers, address, say)
    try:
        yield chosen
    finally:
        chosen.stop()
