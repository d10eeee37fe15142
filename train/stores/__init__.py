"""Where a shard set lies: a folder, s3://, gs:// or http(s)://, read the same way.

    open_store("s3://bucket/sets/demo-glcm") -> Store -> .read("shardindex.json"), .open("a.tar")

`base` says what a store can do; `local`, `objects` and `web` are the three kinds, `retry` tries
again what fails in passing, and `cache` keeps on a local disk what came from afar. Tars are read by
ranges, so that a clip costs one request and no tar is ever held whole.
"""

import re
from pathlib import Path

from train.errors import UsageError
from train.stores.base import Store
from train.stores.local import LocalStore
from train.stores.objects import ObjectStore
from train.stores.web import HttpStore

SCHEMES = "a folder, s3://bucket/set, gs://bucket/set, or https://host/set with --allow-http"


def open_store(address: str, *, allow_http: bool = False) -> Store:
    """The store of an address; nothing is read yet.

    Raises:
        UsageError: the address is of no known kind, or holds a password or signature, which would
            end up in config.json and in logs.
    """
    scheme, found, rest = address.partition("://")
    if not found or scheme == "file":
        if re.match(r"-|(?:pipe|s3|gs|https?):", address):
            raise UsageError(f"{address[:100]!r} is no place of shards; expected {SCHEMES}")
        return LocalStore(Path(rest if found else address))
    _refuse_secrets(scheme, rest)
    rest = rest.rstrip("/")
    if scheme not in ("s3", "gs", "http", "https"):
        raise UsageError(f"shards are not read from {scheme}://; expected {SCHEMES}")
    if not re.fullmatch(r"[\w.:\[\]-]+(/[^/?#\s]+)*", rest) or ".." in rest.split("/"):
        raise UsageError(
            f"{scheme}://{rest[:200]} is no address of a shard set; expected {SCHEMES}"
        )
    if scheme in ("s3", "gs"):
        return ObjectStore(scheme, rest)
    if not allow_http:
        raise UsageError(
            f"{address} is on a web server, whose answers nobody vouches for; say --allow-http if "
            "you trust it, or copy the set to a folder"
        )
    return HttpStore(f"{scheme}://{rest}")


def _refuse_secrets(scheme: str, rest: str) -> None:
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        host = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
        raise UsageError(
            f"the address {scheme}://{host}/... holds a password, a signature or a query, which "
            "would be stored with the run; leave it out and give credentials by the environment: "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc"
        )
