"""Where the sets of a soak lie, if it is in folders, and what is seen of a set in the making."""

import json
import shutil
from pathlib import Path

import psutil

from tests.faults.sets import SetFacts, read_set


class Folders:
    """Sets in folders of this machine, where nothing goes wrong but what the kills do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, name: str) -> str:
        """What --out is told."""
        return str(self._folder / name)

    def home(self, name: str) -> Path:
        """The folder in which sidecars appear."""
        return self._folder / name

    def remove(self, name: str) -> None:
        """Delete a set."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def read(self, name: str) -> SetFacts:
        """What a finished set says."""
        return read_set(self._folder / name)

    def litter(self) -> list[Path]:
        """What nobody needs any more; in folders `read` sees all there is."""
        return []

    def strike(self, kind: str, place: float, *, is_long: bool) -> list[str]:
        """Nothing here can be away."""
        return []

    def troubles_now(self) -> list[str]:
        """None, ever."""
        return []

    def calm(self) -> None:
        """It is."""


class Made:
    """The shards of the job under way, by their sidecars."""

    def __init__(self, home: Path, workers: int) -> None:
        """Begins with the start of a driver.

        Args:
            home: folder of the set.
            workers: children that one process of ours may have.
        """
        self._home = home
        self._workers = workers
        self._known = set(self._sidecars())
        self._planned = 0
        self._rows: dict[int, int] = {}

    def is_in_the_middle(self) -> bool:
        """Whether the job has begun to commit shards and is not at its end."""
        self._look()
        total = sum(1 for _ in self._sidecars())
        return sum(self._rows.values()) > 0 and total < self._shards() - 1

    def clips(self, process: psutil.Process, role: str) -> float:
        """How many a process is through with since the driver was started: the driver has all."""
        if role == "driver":
            return sum(self._rows.values())
        if role == "child":
            parent = process.ppid()
            children = 1 if psutil.Process(parent).name().startswith("ray::") else self._workers
            return self._rows.get(parent, 0) / children
        return self._rows.get(process.pid, 0)

    def _look(self) -> None:
        """Take in the sidecars that have come."""
        for path in self._sidecars():
            if path in self._known:
                continue
            try:
                facts = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue  # it is just being replaced
            self._known.add(path)
            pid = facts["run"]["pid"]
            self._rows[pid] = self._rows.get(pid, 0) + facts["rows"]

    def _sidecars(self) -> list[Path]:
        return list((self._home / "shards").glob("*.json"))

    def _shards(self) -> int:
        """As the plan says; 0 where there is none yet."""
        if not self._planned:
            try:
                plan = json.loads((self._home / "plan.json").read_bytes())
            except (OSError, ValueError):
                return 0
            self._planned = sum(len(part["shards"]) for part in plan["parts"])
        return self._planned
