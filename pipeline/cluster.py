"""What a Ray cluster has to be told, and what its nodes say: addresses, code to ship, nodes.

Ray itself is spoken to in `pipeline.executors`; here is what can be said without it.
"""

import importlib.util
import os
import platform
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from pipeline.errors import ShardError
from pipeline.shard import ShardTask

CONNECT_SECONDS = 10.0
OWN_PACKAGES = ("pipeline", "manifests", "selection", "stores")
"""What a worker imports; those that are not there are not shipped."""
PLUGINS_VARIABLE = "GLAV_PLUGINS"
EXPECTED_ENDS = (1, 4)
"""Ray's death reasons of a node that was asked to go: shut down in order, or idle."""
_NODE_ID = re.compile(r"\b[0-9a-f]{56}\b")


# --- addresses ---------------------------------------------------------------------------------


def checked_address(address: str | None) -> str | None:
    """The cluster that was named; None for a Ray of this process's own.

    Ray tries an address for minutes; somebody who mistyped it wants to know at once.

    Raises:
        UsageError: the address is of another kind, or nobody listens there.
    """
    if not address or address == "local":
        return None
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"{address} is a dashboard; RAY_ADDRESS here is HOST:6379, ray://HOST:10001 or auto. "
            f"To run on the cluster through its dashboard: ray job submit --address {address} ..."
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return address  # `auto` and the like are Ray's to find
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); start it, correct RAY_ADDRESS, or "
            "leave it out for a Ray of this machine's own"
        ) from error
    return address


# --- code --------------------------------------------------------------------------------------


def runtime_env() -> dict[str, Any]:
    """What the workers of a cluster need of this process: our code and the user's plugins."""
    plugins = os.environ.get(PLUGINS_VARIABLE, "")
    modules = [*_own_packages(), *_plugin_modules(plugins)]
    environment: dict[str, Any] = {"py_modules": modules}
    if plugins:
        environment["env_vars"] = {PLUGINS_VARIABLE: plugins}
    return environment


def _own_packages() -> list[str]:
    here = Path(__file__).resolve().parent.parent
    return [str(here / name) for name in OWN_PACKAGES if (here / name).is_dir()]


def _plugin_modules(names: str) -> list[str]:
    """Folders or files of the user's plugins.

    Raises:
        UsageError: one of them is not to be found.
    """
    found = []
    for name in sorted({name.partition(".")[0] for name in names.split(",") if name}):
        spec = importlib.util.find_spec(name)
        if spec is None or not (spec.submodule_search_locations or spec.origin):
            raise UsageError(
                f"{PLUGINS_VARIABLE} names {name!r}, which cannot be found here, so it cannot be "
                "sent to the cluster; put its folder on PYTHONPATH"
            )
        places = spec.submodule_search_locations
        found.append(next(iter(places)) if places else str(spec.origin))
    return found


def check_worker(task: ShardTask) -> None:
    """A machine that sees other files or has other libraries must not make shards: say which.

    Raises:
        ShardError: the shard folder or the root is not there, or a library has another version.
    """
    host = platform.node()
    for name, folder in (("output", task.store or task.folder), ("root", task.root)):
        if "://" not in folder and not Path(folder).is_dir():
            raise ShardError(
                f"{host} does not see the {name} folder {folder}; every node of the cluster must "
                "mount it under this name"
            )
    for name, wanted in task.versions.items():
        if (found := version(name)) != wanted:
            raise ShardError(
                f"{host} has {name} {found}, and this job was started with {wanted}: shards would "
                "differ by where they were made. Install the same requirements.lock on all nodes"
            )


# --- nodes -------------------------------------------------------------------------------------


@dataclass
class Nodes:
    """The machines of a cluster, as they come and go."""

    names: dict[str, str] = field(default_factory=dict)
    """Of all nodes ever seen, by Ray's node id."""
    alive: dict[str, float] = field(default_factory=dict)
    """CPUs of the nodes that are there, by node id."""

    @property
    def cpus(self) -> int:
        """Of all nodes that are there."""
        return int(sum(self.alive.values()))

    def update(self, listed: Iterable[Mapping[str, Any]]) -> list[str]:
        """Take in what `ray.nodes()` says; a line for each node that came or went since."""
        first, lines = not self.names, []
        for node in listed:
            name_id, is_alive = str(node["NodeID"]), bool(node["Alive"])
            if is_alive and name_id not in self.alive:
                self.names[name_id] = _node_name(node)
                self.alive[name_id] = float(node["Resources"].get("CPU", 0))
                lines.append(f"node {self.names[name_id]} joined: {self.cpus} CPUs now")
            elif not is_alive and name_id in self.alive:
                del self.alive[name_id]
                how = "left" if node.get("DeathReason") in EXPECTED_ENDS else "was lost"
                lines.append(f"node {self.names[name_id]} {how}: {self.cpus} CPUs now")
        return [] if first else lines

    def named_in(self, message: str) -> str | None:
        """The node that one of Ray's messages speaks of, by the id in it."""
        for name_id in _NODE_ID.findall(message):
            if name_id in self.names:
                return self.names[name_id]
        return None

    def summary(self) -> str:
        """`3 nodes, 64 CPUs`."""
        count = len(self.alive)
        return f"{count} node{'' if count == 1 else 's'}, {self.cpus} CPUs"


def _node_name(node: Mapping[str, Any]) -> str:
    """`NAME (HOST, ADDRESS)`, each once; HOST is what sidecars call it."""
    address, host = str(node["NodeManagerAddress"]), str(node["NodeManagerHostname"])
    name = str(node.get("NodeName") or host)
    name = host if name == address else name
    rest = ", ".join(text for text in (host, address) if text != name)
    return f"{name} ({rest})"
