"""Where files lie: a folder, s3://, gs:// or http(s)://, read and written the same way.

    open_store("s3://bucket/sets/demo-glcm") -> Store -> .read("shardindex.json"), .open("a.tar")

Shared by manifests (raw videos), pipeline (raw videos, shard sets) and train (shard sets, runs).
`base` says what a store can do; `local`, `objects` and `web` are the three kinds, of which
`objects` lists and writes, too; `retry` tries again what fails in passing; `copies` keeps a folder
here as it is there; `scratch` is where such copies lie.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stores.base import Store
from stores.errors import AddressError
from stores.local import LocalStore

if TYPE_CHECKING:
    from stores.objects import ObjectStore

SCHEMES = "a folder, s3://bucket/set, gs://bucket/set, or https://host/set with --allow-http"


def is_remote(address: str) -> bool:
    """Whether an address names another place than a folder of this machine."""
    return "://" in address and not address.startswith("file://")


def open_store(address: str, *, allow_http: bool = False) -> Store:
    """The store of an address; nothing is read yet.

    Raises:
        AddressError: the address is of no known kind, or holds a password or signature, which would
            end up in config.json and in logs.
    """
    scheme, found, rest = address.partition("://")
    if not found or scheme == "file":
        if re.match(r"-|(?:pipe|s3|gs|https?):", address):
            raise AddressError(f"{address[:100]!r} is no address; expected {SCHEMES}")
        return LocalStore(Path(rest if found else address))
    _refuse_secrets(scheme, rest)
    rest = rest.rstrip("/")
    if scheme not in ("s3", "gs", "http", "https"):
        raise AddressError(f"nothing is read from {scheme}://; expected {SCHEMES}")
    if not re.fullmatch(r"[\w.:\[\]-]+(/[^/?#\s]+)*", rest) or {".", ".."} & {*rest.split("/")}:
        raise AddressError(f"{scheme}://{rest[:200]} is no address; expected {SCHEMES}")
    if scheme in ("s3", "gs"):
        from stores.objects import ObjectStore  # its client is loaded only where it is needed

        return ObjectStore(scheme, rest)
    if not allow_http:
        raise AddressError(
            f"{address} is on a web server, whose answers nobody vouches for; say --allow-http if "
            "you trust it, or copy the files to a folder"
        )
    from stores.web import HttpStore

    return HttpStore(f"{scheme}://{rest}")


def open_objects(address: str, *, what: str) -> "ObjectStore":
    """A store that can be written and listed.

    Args:
        address: s3:// or gs://.
        what: which flag or argument it is, for the message.

    Raises:
        AddressError: it is of another kind, or holds a password.
    """
    if address.startswith(("http://", "https://")):
        _refuse_secrets(*address.split("://", 1))
        raise AddressError(
            f"{what} {address} is on a web server; expected a folder, s3://bucket/name or "
            "gs://bucket/name"
        )
    from stores.objects import ObjectStore

    store = open_store(address)
    if not isinstance(store, ObjectStore):
        raise AddressError(f"{what} {address}: expected s3://bucket/name or gs://bucket/name")
    return store


def _refuse_secrets(scheme: str, rest: str) -> None:
    first = rest.partition("/")[0]
    # A secret key may hold a slash, so that its @ comes later; no bucket has a colon.
    in_front = "@" in first or (scheme in ("s3", "gs") and ":" in first)
    if in_front or "?" in rest or "#" in rest:
        host = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
        raise AddressError(
            f"the address {scheme}://{host}/... holds a password, a signature or a query, which "
            "would be stored with the run; leave it out and give credentials by the environment: "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc"
        )
