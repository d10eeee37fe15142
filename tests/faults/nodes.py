"""A Ray cluster of several nodes on this machine, and nodes of it that are lost and join.

The nodes are started without our code on their path: what runs there was shipped.
"""

import contextlib
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HEALTH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "20000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""A killed node, which refuses, is missed after three seconds; one that answers late, because the
machine is busy, is not lost for that."""
NODE: dict[str, Any] = {"object_store_memory": 80 << 20}
START_SECONDS = 500.0
"""For a node to be there, of which Ray itself waits 30: too little on a busy machine."""


@contextlib.contextmanager
def ray_cluster(elsewhere: Path) -> Iterator[Any]:
    """A head without CPUs, with a password that is in our environment as long as it is there.

    Args:
        elsewhere: where this process is meanwhile, so that nodes do not find our code.
    """
    from ray._private import services
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in HEALTH.items():
            patch.setenv(name, value)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex())
        patch.delenv("PYTHONPATH", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(elsewhere)
        patch.setattr(services, "get_node", patient(services.get_node))
        read_environment_anew()
        head = {
            "num_cpus": 0, "include_dashboard": False, "node_name": "head",
            "gcs_server_port": _free_port(20000), "ray_client_server_port": _free_port(11000),
            **NODE,
        }  # fmt: skip
        cluster = Cluster(initialize_head=True, head_node_args=head)
        head_node: Any = cluster.head_node
        folder = Path(head_node.get_session_dir_path())
        try:
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
    read_environment_anew()


def read_environment_anew() -> None:
    """Ray reads once how it is to authenticate; another test may have loaded it before."""
    from ray import _raylet

    _raylet.Config.initialize("")  # type: ignore[attr-defined]
    _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def patient(
    ask: Callable[..., Any], seconds: float = START_SECONDS, pause: float = 0.5
) -> Callable[..., Any]:
    """Ray's question whether a node is there, asked until it is, or for so many seconds."""

    def asked(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask(*args, **kwargs)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause)

    return asked


def _free_port(first: int) -> int:
    """The first port from `first` on where nobody listens."""
    for port in range(first, first + 1000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no free port")


class Nodes:
    """The nodes of a cluster beside its head, of which one at a time may be missing."""

    def __init__(self, cluster: Any, count: int) -> None:
        self._cluster = cluster
        self._wanted = count
        self._nodes: list[Any] = []
        self._names = 0
        for _ in range(count):
            self._join()
        cluster.wait_for_nodes(START_SECONDS)

    @property
    def address(self) -> str:
        """For --ray-address."""
        return str(self._cluster.address)

    def strike(self, place: float) -> str:
        """Kill all processes of a node, or have one join where one is missing; what was done.

        Args:
            place: which node, from 0 to 1.
        """
        if len(self._nodes) < self._wanted:
            self._join()
            return "node joined"
        node = self._nodes.pop(int(place * len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        return "node killed"

    def _join(self) -> None:
        name = f"node{self._names}"
        self._names += 1
        self._nodes.append(self._cluster.add_node(num_cpus=1, node_name=name, wait=False, **NODE))
