"""The shard sets that commands name: folders, or addresses on stores, which have a mirror here.

People know a set on a store by its address, so what is said names that and not the mirror.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from manifests.errors import UsageError
from manifests.text import say
from stores import is_remote

if TYPE_CHECKING:
    from pipeline.make import Outcome

Out = Annotated[str, tyro.conf.Positional]
"""A folder, or s3://bucket/set, gs://bucket/set."""

_said_as: dict[str, str] = {}
"""Mirrors of sets on stores -> the addresses that people know them by."""


@contextlib.contextmanager
def folder_of(out: str) -> Iterator[Path]:
    """The set as a folder: itself, or the mirror of one on a store, made true."""
    from pipeline.remote import reading

    with addresses_in(out), reading(out) as folder:
        yield folder


@contextlib.contextmanager
def folders_of(outs: tuple[str, ...]) -> Iterator[list[Path]]:
    """Several sets as folders.

    Raises:
        UsageError: none is named.
    """
    if not outs:
        raise UsageError("name one shard set or more: folders, or s3://bucket/set")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(folder_of(out)) for out in outs]


def push(out: str, folder: Path) -> None:
    """Upload what was written into the mirror of a set on a store."""
    from pipeline import remote

    if is_remote(out):
        with remote.alone(folder):
            remote.push(folder)


@contextlib.contextmanager
def addresses_in(out: str | None, scratch: str | None = None) -> Iterator[None]:
    """What is said and raised inside names addresses, not their mirrors."""
    if out is not None and is_remote(out):
        from pipeline.remote import home_of

        _said_as[str(home_of(out, scratch))] = out.rstrip("/")
    yield


def addressed(text: str) -> str:
    """A text with addresses in place of their mirrors."""
    for folder, address in _said_as.items():
        text = text.replace(folder, address)
    return text


def tell(*lines: str) -> None:
    """Print lines, with addresses."""
    say(*map(addressed, lines))


def said(outcome: "Outcome") -> int:
    """Print what a command has to say, and give its exit code."""
    tell(*outcome.lines)
    return outcome.exit_code
