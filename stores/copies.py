"""A folder here that is kept as it is there: only what changed is fetched.

FOLDER/...              the copies, under their names, with the times of what they are copies of
FOLDER/.copies.json     what each was when it was fetched: bytes and time there, bytes and time
here. What was changed here since is fetched again, too
"""

import json
import os
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stores.base import Listed
from stores.objects import ObjectStore

RECORD_NAME = ".copies.json"
FETCHERS = 16
"""Requests at a time: small files are all round trips."""
Record = dict[str, list[int]]


class Copies:
    """Copies of some of a store's files; use in one process at a time."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self._record = self._read()

    def refresh(
        self, wanted: Iterable[Listed], is_own: Callable[[str], bool] = lambda name: False
    ) -> None:
        """Fetch what is new or other, remove what is no longer there.

        Args:
            wanted: what to have, as a listing has it now.
            is_own: names of files in the folder that are no copies and stay.

        Raises:
            StoreError: the store cannot be read.
            OSError: the copies cannot be written.
        """
        named = {entry.name: entry for entry in wanted}
        for name in self._here():
            if name not in named and not is_own(name):
                (self.folder / name).unlink(missing_ok=True)
                self._record.pop(name, None)
        stale = [entry for entry in named.values() if not self._is_true(entry)]
        with ThreadPoolExecutor(FETCHERS) as pool:
            for entry, is_there in zip(stale, pool.map(self._fetch, stale), strict=True):
                if is_there:
                    self._note(entry)
                else:
                    self._record.pop(entry.name, None)
        self._write()

    def knows(self, name: str) -> bool:
        """Whether a file was there when this was last compared or written."""
        return name in self._record

    def push(self, name: str) -> None:
        """Upload one of the files, if it was changed here since it was fetched or uploaded."""
        if self.is_unchanged(name):
            return
        self._note(self.store.put(self.folder / name, name))
        self._write()

    def retract(self, name: str) -> None:
        """Delete a file there; what is here is a change of it, which can be uploaded again."""
        if self._record.pop(name, None) is not None:
            self.store.delete(name)
            self._write()

    def forget(self, names: Iterable[str]) -> None:
        """Delete files here and there, in this order."""
        known = len(self._record)
        try:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
                self.store.delete(name)
                self._record.pop(name, None)
        finally:
            if len(self._record) < known:
                self._write()

    def _fetch(self, entry: Listed) -> bool:
        """Whether it was still there: others may delete what was just listed."""
        local = self.folder / entry.name
        try:
            self.store.fetch(entry.name, local)
        except FileNotFoundError:
            local.unlink(missing_ok=True)
            return False
        os.utime(local, ns=(entry.mtime_ns, entry.mtime_ns))
        return True

    def _here(self) -> list[str]:
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != RECORD_NAME
        ]

    def _is_true(self, entry: Listed) -> bool:
        known = self._record.get(entry.name, [])
        return known[:2] == [entry.size, entry.mtime_ns] and self.is_unchanged(entry.name)

    def is_unchanged(self, name: str) -> bool:
        """Whether the file here is as it was when it was fetched or uploaded."""
        try:
            facts = (self.folder / name).stat()
        except OSError:
            return False
        return self._record.get(name, [])[2:] == [facts.st_size, facts.st_mtime_ns]

    def _note(self, entry: Listed) -> None:
        facts = (self.folder / entry.name).stat()
        self._record[entry.name] = [entry.size, entry.mtime_ns, facts.st_size, facts.st_mtime_ns]

    def _read(self) -> Record:
        try:
            stored = json.loads((self.folder / RECORD_NAME).read_bytes())
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def _write(self) -> None:
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        temporary.write_text(json.dumps(self._record))
        os.replace(temporary, self.folder / RECORD_NAME)
